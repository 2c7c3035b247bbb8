// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/mapping.hpp"
#include "dmabuf/back_ends.hpp"
#include "dmabuf/importer.hpp"
#include "mm/backing/memory_window.hpp"
#include "mm/backing/sealed_memfd.hpp"
#include "support/census.hpp"
#include "support/failing_calls.hpp"

#include <algorithm>
#include <cstdio>
#include <functional>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

/// What every way to share owes everybody: the same tests for each back-end, on the host for those
/// that are there and in a guest for all. A file that includes this instantiates the suite.
namespace accelmm::dmabuf::test {

using accelmm::test::Census;
using accelmm::test::count_fds;
using accelmm::test::FailingCall;

/// A buffer as its owner has it, and what others get of it.
struct Shared {
  Mapping owner;  ///< invalid where nobody else made the memory: then it is the pieces'
  std::vector<Piece> pieces;
};

/// A way to share: an exporter of memory files, or a source of memory.
class Way {
 public:
  explicit Way(std::shared_ptr<Exporter> exporter) : exporter_(std::move(exporter)) {}
  explicit Way(std::shared_ptr<MemorySource> source) : source_(std::move(source)) {}

  [[nodiscard]] std::string name() const { return exporter_ ? exporter_->name() : source_->name(); }
  [[nodiscard]] Capabilities can() const {
    return exporter_ ? exporter_->capabilities() : source_->capabilities();
  }
  [[nodiscard]] bool exports_files() const { return exporter_ != nullptr; }
  [[nodiscard]] Exporter& exporter() const { return *exporter_; }

  [[nodiscard]] Result<Shared> share(ByteCount size, Access access = Access::read_write) const {
    if (source_) return share_sourced(size, access);
    auto memfd = SealedMemfd::create("conformance", size);
    if (!memfd) return fail(memfd.error());
    auto owner = Mapping::create(memfd->fd(), 0, size, PROT_READ | PROT_WRITE);
    if (!owner) return fail(owner.error());
    const auto sealing =
        access == Access::read ? Sealing::fixed_size_read_only : Sealing::fixed_size;
    if (const auto sealed = memfd->seal(sealing); !sealed) return fail(sealed.error());
    const FileRange range{memfd->fd(), size, ByteCount(), size};
    auto pieces = exporter_->export_view(
        {.ranges = std::span(&range, 1), .options = {.access = access, .name = "conformance"}});
    if (!pieces) return fail(pieces.error());
    return Shared{std::move(*owner), std::move(*pieces)};
  }

 private:
  [[nodiscard]] Result<Shared> share_sourced(ByteCount size, Access access) const {
    auto made = source_->allocate(size, access, "conformance");
    if (!made) return fail(made.error());
    Shared shared;
    shared.pieces.push_back({std::move(made->buffer).release(), ByteCount(), size});
    return shared;
  }

