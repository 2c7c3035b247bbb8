// SPDX-License-Identifier: Apache-2.0
//
// The kernel's rules for dma-bufs over memory files, one by one, and what the exporter makes of
// them.
#include "base/mapping.hpp"
#include "base/system.hpp"
#include "base/system_dmabuf.hpp"
#include "dmabuf/buffer_info.hpp"
#include "dmabuf/export_table.hpp"
#include "dmabuf/udmabuf_refusal.hpp"
#include "kernel/dmabuf/guest.hpp"
#include "support/census.hpp"

#include <algorithm>
#include <filesystem>
#include <thread>

#include <sys/ioctl.h>
#include <sys/wait.h>

namespace accelmm::dmabuf {
namespace {

using accelmm::test::count_fds;
using guest::memfd;
using guest::Parameter;

constexpr int sealed = F_SEAL_SHRINK | F_SEAL_GROW;
constexpr ByteCount file_size = 128_MiB;

/// What the kernel itself says to one range, and what the exporter says.
struct Answer {
  Errc kernel;
  Errc ours;
  UdmabufRefusal reason;
};

Answer ask(FdView file, std::uint64_t offset, std::uint64_t length, ByteCount size = file_size) {
  const UniqueFd device(::open("/dev/udmabuf", O_RDONLY | O_CLOEXEC));
  Answer answer{};
  const auto made = sys::udmabuf_create(device.view(), {file, offset, length});
  if (!made) answer.kernel = made.error().code;
  const FileRange range{file, size, ByteCount(offset), ByteCount(length)};
  const auto exporter = guest::udmabuf();
  answer.reason = diagnose_udmabuf(std::span(&range, 1), {exporter->capabilities().largest,
                                                          exporter->capabilities().most_ranges})
                      .value();
  const auto pieces = exporter->export_view({.ranges = std::span(&range, 1)});
  if (!pieces) answer.ours = pieces.error().code;
  return answer;
}

void expect(const Answer& answer, Errc kernel, Errc ours, UdmabufRefusal reason, const char* what) {
  EXPECT_EQ(kernel, answer.kernel) << what;
  EXPECT_EQ(ours, answer.ours) << what;
  EXPECT_EQ(reason, answer.reason) << what;
}

TEST(UdmabufRules, EveryRefusalOfTheKernelIsTakenForWhatItIs) {
  const Errc none{};
  const Errc invalid = Errc::invalid_argument;
  const Errc bad_file = static_cast<Errc>(EBADFD);
  const Errc cannot = Errc::not_supported;
  using R = UdmabufRefusal;
  const auto good = memfd(file_size);
  expect(ask(good.view(), 0, 4096), none, none, R::none, "a page");
  expect(ask(good.view(), 4096, 8192), none, none, R::none, "pages");
  expect(ask(good.view(), 0, 64 << 20), none, none, R::none, "the limit");
  expect(ask(memfd(file_size, F_SEAL_SHRINK).view(), 0, 4096), none, none, R::none, "may grow");
  expect(ask(memfd(file_size, sealed | F_SEAL_SEAL).view(), 0, 4096), none, none, R::none,
         "sealed for good");
  expect(ask(memfd(file_size, 0).view(), 0, 4096), invalid, invalid, R::may_shrink, "no seals");
  expect(ask(memfd(file_size, 0, 0).view(), 0, 4096), invalid, invalid, R::may_shrink,
         "cannot be sealed");
  expect(ask(memfd(file_size, sealed | F_SEAL_WRITE).view(), 0, 4096), invalid, cannot,
         R::write_sealed, "F_SEAL_WRITE");
  expect(ask(memfd(file_size, sealed | F_SEAL_FUTURE_WRITE).view(), 0, 4096), invalid, cannot,
         R::write_sealed, "F_SEAL_FUTURE_WRITE");
  expect(ask(good.view(), 1, 4096), invalid, invalid, R::unaligned, "offset");
  expect(ask(good.view(), 0, 4095), invalid, invalid, R::unaligned, "length");
  expect(ask(good.view(), 0, 0), invalid, invalid, R::empty, "no bytes");
  // We believe nobody about the size of a file: here it is said to be larger than it is.
  expect(ask(good.view(), file_size.value(), 4096, file_size + 4_KiB), invalid, invalid,
         R::past_end, "beyond the end");
  const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  expect(ask(null.view(), 0, 4096), bad_file, cannot, R::not_a_memfd, "/dev/null");
  struct stat status = {};
  ASSERT_EQ(0, ::fstat(good.get(), &status));
  EXPECT_EQ(static_cast<off_t>(file_size.value()), status.st_size) << "never grown";
}

TEST(UdmabufRules, WhatIsLargerThanTheLimitBecomesSeveral) {
  const auto file = memfd(file_size);
  const UniqueFd device(::open("/dev/udmabuf", O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(Errc::invalid_argument,
            sys::udmabuf_create(device.view(), {file.view(), 0, (64U << 20) + 4096}).error().code);
  const FileRange range{file.view(), file_size, 4_KiB, 64_MiB + 4_KiB};
  const auto pieces = guest::udmabuf()->export_view({.ranges = std::span(&range, 1)});
  ASSERT_TRUE(pieces.has_value()) << pieces.error().what;
  ASSERT_EQ(2U, pieces->size());
  EXPECT_EQ(64_MiB, (*pieces)[0].length);
  EXPECT_EQ(4_KiB, (*pieces)[1].length);
}

TEST(UdmabufRules, ALimitThatIsLoweredMeanwhileMakesMorePieces) {
  const auto file = memfd(4_MiB);
  const FileRange range{file.view(), 4_MiB, ByteCount(), 4_MiB};
  const auto exporter = guest::udmabuf();
  EXPECT_EQ(1U, exporter->export_view({.ranges = std::span(&range, 1)})->size());
  const Parameter lower("size_limit_mb", "1");
  EXPECT_EQ(4U, exporter->export_view({.ranges = std::span(&range, 1)}).value().size());
  EXPECT_EQ(1_MiB, exporter->capabilities().largest);
}

TEST(UdmabufRules, MoreRangesThanTheLimitBecomeSeveral) {
  constexpr std::uint64_t ranges = 1025;
  const auto file = memfd(ByteCount(2 * ranges * 4096));
  std::vector<FileRange> all;
  std::vector<sys::MemfdRange> bare;
  for (std::uint64_t i = 0; i < ranges; ++i) {
    all.push_back({file.view(), ByteCount(2 * ranges * 4096), ByteCount(2 * i * 4096), 4_KiB});
    bare.push_back({file.view(), 2 * i * 4096, 4096});
  }
  const UniqueFd device(::open("/dev/udmabuf", O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(Errc::invalid_argument, sys::udmabuf_create_list(device.view(), bare).error().code);
  bare.pop_back();
  EXPECT_TRUE(sys::udmabuf_create_list(device.view(), bare).has_value());
  EXPECT_EQ(Errc::invalid_argument, sys::udmabuf_create_list(device.view(), {}).error().code);
  const auto pieces = guest::udmabuf()->export_view({.ranges = all});
  ASSERT_TRUE(pieces.has_value()) << pieces.error().what;
  ASSERT_EQ(2U, pieces->size());
  EXPECT_EQ(4_MiB, (*pieces)[0].length);
  EXPECT_EQ(4_KiB, (*pieces)[1].length);
  EXPECT_TRUE(
      guest::udmabuf()->export_view({.ranges = all, .options = {.most_pieces = 2}}).has_value());
  EXPECT_EQ(
      Errc::not_supported,
      guest::udmabuf()->export_view({.ranges = all, .options = {.most_pieces = 1}}).error().code);
}

TEST(UdmabufRules, ScatteredRangesOfSeveralFilesAreOneDmaBufInTheirOrder) {
  const auto first = memfd(16_KiB);
  const auto second = memfd(8_KiB);
  for (int page = 0; page < 4; ++page)
    ASSERT_EQ(1, ::pwrite(first.get(), &"abcd"[page], 1, page * 4096));
  ASSERT_EQ(1, ::pwrite(second.get(), "x", 1, 4096));
  const std::vector<FileRange> ranges{{first.view(), 16_KiB, 8_KiB, 4_KiB},
                                      {second.view(), 8_KiB, 4_KiB, 4_KiB},
                                      {first.view(), 16_KiB, ByteCount(), 4_KiB},
                                      {first.view(), 16_KiB, 8_KiB, 4_KiB}};
  const auto pieces = guest::udmabuf()->export_view({.ranges = ranges});
  ASSERT_TRUE(pieces.has_value()) << pieces.error().what;
  ASSERT_EQ(1U, pieces->size());
  EXPECT_EQ(16_KiB, pieces->front().length);
  const auto view =
      Mapping::create(pieces->front().fd.view(), 0, 16_KiB, PROT_READ | PROT_WRITE).value();
  std::string seen;
  for (std::size_t page = 0; page < 4; ++page) seen += static_cast<char>(view.bytes()[page * 4096]);
  EXPECT_EQ("cxac", seen);
  // The same page twice is a ring.
  view.bytes()[5] = std::byte{7};
  EXPECT_EQ(std::byte{7}, view.bytes()[3 * 4096 + 5]);
}

TEST(UdmabufRules, PoolsOfHugePagesAreRefusedUnlessThePolicyTrustsTheKernel) {
  std::ofstream("/proc/sys/vm/nr_hugepages") << "2";
  const auto file = memfd(2_MiB, sealed, MFD_ALLOW_SEALING | MFD_HUGETLB);
  const FileRange range{file.view(), 2_MiB, ByteCount(), 2_MiB};
  EXPECT_EQ(Errc::not_supported,
            guest::udmabuf()->export_view({.ranges = std::span(&range, 1)}).error().code);
  const auto trusting = guest::udmabuf(HugeImportable::allowed);
  const auto pieces = trusting->export_view({.ranges = std::span(&range, 1)});
  EXPECT_TRUE(pieces.has_value()) << pieces.error().what;
}

TEST(UdmabufRules, TransparentHugePagesAreFoundWhereTheyAreAndRefused) {
  const auto advise = std::filesystem::path("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
  std::ofstream(advise) << "advise";
  const auto huge = memfd(4_MiB);
  const auto base = memfd(4_MiB);
  {
    // Aligned, so that a huge page fits.
    const auto place = Mapping::reserve(8_MiB).value();
    const auto begin = (reinterpret_cast<std::uintptr_t>(place.bytes().data()) + (2U << 20) - 1) &
                       ~((2UL << 20) - 1);
    void* const at = ::mmap(reinterpret_cast<void*>(begin), 4U << 20, PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_FIXED, huge.get(), 0);
    ASSERT_NE(MAP_FAILED, at);
    ASSERT_EQ(0, ::madvise(at, 4U << 20, MADV_HUGEPAGE));
    ASSERT_EQ(0, ::madvise(at, 4U << 20, MADV_POPULATE_WRITE));
  }
  const auto exporter = guest::udmabuf();
  const FileRange huge_range{huge.view(), 4_MiB, ByteCount(), 4_MiB};
  const FileRange base_range{base.view(), 4_MiB, ByteCount(), 4_MiB};
  const auto refused = exporter->export_view({.ranges = std::span(&huge_range, 1)});
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(Errc::not_supported, refused.error().code);
  const auto made = exporter->export_view({.ranges = std::span(&base_range, 1)});
  EXPECT_TRUE(made.has_value()) << made.error().what;
  std::ofstream(advise) << "always";
  std::this_thread::sleep_for(FolioSettings::moment);
  EXPECT_FALSE(exporter->export_view({.ranges = std::span(&base_range, 1)}).has_value());
  std::ofstream(advise) << "never";
}

TEST(UdmabufNames, TheyAreSeenInProcCutAtACharacter) {
  const auto file = memfd(4_KiB);
  const FileRange range{file.view(), 4_KiB, ByteCount(), 4_KiB};
  const std::string name = std::string(30, 'n') + "\u00e4";
  const auto pieces =
      guest::udmabuf()->export_view({.ranges = std::span(&range, 1), .options = {.name = name}});
  ASSERT_TRUE(pieces.has_value()) << pieces.error().what;
  const FdView fd = pieces->front().fd.view();
  const auto info = buffer_info(fd).value();
  EXPECT_EQ(std::string(30, 'n'), info.name);
  EXPECT_EQ("udmabuf", info.exporter);
  EXPECT_EQ(4_KiB, info.size);
  EXPECT_EQ(1U, info.holders);
  EXPECT_EQ("/dmabuf:" + std::string(30, 'n'),
            std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(fd.get())).string());
  // The longest that the kernel takes, and one more.
  EXPECT_TRUE(sys::dma_buf_set_name(fd, std::string(31, 'x').c_str()).has_value());
  EXPECT_EQ(Errc::invalid_argument,
            sys::dma_buf_set_name(fd, std::string(32, 'x').c_str()).error().code);
}

/// A file, and the table of what is exported of it.
class ExportedTwice : public testing::Test {
 protected:
  ExportedTwice() {
    struct stat status = {};
    EXPECT_EQ(0, ::fstat(file_.get(), &status));
    identity_ = {status.st_dev, status.st_ino};
  }
  [[nodiscard]] std::vector<Piece> take(ByteCount offset, ByteCount length) {
    auto pieces =
        table_.export_view(identity_, {file_.view(), 64_KiB, offset, length}, {.name = "twice"});
    EXPECT_TRUE(pieces.has_value());
    return std::move(*pieces);
  }
  static FileIdentity identity(const std::vector<Piece>& pieces) {
    struct stat status = {};
    EXPECT_EQ(0, ::fstat(pieces.front().fd.get(), &status));
    return {status.st_dev, status.st_ino};
  }

  UniqueFd file_ = memfd(64_KiB);
  FileIdentity identity_{};
  ExportTable table_{BackEnds::probe({}, HugeImportable::refused)};
};

TEST_F(ExportedTwice, TheSameRangeIsTheSameDmaBuf) {
  const auto first = take(ByteCount(), 64_KiB);
  EXPECT_EQ(identity(first), identity(take(ByteCount(), 64_KiB)));
  EXPECT_NE(identity(first), identity(take(4_KiB, 4_KiB)));
  EXPECT_EQ(2U, table_.size());
  const auto list = table_.list();
  ASSERT_EQ(2U, list.size());
  EXPECT_EQ("twice", list.front().name);
  const auto origin = table_.find(identity(first));
  ASSERT_TRUE(origin.has_value());
  EXPECT_EQ(identity_, origin->file);
  EXPECT_EQ(64_KiB, origin->length);
}

TEST_F(ExportedTwice, WhoMayOnlyReadIsNotGivenWhatCanBeWritten) {
  const auto writable = take(ByteCount(), 64_KiB);
  const auto read_only = table_.export_view(identity_, {file_.view(), 64_KiB, ByteCount(), 64_KiB},
                                            {.access = Access::read});
  EXPECT_EQ(Errc::not_supported, read_only.error().code);
}

TEST_F(ExportedTwice, WhoTakesFewerPiecesIsNotGivenAllThatWereMade) {
  const auto large = memfd(4_MiB);
  struct stat status = {};
  ASSERT_EQ(0, ::fstat(large.get(), &status));
  const FileIdentity identity{status.st_dev, status.st_ino};
  const FileRange whole{large.view(), 4_MiB, ByteCount(), 4_MiB};
  const Parameter lower("size_limit_mb", "1");
  EXPECT_EQ(4U, table_.export_view(identity, whole, {}).value().size());
  const auto one = table_.export_view(identity, whole, {.most_pieces = 1}).value();
  ASSERT_EQ(1U, one.size());
  EXPECT_FALSE(is_dma_buf(one.front().fd.view()).value()) << "its memory file";
}

TEST_F(ExportedTwice, WhatNobodyHoldsIsLetGo) {
  const std::size_t fds = count_fds();
  auto held = take(ByteCount(), 4_KiB);
  static_cast<void>(take(4_KiB, 4_KiB));
  table_.sweep();
  EXPECT_EQ(1U, table_.size());
  EXPECT_TRUE(table_.find(identity(held)).has_value());
  held.clear();
  table_.sweep();
  EXPECT_EQ(0U, table_.size());
  EXPECT_EQ(fds, count_fds());
}

TEST_F(ExportedTwice, AFileThatEndsIsForgottenAndItsExportsLive) {
  const auto held = take(ByteCount(), 4_KiB);
  ASSERT_EQ(1, ::pwrite(file_.get(), "y", 1, 9));
  table_.forget(identity_);
  EXPECT_EQ(0U, table_.size());
  file_.reset();
  const auto view = Mapping::create(held.front().fd.view(), 0, 4_KiB, PROT_READ).value();
  EXPECT_EQ(std::byte{'y'}, view.bytes()[9]);
  EXPECT_EQ(2U, buffer_info(held.front().fd.view())->holders) << "the descriptor and the mapping";
}

// Why nothing may be punched out of a file that is exported.
TEST_F(ExportedTwice, AHoleThatIsPunchedPartsTheFileFromItsDmaBuf) {
  ASSERT_EQ(1, ::pwrite(file_.get(), "z", 1, 0));
  const auto held = take(ByteCount(), 4_KiB);
  ASSERT_EQ(0, ::fallocate(file_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096));
  char byte = 1;
  ASSERT_EQ(1, ::pread(file_.get(), &byte, 1, 0));
  EXPECT_EQ(0, byte);
  const auto view = Mapping::create(held.front().fd.view(), 0, 4_KiB, PROT_READ).value();
  EXPECT_EQ(std::byte{'z'}, view.bytes()[0]);
}

TEST(DmaBufDescriptor, ItIsWhatTheDocumentationSays) {
  const auto file = memfd(64_KiB);
  const FileRange range{file.view(), 64_KiB, ByteCount(), 64_KiB};
  auto pieces = guest::udmabuf()->export_view({.ranges = std::span(&range, 1)}).value();
  auto buffer = DmaBuf::adopt(std::move(pieces.front().fd)).value();
  EXPECT_EQ(64_KiB, buffer.size());
  EXPECT_EQ(Access::read_write, buffer.access());
  const auto copy = buffer.duplicate().value();
  struct stat status = {};
  ASSERT_EQ(0, ::fstat(copy.get(), &status));
  EXPECT_EQ(buffer.identity().inode, status.st_ino);
  EXPECT_EQ(static_cast<off_t>(64_KiB .value()), status.st_size);
  EXPECT_FALSE(is_dma_buf(file.view()).value());
  // Unlike a memory file it cannot be opened again.
  EXPECT_EQ(-1, ::open(("/proc/self/fd/" + std::to_string(copy.get())).c_str(), O_RDWR));
  EXPECT_EQ(ENXIO, errno);
}

}  // namespace
}  // namespace accelmm::dmabuf
