// SPDX-License-Identifier: Apache-2.0
#include "base/mapping.hpp"
#include "mm/backing/memory_window.hpp"
#include "mm/backing/sealed_memfd.hpp"
#include "support/census.hpp"

#include <algorithm>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

namespace accelmm {
namespace {

using Bytes = std::vector<std::byte>;

constexpr std::byte old_mark{0x11};
constexpr std::byte new_mark{0x22};
constexpr std::byte untouched{0xee};
constexpr ByteCount largest_size{UINT64_MAX - 4095};  // whole pages

Extent at(ByteCount offset, ByteCount length) {
  return {RegionOffset(offset.value()), length};
}

MemoryWindow make_window(Backdrop backdrop, ByteCount size = 1_MiB) {
  auto window = MemoryWindow::create(size, backdrop);
  EXPECT_TRUE(window.has_value());
  return std::move(*window);
}

/// A file full of one byte.
SealedMemfd filled(ByteCount size, std::byte value) {
  auto memfd = SealedMemfd::create("window-test", size);
  EXPECT_TRUE(memfd.has_value());
  const auto view = Mapping::create(memfd->fd(), 0, size, PROT_READ | PROT_WRITE);
  EXPECT_TRUE(view.has_value());
  std::ranges::fill(view->bytes(), value);
  return std::move(*memfd);
}

void place(MemoryWindow& window, Extent extent, const SealedMemfd& memfd,
           Access access = Access::read_write) {
  const auto placed = window.place(extent, memfd.fd(), 0_B, access);
  ASSERT_TRUE(placed.has_value()) << placed.error().what;
}

/// What a read returns, or nothing if it failed. A failed read must be a fault that copied nothing.
Bytes read(const MemoryWindow& window, ByteCount offset, std::size_t size) {
  Bytes bytes(size, untouched);
  const auto result = window.read(RegionOffset(offset.value()), bytes);
  if (result) return bytes;
  EXPECT_EQ(Errc::fault, result.error().code);
  EXPECT_EQ(Bytes(size, untouched), bytes);
  return {};
}

Errc write_error(MemoryWindow& window, ByteCount offset, std::size_t size) {
  const auto result = window.write(RegionOffset(offset.value()), Bytes(size, new_mark));
  return result ? Errc{} : result.error().code;
}

Errc place_error(MemoryWindow& window, Extent extent, FdView fd, ByteCount fd_offset,
                 Access access = Access::read_write) {
  const auto placed = window.place(extent, fd, fd_offset, access);
  return placed ? Errc{} : placed.error().code;
}

TEST(MemoryWindow, ASizeThatIsNotWholePagesIsRefused) {
  for (const ByteCount size : {0_B, 1_B, 6_KiB, ByteCount(UINT64_MAX)}) {
    const auto window = MemoryWindow::create(size, Backdrop::none);
    ASSERT_FALSE(window.has_value());
    EXPECT_EQ(Errc::invalid_argument, window.error().code);
  }
  const auto largest = MemoryWindow::create(largest_size, Backdrop::none);
  ASSERT_FALSE(largest.has_value());
  EXPECT_EQ(Errc::overflow, largest.error().code);
}

TEST(MemoryWindow, WhereNothingIsPlacedAnAccessIsAFault) {
  MemoryWindow window = make_window(Backdrop::none);
  EXPECT_EQ(Bytes(), read(window, 0_B, 1));
  EXPECT_EQ(Bytes(), read(window, 512_KiB, 64));
  EXPECT_EQ(Errc::fault, write_error(window, 0_B, 1));
}

TEST(MemoryWindow, AnAccessBeyondTheEndIsAFault) {
  for (const Backdrop backdrop : {Backdrop::none, Backdrop::zero}) {
    MemoryWindow window = make_window(backdrop);
    for (const ByteCount offset : {ByteCount(1_MiB - 1_B), 1_MiB, 2_MiB, ByteCount(UINT64_MAX)}) {
      EXPECT_EQ(Bytes(), read(window, offset, 2));
      EXPECT_EQ(Errc::fault, write_error(window, offset, 2));
    }
  }
}

TEST(MemoryWindow, AZeroBackdropReadsZeroAndKeepsWhatIsWritten) {
  MemoryWindow window = make_window(Backdrop::zero);
  EXPECT_EQ(Bytes(100, std::byte{}), read(window, 4090_B, 100));
  EXPECT_EQ(Errc{}, write_error(window, 4090_B, 10));
  EXPECT_EQ(Bytes(10, new_mark), read(window, 4090_B, 10));
  EXPECT_EQ(Bytes(1, std::byte{}), read(window, 4100_B, 1));
}

TEST(MemoryWindow, ALargeZeroBackdropTakesMemoryOnlyWhereItIsWritten) {
  constexpr ByteCount size = 8_GiB;
  MemoryWindow window = make_window(Backdrop::zero, size);
  ASSERT_EQ(Errc{}, write_error(window, 0_B, 1));
  ASSERT_EQ(Errc{}, write_error(window, size - 1_B, 1));
  // One byte a page; the low bit says whether it is in memory.
  std::vector<unsigned char> resident(size.value() / host_page_size().value());
  ASSERT_EQ(0, ::mincore(window.data(RegionOffset()), size.value(), resident.data()));
  const auto pages = std::ranges::count_if(resident, [](auto page) { return (page & 1) != 0; });
  EXPECT_GE(pages, 2);
  EXPECT_LE(pages, 1024) << "a huge page at each end";
}

TEST(MemoryWindow, APlacedFileIsReadAndWrittenThroughTheWindow) {
  MemoryWindow window = make_window(Backdrop::none);
  const SealedMemfd memfd = filled(64_KiB, old_mark);
  place(window, at(128_KiB, 64_KiB), memfd);
  EXPECT_EQ(Bytes(1000, old_mark), read(window, 128_KiB + 3_B, 1000));

  ASSERT_EQ(Errc{}, write_error(window, 130_KiB, 5));
  const auto view = Mapping::create(memfd.fd(), 0, 64_KiB, PROT_READ | PROT_WRITE);
  ASSERT_TRUE(view.has_value());
  EXPECT_EQ(old_mark, view->bytes()[2047]);
  EXPECT_EQ(new_mark, view->bytes()[2048]);
  EXPECT_EQ(new_mark, view->bytes()[2052]);
  EXPECT_EQ(old_mark, view->bytes()[2053]);
  view->bytes()[0] = new_mark;
  EXPECT_EQ(new_mark, *window.data(RegionOffset((128_KiB).value())));
}

TEST(MemoryWindow, APlaceMayShowTheMiddleOfAFile) {
  MemoryWindow window = make_window(Backdrop::none);
  const SealedMemfd memfd = filled(16_KiB, old_mark);
  const auto view = Mapping::create(memfd.fd(), 0, 16_KiB, PROT_READ | PROT_WRITE);
  ASSERT_TRUE(view.has_value());
  view->bytes()[8192] = new_mark;
  ASSERT_EQ(Errc{}, place_error(window, at(0_B, 4_KiB), memfd.fd(), 8_KiB));
  EXPECT_EQ(Bytes(1, new_mark), read(window, 0_B, 1));
}

TEST(MemoryWindow, TheFileMayBeClosedOnceItIsPlaced) {
  MemoryWindow window = make_window(Backdrop::none);
  place(window, at(0_B, 4_KiB), filled(4_KiB, old_mark));
  EXPECT_EQ(Bytes(4096, old_mark), read(window, 0_B, 4096));
}

TEST(MemoryWindow, AReadOnlyPlaceRefusesWrites) {
  MemoryWindow window = make_window(Backdrop::none);
  place(window, at(0_B, 4_KiB), filled(4_KiB, old_mark), Access::read);
  EXPECT_EQ(Errc::fault, write_error(window, 0_B, 1));
  EXPECT_EQ(Bytes(4096, old_mark), read(window, 0_B, 4096));
}

TEST(MemoryWindow, AWriteOnlyPlaceRefusesReads) {
  MemoryWindow window = make_window(Backdrop::none);
  place(window, at(0_B, 4_KiB), filled(4_KiB, old_mark), Access::write);
  EXPECT_EQ(Bytes(), read(window, 0_B, 1));
  EXPECT_EQ(Errc{}, write_error(window, 0_B, 1));
}

TEST(MemoryWindow, AnAccessMayCrossFromPlaceToPlaceButNotOverAGap) {
  MemoryWindow window = make_window(Backdrop::none);
  place(window, at(0_B, 4_KiB), filled(4_KiB, old_mark));
  place(window, at(4_KiB, 4_KiB), filled(4_KiB, new_mark));
  place(window, at(12_KiB, 4_KiB), filled(4_KiB, old_mark));
  const Bytes both = read(window, 4094_B, 4);
  EXPECT_EQ((Bytes{old_mark, old_mark, new_mark, new_mark}), both);
  EXPECT_EQ(Bytes(), read(window, 8190_B, 4));
  EXPECT_EQ(Bytes(), read(window, 4_KiB, 12288));
  EXPECT_EQ(Errc::fault, write_error(window, 8190_B, 4));
  EXPECT_EQ(Bytes(2, new_mark), read(window, 8190_B, 2)) << "nothing of it was written";
}

TEST(MemoryWindow, AnAccessMayCrossBetweenPlaceAndZeroBackdrop) {
  MemoryWindow window = make_window(Backdrop::zero);
  place(window, at(4_KiB, 4_KiB), filled(4_KiB, old_mark), Access::read);
  EXPECT_EQ((Bytes{std::byte{}, old_mark}), read(window, 4095_B, 2));
  EXPECT_EQ((Bytes{old_mark, std::byte{}}), read(window, 8191_B, 2));
  EXPECT_EQ(Errc::fault, write_error(window, 4095_B, 2));
  EXPECT_EQ(Errc::fault, write_error(window, 8191_B, 2));
  EXPECT_EQ(Bytes(1, std::byte{}), read(window, 8_KiB, 1)) << "nothing of it was written";
}

TEST(MemoryWindow, AnAccessThatBeginsWhereAPlaceEndsIsNoneOfThatPlaces) {
  MemoryWindow window = make_window(Backdrop::zero);
  place(window, at(4_KiB, 4_KiB), filled(4_KiB, old_mark), Access::read);
  EXPECT_EQ(Errc{}, write_error(window, 8_KiB, 1));
  EXPECT_EQ(Errc{}, write_error(window, 4095_B, 1));
}

TEST(MemoryWindow, PlacingOverWhatIsPlacedIsRefusedAndChangesNothing) {
  MemoryWindow window = make_window(Backdrop::none);
  place(window, at(16_KiB, 16_KiB), filled(16_KiB, old_mark));
  const SealedMemfd intruder = filled(64_KiB, new_mark);
  for (const Extent extent : {at(16_KiB, 16_KiB), at(12_KiB, 8_KiB), at(28_KiB, 8_KiB),
                              at(20_KiB, 4_KiB), at(8_KiB, 32_KiB)})
    EXPECT_EQ(Errc::address_in_use, place_error(window, extent, intruder.fd(), 0_B));
  EXPECT_EQ(Bytes(16384, old_mark), read(window, 16_KiB, 16384));
  EXPECT_EQ(1U, window.placements());
  EXPECT_EQ(Errc{}, place_error(window, at(12_KiB, 4_KiB), intruder.fd(), 0_B));
  EXPECT_EQ(Errc{}, place_error(window, at(32_KiB, 4_KiB), intruder.fd(), 0_B));
}

TEST(MemoryWindow, APlaceOutsideTheWindowOrNotOfWholePagesIsRefused) {
  MemoryWindow window = make_window(Backdrop::none);
  const SealedMemfd memfd = filled(64_KiB, old_mark);
  for (const Extent extent :
       {at(0_B, 0_B), at(1_B, 4_KiB), at(0_B, 4097_B), at(1_MiB, 4_KiB), at(1_MiB - 4_KiB, 8_KiB),
        at(largest_size, 4_KiB), at(0_B, largest_size)})
    EXPECT_EQ(Errc::invalid_argument, place_error(window, extent, memfd.fd(), 0_B));
  EXPECT_EQ(Errc::invalid_argument, place_error(window, at(0_B, 4_KiB), memfd.fd(), 1_B));
  EXPECT_EQ(Errc::invalid_argument, place_error(window, at(0_B, 4_KiB), memfd.fd(), 0_B, Access{}));
  EXPECT_EQ(0U, window.placements());
}

TEST(MemoryWindow, AFileThatDoesNotHoldItsPlaceIsRefused) {
  MemoryWindow window = make_window(Backdrop::none);
  const SealedMemfd memfd = filled(8_KiB, old_mark);
  EXPECT_EQ(Errc::invalid_argument, place_error(window, at(0_B, 12_KiB), memfd.fd(), 0_B));
  EXPECT_EQ(Errc::invalid_argument, place_error(window, at(0_B, 8_KiB), memfd.fd(), 4_KiB));
  EXPECT_EQ(Errc::invalid_argument, place_error(window, at(0_B, 4_KiB), memfd.fd(), 12_KiB));
  const UniqueFd shrinkable(::memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(0, ::ftruncate(shrinkable.get(), 8192));
  EXPECT_EQ(Errc::invalid_argument, place_error(window, at(0_B, 4_KiB), shrinkable.view(), 0_B));
}

TEST(MemoryWindow, AFileSealedAgainstWritingIsPlacedOnlyForReading) {
  for (const Backdrop backdrop : {Backdrop::none, Backdrop::zero}) {
    MemoryWindow window = make_window(backdrop);
    SealedMemfd memfd = filled(4_KiB, old_mark);
    ASSERT_TRUE(memfd.seal(Sealing::fixed_size_read_only).has_value());
    EXPECT_EQ(Errc::not_permitted, place_error(window, at(0_B, 4_KiB), memfd.fd(), 0_B));
    EXPECT_EQ(Errc{}, place_error(window, at(0_B, 4_KiB), memfd.fd(), 0_B, Access::read));
    EXPECT_EQ(Bytes(1, old_mark), read(window, 0_B, 1));
  }
}

TEST(MemoryWindow, SealingAPlacedFileReadOnlySparesThePlace) {
  MemoryWindow window = make_window(Backdrop::none);
  SealedMemfd memfd = filled(4_KiB, old_mark);
  place(window, at(0_B, 4_KiB), memfd);
  ASSERT_TRUE(memfd.seal(Sealing::fixed_size_read_only).has_value());
  EXPECT_EQ(Errc{}, write_error(window, 0_B, 4096));
}

TEST(MemoryWindow, AStaleAccessAfterRemovalIsAFaultAndHitsNoNeighbour) {
  MemoryWindow window = make_window(Backdrop::none);
  for (std::uint64_t i = 0; i < 3; ++i)
    place(window, at(ByteCount(i << 12), 4_KiB), filled(4_KiB, old_mark));
  EXPECT_EQ(Removal::done, window.remove(at(4_KiB, 4_KiB)));
  EXPECT_EQ(Bytes(), read(window, 4_KiB, 1));
  EXPECT_EQ(Bytes(), read(window, 4090_B, 10));
  EXPECT_EQ(Errc::fault, write_error(window, 4_KiB, 1));
  EXPECT_EQ(Errc::fault, write_error(window, 8191_B, 2));
  EXPECT_EQ(Bytes(4096, old_mark), read(window, 0_B, 4096));
  EXPECT_EQ(Bytes(4096, old_mark), read(window, 8_KiB, 4096));
}

TEST(MemoryWindow, AfterRemovalAZeroBackdropReadsZero) {
  MemoryWindow window = make_window(Backdrop::zero);
  ASSERT_EQ(Errc{}, write_error(window, 4_KiB, 4096));
  place(window, at(4_KiB, 4_KiB), filled(4_KiB, old_mark));
  EXPECT_EQ(Removal::done, window.remove(at(4_KiB, 4_KiB)));
  EXPECT_EQ(Bytes(4096, std::byte{}), read(window, 4_KiB, 4096));
  EXPECT_EQ(Errc{}, write_error(window, 4_KiB, 4096));
}

TEST(MemoryWindow, AFormerOwnerKeepsItsMappingAndSeesNothingNew) {
  MemoryWindow window = make_window(Backdrop::none);
  const Extent extent = at(0_B, 4_KiB);
  const SealedMemfd former = filled(4_KiB, old_mark);
  const auto kept = Mapping::create(former.fd(), 0, 4_KiB, PROT_READ | PROT_WRITE);
  ASSERT_TRUE(kept.has_value());
  place(window, extent, former);
  EXPECT_EQ(Removal::done, window.remove(extent));

  place(window, extent, filled(4_KiB, std::byte{}));
  ASSERT_EQ(Errc{}, write_error(window, 0_B, 100));
  EXPECT_TRUE(std::ranges::all_of(kept->bytes(), [](std::byte b) { return b == old_mark; }));
  std::ranges::fill(kept->bytes(), std::byte{0x77});
  EXPECT_EQ(Bytes(100, new_mark), read(window, 0_B, 100));
  EXPECT_EQ(Bytes(3996, std::byte{}), read(window, 100_B, 3996));
}

TEST(MemoryWindow, ClearingMakesPrivateMemoryZeroAgain) {
  MemoryWindow window = make_window(Backdrop::zero);
  ASSERT_EQ(Errc{}, write_error(window, 0_B, 16384));
  window.clear(at(4_KiB, 8_KiB));
  EXPECT_EQ(Bytes(4096, new_mark), read(window, 0_B, 4096));
  EXPECT_EQ(Bytes(8192, std::byte{}), read(window, 4_KiB, 8192));
  EXPECT_EQ(Bytes(4096, new_mark), read(window, 12_KiB, 4096));
}

TEST(MemoryWindow, TheOwnerSeesDeviceMemoryThroughData) {
  MemoryWindow window = make_window(Backdrop::zero);
  *window.data(RegionOffset(5)) = new_mark;
  EXPECT_EQ(Bytes(1, new_mark), read(window, 5_B, 1));
}

TEST(MemoryWindow, AMovedWindowIsWhereItWas) {
  MemoryWindow window = make_window(Backdrop::none);
  place(window, at(0_B, 4_KiB), filled(4_KiB, old_mark));
  std::byte* const before = window.data(RegionOffset());
  MemoryWindow moved = std::move(window);
  EXPECT_EQ(before, moved.data(RegionOffset()));
  EXPECT_EQ(Bytes(4096, old_mark), read(moved, 0_B, 4096));
  EXPECT_EQ(Removal::done, moved.remove(at(0_B, 4_KiB)));
}

TEST(MemoryWindow, NothingIsLeftOfAWindowThatIsDestroyed) {
  const test::Census before = test::take_census();
  for (const Backdrop backdrop : {Backdrop::none, Backdrop::zero}) {
    MemoryWindow window = make_window(backdrop, 4_GiB);
    for (std::uint64_t i = 0; i < 16; ++i)
      place(window, at(ByteCount(i << 20), 64_KiB), filled(64_KiB, old_mark));
    EXPECT_EQ(before.memfd_maps + 16, test::take_census().memfd_maps);
    EXPECT_EQ(before.fds, test::count_fds());
  }
  EXPECT_TRUE(before.matches(test::take_census())) << before << test::take_census();
}

TEST(MemoryWindow, PlacingAndRemovingLeavesTheWindowInOnePiece) {
  for (const Backdrop backdrop : {Backdrop::none, Backdrop::zero}) {
    MemoryWindow window = make_window(backdrop, 4_GiB);
    const SealedMemfd memfd = filled(64_KiB, old_mark);
    const auto cycle = [&] {
      for (std::uint64_t i = 0; i < 64; ++i) place(window, at(ByteCount(i << 20), 64_KiB), memfd);
      for (std::uint64_t i = 0; i < 64; ++i)
        EXPECT_EQ(Removal::done, window.remove(at(ByteCount(i << 20), 64_KiB)));
    };
    const std::size_t areas = test::count_maps("");
    cycle();
    // 64 pieces that did not merge with what is around them would be 128 areas; malloc may add a
    // few.
    EXPECT_LT(test::count_maps(""), areas + 16);
  }
}

// The test has one thread, so its child may use the heap.
std::size_t memfd_areas_of_a_child() {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(static_cast<int>(test::count_maps("/memfd:window-test")));
  int status = 0;
  EXPECT_EQ(child, ::waitpid(child, &status, 0));
  EXPECT_TRUE(WIFEXITED(status));
  return static_cast<std::size_t>(WEXITSTATUS(status));
}

TEST(MemoryWindow, AForkedChildHoldsNoPlacedMemory) {
  for (const Backdrop backdrop : {Backdrop::none, Backdrop::zero}) {
    MemoryWindow window = make_window(backdrop);
    place(window, at(0_B, 64_KiB), filled(64_KiB, old_mark));
    EXPECT_EQ(1U, test::count_maps("/memfd:window-test"));
    EXPECT_EQ(0U, memfd_areas_of_a_child());
  }
}

/// The bytes of the window in areas that fork(2) leaves out: "dc" among their flags in /proc/self/smaps.
std::uint64_t bytes_left_out_of_children(const MemoryWindow& window) {
  const auto base = reinterpret_cast<std::uintptr_t>(window.data(RegionOffset()));
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  std::uint64_t left_out = 0;
  std::ifstream smaps("/proc/self/smaps");
  for (std::string line; std::getline(smaps, line);) {
    std::uint64_t first = 0;
    std::uint64_t last = 0;
    if (std::sscanf(line.c_str(), "%" SCNx64 "-%" SCNx64 " ", &first, &last) == 2) {
      begin = first;
      end = last;
    } else if (line.starts_with("VmFlags:") && line.find(" dc") != std::string::npos) {
      if (begin >= base && end <= base + window.size().value()) left_out += end - begin;
    }
  }
  return left_out;
}

TEST(MemoryWindow, AForkedChildHoldsNoPrivateMemory) {
  MemoryWindow window = make_window(Backdrop::zero);
  EXPECT_EQ((1_MiB).value(), bytes_left_out_of_children(window));
  place(window, at(64_KiB, 64_KiB), filled(64_KiB, old_mark));
  EXPECT_EQ((1_MiB).value(), bytes_left_out_of_children(window));
  ASSERT_EQ(Removal::done, window.remove(at(64_KiB, 64_KiB)));
  EXPECT_EQ((1_MiB).value(), bytes_left_out_of_children(window));
}

TEST(MemoryWindowDeathTest, RemovingWhatWasNotPlacedIsAMistakeOfOurs) {
  MemoryWindow window = make_window(Backdrop::none);
  place(window, at(0_B, 8_KiB), filled(8_KiB, old_mark));
  EXPECT_DEATH(static_cast<void>(window.remove(at(8_KiB, 4_KiB))), "entry != ");
  EXPECT_DEATH(static_cast<void>(window.remove(at(0_B, 4_KiB))), "length == extent.length");
}

TEST(MemoryWindowDeathTest, ClearingIsForPrivateMemoryOnly) {
  MemoryWindow host = make_window(Backdrop::none);
  EXPECT_DEATH(host.clear(at(0_B, 4_KiB)), "backdrop_ == Backdrop::zero");
  MemoryWindow device = make_window(Backdrop::zero);
  place(device, at(4_KiB, 4_KiB), filled(4_KiB, old_mark));
  EXPECT_DEATH(device.clear(at(0_B, 16_KiB)), "overlaps_placement");
  EXPECT_DEATH(device.clear(at(0_B, 2_MiB)), "is_inside");
}

TEST(MemoryWindowDeathTest, DataOutsideTheWindowIsAMistakeOfOurs) {
  const MemoryWindow window = make_window(Backdrop::zero);
  EXPECT_DEATH(static_cast<void>(window.data(RegionOffset((1_MiB).value()))), "offset.value");
}

}  // namespace
}  // namespace accelmm