  std::shared_ptr<Exporter> exporter_;
  std::shared_ptr<MemorySource> source_;
};

inline std::byte pattern(std::size_t at) {
  return static_cast<std::byte>((at * 131 + at / 4096 * 17 + 1) & 0xff);
}

/// Maps the pieces as whoever gets them does, and does something with all bytes.
inline void with_bytes(const std::vector<Piece>& pieces, int prot,
                       const std::function<void(std::byte&, std::size_t)>& function) {
  std::size_t at = 0;
  for (const Piece& piece : pieces) {
    const auto view = Mapping::create(piece.fd.view(), piece.offset.value(), piece.length, prot);
    ASSERT_TRUE(view.has_value()) << view.error().what;
    for (std::byte& byte : view->bytes()) function(byte, at++);
  }
}
inline void write_pattern(const std::vector<Piece>& pieces) {
  with_bytes(pieces, PROT_READ | PROT_WRITE,
             [](std::byte& byte, std::size_t at) { byte = pattern(at); });
}
inline std::size_t count_wrong(const std::vector<Piece>& pieces,
                               const std::function<std::byte(std::size_t)>& expected) {
  std::size_t wrong = 0;
  with_bytes(pieces, PROT_READ,
             [&](std::byte& byte, std::size_t at) { wrong += byte == expected(at) ? 0U : 1U; });
  return wrong;
}

class ExportConformance : public testing::TestWithParam<std::function<Way()>> {
 protected:
  static constexpr ByteCount size{std::uint64_t{32} << 10};
  const Way way = GetParam()();
};

TEST_P(ExportConformance, WhatItCanIsPublished) {
  const Capabilities can = way.can();
  const auto word = [](Can one) { return one == Can::yes ? "yes" : "no"; };
  std::printf(
      "capabilities | %-10s | %-11s | part %-3s | scattered %-3s | read-only %-3s | huge pages "
      "%-3s | accounted %-3s | piece %llu MiB, %u ranges\n",
      way.name().c_str(), can.kind == DescriptorKind::dma_buf ? "dma-buf" : "memory file",
      word(can.parts), word(can.scattered), word(can.read_only), word(can.huge_pages),
      word(can.accounted), static_cast<unsigned long long>(can.largest.value() >> 20),
      can.most_ranges);
  EXPECT_GE(can.largest.value(), 4096U);
  EXPECT_GE(can.most_ranges, 1U);
}

TEST_P(ExportConformance, NewMemoryReadsZero) {
  const auto shared = way.share(size);
  ASSERT_TRUE(shared.has_value()) << shared.error().what;
  EXPECT_EQ(0U, count_wrong(shared->pieces, [](std::size_t) { return std::byte{}; }));
}

TEST_P(ExportConformance, WhatOneWritesTheOthersRead) {
  auto shared = way.share(size);
  ASSERT_TRUE(shared.has_value()) << shared.error().what;
  if (shared->owner.valid()) {
    for (std::size_t at = 0; at < size.value(); ++at) shared->owner.bytes()[at] = pattern(at);
    EXPECT_EQ(0U, count_wrong(shared->pieces, pattern));
    with_bytes(shared->pieces, PROT_READ | PROT_WRITE,
               [](std::byte& byte, std::size_t) { byte ^= std::byte{0xff}; });
    for (std::size_t at = 0; at < size.value(); ++at)
      ASSERT_EQ(~pattern(at), shared->owner.bytes()[at]) << at;
  } else {
    write_pattern(shared->pieces);
    EXPECT_EQ(0U, count_wrong(shared->pieces, pattern));
  }
}

TEST_P(ExportConformance, TheDescriptorsAreOfThePublishedKindAndClosedOnExec) {
  const auto shared = way.share(size);
  ASSERT_TRUE(shared.has_value());
  ByteCount total;
  for (const Piece& piece : shared->pieces) {
    EXPECT_EQ(way.can().kind == DescriptorKind::dma_buf, is_dma_buf(piece.fd.view()).value());
    EXPECT_NE(0, ::fcntl(piece.fd.get(), F_GETFD) & FD_CLOEXEC);
    total += piece.length;
  }
  EXPECT_EQ(size, total);
}

TEST_P(ExportConformance, ItOutlivesItsMaker) {
  std::vector<Piece> pieces;
  {
    auto shared = way.share(size);
    ASSERT_TRUE(shared.has_value());
    write_pattern(shared->pieces);
    pieces = std::move(shared->pieces);
  }
  EXPECT_EQ(0U, count_wrong(pieces, pattern));
}

TEST_P(ExportConformance, AReadOnlyExportCannotBeWrittenOrIsRefused) {
  const auto shared = way.share(size, Access::read);
  if (way.can().read_only == Can::no) {
    ASSERT_FALSE(shared.has_value());
    EXPECT_EQ(Errc::not_supported, shared.error().code);
    return;
  }
  ASSERT_TRUE(shared.has_value()) << shared.error().what;
  for (const Piece& piece : shared->pieces) {
    EXPECT_FALSE(
        Mapping::create(piece.fd.view(), 0, piece.length, PROT_READ | PROT_WRITE).has_value());
    const auto reader = Mapping::create(piece.fd.view(), 0, piece.length, PROT_READ);
    ASSERT_TRUE(reader.has_value());
    EXPECT_EQ(-1, ::mprotect(reader->bytes().data(), 4096, PROT_READ | PROT_WRITE));
    // Nor does opening the file again help.
    const UniqueFd again(
        ::open(("/proc/self/fd/" + std::to_string(piece.fd.get())).c_str(), O_RDWR | O_CLOEXEC));
    if (!again.valid()) continue;
    EXPECT_FALSE(
        Mapping::create(again.view(), 0, piece.length, PROT_READ | PROT_WRITE).has_value());
    EXPECT_EQ(-1, ::pwrite(again.get(), "x", 1, 0));
  }
}

TEST_P(ExportConformance, APartReachesNoByteMoreOrIsRefused) {
  if (!way.exports_files()) {
    EXPECT_EQ(Can::no, way.can().parts) << "there is nothing to take a part of";
    return;
  }
  auto memfd = SealedMemfd::create("conformance", size);
  ASSERT_TRUE(memfd.has_value());
  const auto owner = Mapping::create(memfd->fd(), 0, size, PROT_READ | PROT_WRITE);
  ASSERT_TRUE(memfd->seal(Sealing::fixed_size).has_value());
  for (std::size_t at = 0; at < size.value(); ++at) owner->bytes()[at] = pattern(at);
  constexpr ByteCount offset(8192);
  constexpr ByteCount length(12288);
  const FileRange range{memfd->fd(), size, offset, length};
  const auto pieces = way.exporter().export_view({.ranges = std::span(&range, 1)});
  if (way.can().parts == Can::no) {
    ASSERT_FALSE(pieces.has_value());
    EXPECT_EQ(Errc::not_supported, pieces.error().code);
    return;
  }
  ASSERT_TRUE(pieces.has_value()) << pieces.error().what;
  ASSERT_EQ(1U, pieces->size());
  EXPECT_EQ(length.value(),
            static_cast<std::uint64_t>(::lseek(pieces->front().fd.get(), 0, SEEK_END)));
  EXPECT_EQ(0U, count_wrong(*pieces, [&](std::size_t at) { return pattern(at + offset.value()); }));
  EXPECT_EQ(MAP_FAILED, ::mmap(nullptr, length.value() + 4096, PROT_READ, MAP_SHARED,
                               pieces->front().fd.get(), 0));
}

TEST_P(ExportConformance, RangesThatAreNoneAreRefused) {
  if (!way.exports_files()) {
    for (const ByteCount none : {ByteCount(), ByteCount(1), ByteCount(4097)}) {
      const auto shared = way.share(none);
      ASSERT_FALSE(shared.has_value()) << none.value();
      EXPECT_EQ(Errc::invalid_argument, shared.error().code);
    }
    return;
  }
  auto memfd = SealedMemfd::create("conformance", size);
  ASSERT_TRUE(memfd.has_value() && memfd->seal(Sealing::fixed_size).has_value());
  const auto errc = [&](ByteCount offset, ByteCount length) {
    const FileRange range{memfd->fd(), size, offset, length};
    const auto pieces = way.exporter().export_view({.ranges = std::span(&range, 1)});
    return pieces ? Errc{} : pieces.error().code;
  };
  EXPECT_EQ(Errc::invalid_argument, errc(ByteCount(), ByteCount()));
  EXPECT_EQ(Errc::invalid_argument, errc(ByteCount(4096), size));
  EXPECT_EQ(Errc::invalid_argument, errc(ByteCount(~std::uint64_t{0} - 4095), ByteCount(8192)));
  EXPECT_EQ(Errc::invalid_argument, way.exporter().export_view({}).error().code);
}

TEST_P(ExportConformance, WhatIsSharedIsImportedWithoutACopy) {
  auto shared = way.share(size);
  ASSERT_TRUE(shared.has_value());
  const UniqueFd copy(::fcntl(shared->pieces.front().fd.get(), F_DUPFD_CLOEXEC, 0));
  struct stat status = {};
  ASSERT_EQ(0, ::fstat(copy.get(), &status));
  const auto view = import_view(std::move(shared->pieces));
  ASSERT_TRUE(view.has_value()) << view.error().what;
  EXPECT_EQ(size, view->length);
  EXPECT_EQ(Access::read_write, view->access);
  const SharedFile& file = view->pieces.front().file;
  EXPECT_EQ(status.st_ino, file.identity().inode);
  auto window = MemoryWindow::create(size, Backdrop::none);
  ASSERT_TRUE(window.has_value());
  const Extent place{RegionOffset(), size};
  ASSERT_TRUE(window->place(place, file.fd(), ByteCount(), Access::read_write).has_value());
  const std::vector<std::byte> sent{std::byte{1}, std::byte{2}, std::byte{3}};
  ASSERT_TRUE(window->write(RegionOffset(4094), sent).has_value());
  const auto reader = Mapping::create(copy.view(), 0, size, PROT_READ);
  ASSERT_TRUE(reader.has_value());
  EXPECT_TRUE(std::ranges::equal(sent, reader->bytes().subspan(4094, 3)));
  EXPECT_EQ(Removal::done, window->remove(place));
}

// Every descriptor that is made on the way may be one too many.
TEST_P(ExportConformance, WithoutRoomForDescriptorsItFailsAndLeaksNone) {
  static_cast<void>(way.share(size));
  rlimit before = {};
  ASSERT_EQ(0, ::getrlimit(RLIMIT_NOFILE, &before));
  const std::size_t fds = count_fds();
  bool succeeded = false;
  for (rlim_t room = 0; room < 16 && !succeeded; ++room) {
    // The lowest free numbers: those below are in use.
    const UniqueFd probe(::dup(0));
    const rlimit limit{static_cast<rlim_t>(probe.get()) + room, before.rlim_max};
    ASSERT_TRUE(probe.valid());
    Result<Shared> shared = fail(Errc::io_error, "");
    ASSERT_EQ(0, ::setrlimit(RLIMIT_NOFILE, &limit));
    shared = way.share(size);
    ASSERT_EQ(0, ::setrlimit(RLIMIT_NOFILE, &before));
    succeeded = shared.has_value();
    if (!succeeded) {
      EXPECT_EQ(Errc::too_many_files, shared.error().code) << room << ": " << shared.error().what;
    }
    shared = fail(Errc::io_error, "");
    EXPECT_EQ(fds + 1, count_fds()) << room;
  }
  EXPECT_TRUE(succeeded);
}

TEST_P(ExportConformance, TheKthCallFailingLeavesNothing) {
  static_cast<void>(way.share(size));
  const std::size_t fds = count_fds();
  bool succeeded = false;
  for (long k = 1; k < 200 && !succeeded; ++k) {
    const FailingCall failing(k, ENOMEM);
    {
      const auto shared = way.share(size);
      succeeded = failing.calls() < k;
      if (succeeded) {
        EXPECT_TRUE(shared.has_value());
      }
    }
    EXPECT_EQ(fds, count_fds()) << k;
  }
  EXPECT_TRUE(succeeded);
}

}  // namespace accelmm::dmabuf::test
