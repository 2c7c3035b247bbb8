// SPDX-License-Identifier: Apache-2.0
//
// Exporters on a host that has none of the kernel's: memory files by the suite that all back-ends pass, and what the
// choice among back-ends is made by. tests/kernel/dmabuf has the others.
#include "dmabuf/back_ends.hpp"
#include "dmabuf/buffer_sources.hpp"
#include "dmabuf/dma_heap.hpp"
#include "dmabuf/export_table.hpp"
#include "dmabuf/huge_folios.hpp"
#include "dmabuf/memfd_exporter.hpp"
#include "dmabuf/udmabuf_exporter.hpp"
#include "dmabuf/udmabuf_refusal.hpp"
#include "support/export_conformance.hpp"
#include "support/temporary_folder.hpp"

#include <accelmm/buffer_sources.hpp>

#include <chrono>
#include <filesystem>
#include <fstream>

namespace accelmm::dmabuf {

namespace test {
INSTANTIATE_TEST_SUITE_P(BackEnds, ExportConformance, testing::Values([] {
                           return Way(std::shared_ptr<Exporter>(std::make_shared<MemfdExporter>()));
                         }),
                         [](const auto&) { return "memfd"; });
}  // namespace test

namespace {

using accelmm::test::TemporaryFolder;

UniqueFd memfd(ByteCount size, int seals) {
  UniqueFd fd(::memfd_create("raw", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  EXPECT_EQ(0, ::ftruncate(fd.get(), static_cast<off_t>(size.value())));
  EXPECT_EQ(0, ::fcntl(fd.get(), F_ADD_SEALS, seals));
  return fd;
}

Errc export_errc(Exporter& exporter, const FileRange& range, ExportOptions options = {}) {
  const auto pieces = exporter.export_view({.ranges = std::span(&range, 1), .options = options});
  return pieces ? Errc{} : pieces.error().code;
}

TEST(MemfdExporter, ItsDescriptorsAreNeverWiderThanAskedFor) {
  MemfdExporter exporter;
  const UniqueFd writable = memfd(8_KiB, F_SEAL_SHRINK | F_SEAL_GROW);
  const UniqueFd sealed = memfd(8_KiB, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE);
  const UniqueFd frozen = memfd(8_KiB, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE);
  const UniqueFd shrinks = memfd(8_KiB, F_SEAL_GROW);
  const auto whole = [](const UniqueFd& fd) {
    return FileRange{fd.view(), 8_KiB, ByteCount(), 8_KiB};
  };
  EXPECT_EQ(Errc{}, export_errc(exporter, whole(writable)));
  EXPECT_EQ(Errc::not_supported, export_errc(exporter, whole(writable), {.access = Access::read}));
  EXPECT_EQ(Errc{}, export_errc(exporter, whole(sealed), {.access = Access::read}));
  EXPECT_EQ(Errc::not_permitted, export_errc(exporter, whole(sealed)));
  EXPECT_EQ(Errc{}, export_errc(exporter, whole(frozen), {.access = Access::read}));
  EXPECT_EQ(Errc::not_permitted, export_errc(exporter, whole(frozen)));
  EXPECT_EQ(Errc::invalid_argument, export_errc(exporter, whole(shrinks)));
  EXPECT_EQ(Errc::not_supported, export_errc(exporter, {FdView(0), 8_KiB, ByteCount(), 8_KiB}));
}

TEST(Exporter, SeveralWholeFilesAreSeveralPieces) {
  MemfdExporter exporter;
  const UniqueFd first = memfd(8_KiB, F_SEAL_SHRINK);
  const UniqueFd second = memfd(4_KiB, F_SEAL_SHRINK);
  const std::vector<FileRange> ranges{{first.view(), 8_KiB, ByteCount(), 8_KiB},
                                      {second.view(), 4_KiB, ByteCount(), 4_KiB}};
  const auto pieces = exporter.export_view({.ranges = ranges});
  ASSERT_TRUE(pieces.has_value());
  EXPECT_EQ(2U, pieces->size());
  EXPECT_TRUE(exporter.export_view({.ranges = ranges, .options = {.most_pieces = 2}}).has_value());
  EXPECT_EQ(Errc::not_supported,
            exporter.export_view({.ranges = ranges, .options = {.most_pieces = 1}}).error().code);
}

TEST(Exporter, RangesLongerThan64BitsOverflow) {
  MemfdExporter exporter;
  const FileRange huge{FdView(0), ByteCount(~std::uint64_t{0}), ByteCount(),
                       ByteCount(~std::uint64_t{0})};
  const std::vector ranges{huge, huge};
  EXPECT_EQ(Errc::overflow, exporter.export_view({.ranges = ranges}).error().code);
}

TEST(BackEnds, WhatIsMissingIsReportedAndMemoryFilesAreLeft) {
  const TemporaryFolder folder;
  const auto found = BackEnds::probe({.dma_heaps = {"system"}, .drm_node = folder.path() + "/card"},
                                     HugeImportable::refused,
                                     {.udmabuf = folder.path() + "/udmabuf",
                                      .udmabuf_parameters = folder.path(),
                                      .dma_heaps = folder.path()});
  ASSERT_EQ(1U, found->exporters().size());
  EXPECT_STREQ("memfd", found->exporters().front()->name());
  EXPECT_TRUE(found->sources().empty());
  const std::string line = describe(found->report());
  EXPECT_EQ("memfd; not udmabuf (ENOENT), dma-heap system (ENOENT), drm " + folder.path() +
                "/card (ENOENT)",
            line);
}

TEST(BufferSources, AreWhatMakesDmaBufsAndNothingElse) {
  EXPECT_TRUE(buffer_sources(BackEnds::memory_files()).empty());
  const auto found = find_buffer_sources({.udmabuf = SharingPolicy::Udmabuf::never});
  ASSERT_TRUE(found.has_value());
  EXPECT_TRUE(found->sources.empty());
  EXPECT_EQ("memfd; not udmabuf (EPERM)", describe(found->report));
}

TEST(BackEnds, WhatThePolicyLeavesOutIsNotTouched) {
  const TemporaryFolder folder;
  std::ofstream(folder.path() + "/udmabuf") << "x";
  const auto found =
      BackEnds::probe({.udmabuf = SharingPolicy::Udmabuf::never}, HugeImportable::refused,
                      {.udmabuf = folder.path() + "/udmabuf"});
  EXPECT_EQ("memfd; not udmabuf (EPERM)", describe(found->report()));
}

TEST(BackEnds, ProbingOpensForReadingOnly) {
  const TemporaryFolder folder;
  std::ofstream(folder.path() + "/udmabuf") << "x";
  std::filesystem::permissions(folder.path() + "/udmabuf", std::filesystem::perms::owner_read);
  const auto device =
      UdmabufExporter::open({.device = folder.path() + "/udmabuf", .parameters = folder.path()});
  ASSERT_TRUE(device.has_value());
  std::ifstream same(folder.path() + "/udmabuf");
  EXPECT_EQ('x', same.get());
}

TEST(UdmabufExporter, TheKernelsLimitsAreItsParametersOrTheDefaults) {
  const TemporaryFolder folder;
  std::ofstream(folder.path() + "/udmabuf");
  const UdmabufExporter::Options options{.device = folder.path() + "/udmabuf",
                                         .parameters = folder.path()};
  const auto limits = [&] { return UdmabufExporter::open(options).value()->capabilities(); };
  EXPECT_EQ(64_MiB, limits().largest);
  EXPECT_EQ(1024U, limits().most_ranges);
  std::ofstream(folder.path() + "/size_limit_mb") << "2\n";
  std::ofstream(folder.path() + "/list_limit") << "7\n";
  EXPECT_EQ(2_MiB, limits().largest);
  EXPECT_EQ(7U, limits().most_ranges);
  std::ofstream(folder.path() + "/size_limit_mb") << "99999999999999999\n";
  std::ofstream(folder.path() + "/list_limit") << "0\n";
  EXPECT_EQ(ByteCount(std::uint64_t{0x7ff'ffff'ffff} << 20), limits().largest);
  EXPECT_EQ(1024U, limits().most_ranges);
}

TEST(UdmabufRefusal, EachReasonIsToldApart) {
  const PieceLimits limits{.largest = 64_KiB, .most_ranges = 2};
  const UniqueFd good = memfd(128_KiB, F_SEAL_SHRINK);
  const UniqueFd shrinks = memfd(128_KiB, F_SEAL_GROW);
  const UniqueFd sealed = memfd(128_KiB, F_SEAL_SHRINK | F_SEAL_FUTURE_WRITE);
  const auto of = [&](FdView fd, std::uint64_t offset, std::uint64_t length) {
    const FileRange range{fd, 128_KiB, ByteCount(offset), ByteCount(length)};
    return diagnose_udmabuf(std::span(&range, 1), limits).value();
  };
  EXPECT_EQ(UdmabufRefusal::none, of(good.view(), 4096, 64 << 10));
  EXPECT_EQ(UdmabufRefusal::empty, of(good.view(), 0, 0));
  EXPECT_EQ(UdmabufRefusal::unaligned, of(good.view(), 1, 4096));
  EXPECT_EQ(UdmabufRefusal::unaligned, of(good.view(), 0, 100));
  EXPECT_EQ(UdmabufRefusal::too_large, of(good.view(), 0, (64 << 10) + 4096));
  EXPECT_EQ(UdmabufRefusal::past_end, of(good.view(), 128 << 10, 4096));
  EXPECT_EQ(UdmabufRefusal::may_shrink, of(shrinks.view(), 0, 4096));
  EXPECT_EQ(UdmabufRefusal::write_sealed, of(sealed.view(), 0, 4096));
  EXPECT_EQ(UdmabufRefusal::not_a_memfd, of(FdView(0), 0, 4096));
  const std::vector<FileRange> three(3, {good.view(), 128_KiB, ByteCount(), 4_KiB});
  EXPECT_EQ(UdmabufRefusal::too_many, diagnose_udmabuf(three, limits).value());
  EXPECT_EQ(UdmabufRefusal::empty, diagnose_udmabuf({}, limits).value());
}

TEST(DmaHeap, HeapsAreTheNamesInTheFolder) {
  const TemporaryFolder folder;
  for (const char* heap : {"system", "default_cma_region", "reserved"})
    std::ofstream(folder.path() + "/" + heap);
  EXPECT_EQ((std::vector<std::string>{"default_cma_region", "reserved", "system"}),
            dma_heap_names(folder.path()).value());
  EXPECT_EQ(Errc::no_entry, dma_heap_names(folder.path() + "/none").error().code);
}

TEST(DmaHeap, AskingForMoreThanItsShareNeverReachesTheKernel) {
  const TemporaryFolder folder;
  std::ofstream(folder.path() + "/system");
  const auto heap = DmaHeap::open("system", {.largest = 1_MiB, .total = 8_KiB}, folder.path());
  ASSERT_TRUE(heap.has_value());
  const accelmm::test::FailingSite never("dma_heap_allocate", EIO);
  const auto errc = [&](ByteCount size) {
    return (*heap)->allocate(size, Access::read_write, "").error().code;
  };
  EXPECT_EQ(Errc::no_memory, errc(ByteCount(std::uint64_t{1} << 40)));
  EXPECT_EQ(Errc::over_quota, errc(12_KiB));
  EXPECT_EQ(0, never.failures());
  EXPECT_EQ(Errc::io_error, errc(8_KiB));
  EXPECT_EQ(Errc::io_error, errc(8_KiB)) << "what failed is not charged";
  for (const char* name : {"", ".", "..", "a/b"})
    EXPECT_EQ(Errc::invalid_argument,
              DmaHeap::open(name, {1_MiB, 1_MiB}, folder.path()).error().code);
}

TEST(HugeFolios, WhatTheKernelGivesIsReadFromItsSettings) {
  const TemporaryFolder folder;
  const auto set = [&](const std::string& size, const char* modes) {
    std::filesystem::create_directories(folder.path() + "/" + size);
    std::ofstream(folder.path() + "/" + size + "/shmem_enabled") << modes;
  };
  EXPECT_EQ(FolioSize::base, folio_sizes(folder.path()));
  set("", "always within_size advise [never] deny force\n");
  EXPECT_EQ(FolioSize::base, folio_sizes(folder.path()));
  set("hugepages-2048kB", "always [inherit] within_size advise never\n");
  set("hugepages-64kB", "always inherit within_size advise [never]\n");
  EXPECT_EQ(FolioSize::base, folio_sizes(folder.path()));
  set("", "always within_size [advise] never deny force\n");
  EXPECT_EQ(FolioSize::advised, folio_sizes(folder.path()));
  set("hugepages-64kB", "always [inherit] within_size advise never\n");
  EXPECT_EQ(FolioSize::any, folio_sizes(folder.path()));
  set("hugepages-64kB", "always inherit within_size [advise] never\n");
  EXPECT_EQ(FolioSize::any, folio_sizes(folder.path()));
  set("hugepages-64kB", "always inherit within_size advise [never]\n");
  set("", "[always] within_size advise never deny force\n");
  EXPECT_EQ(FolioSize::any, folio_sizes(folder.path()));
}

TEST(HugeFolios, WhatWasReadIsBelievedForAMomentAndNoLonger) {
  using Clock = std::chrono::steady_clock;
  const TemporaryFolder folder;
  const auto set = [&](const char* modes) {
    std::ofstream(folder.path() + "/shmem_enabled") << modes;
  };
  const FolioSettings settings(folder.path());
  const Clock::time_point begin(1000 * FolioSettings::moment);
  set("always within_size advise [never] deny force\n");
  EXPECT_EQ(FolioSize::base, settings.sizes(begin));
  set("[always] within_size advise never deny force\n");
  EXPECT_EQ(FolioSize::base, settings.sizes(begin + FolioSettings::moment / 2));
  EXPECT_EQ(FolioSize::any, settings.sizes(begin + FolioSettings::moment));
  set("always within_size [advise] never deny force\n");
  EXPECT_EQ(FolioSize::any, settings.sizes(begin + FolioSettings::moment));
  EXPECT_EQ(FolioSize::advised, settings.sizes(begin + 2 * FolioSettings::moment));
}

TEST(ExportTable, MemoryFilesAreOneFileAndNothingIsKept) {
  const UniqueFd fd = memfd(8_KiB, F_SEAL_SHRINK);
  ExportTable table(BackEnds::memory_files());
  const std::size_t before = test::count_fds();
  struct stat status = {};
  ASSERT_EQ(0, ::fstat(fd.get(), &status));
  {
    const auto pieces = table.export_view({status.st_dev, status.st_ino},
                                          {fd.view(), 8_KiB, ByteCount(), 8_KiB}, {});
    ASSERT_TRUE(pieces.has_value());
    EXPECT_EQ(0U, table.size());
  }
  EXPECT_EQ(before, test::count_fds());
}

}  // namespace
}  // namespace accelmm::dmabuf
