// SPDX-License-Identifier: Apache-2.0
//
// The memory window when system calls and allocations fail.
#include "mm/backing/memory_window.hpp"
#include "mm/backing/sealed_memfd.hpp"
#include "support/census.hpp"
#include "support/failing_calls.hpp"
#include "unit/mm/failing_new.hpp"

#include <cerrno>
#include <cstdio>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <gtest/gtest.h>

namespace accelmm {
namespace {

using Bytes = std::vector<std::byte>;
using test::Census;
using test::FailingCall;
using test::FailingNew;
using test::FailingSite;
using test::take_census;

constexpr std::byte mark{0x33};
constexpr Extent first{RegionOffset(0), ByteCount(64 << 10)};
constexpr Extent second{RegionOffset(1 << 20), ByteCount(64 << 10)};
constexpr ByteCount window_size = 4_GiB;

Bytes read(const MemoryWindow& window, RegionOffset offset, std::size_t size) {
  Bytes bytes(size);
  return window.read(offset, bytes) ? bytes : Bytes();
}

/// Does something that fails at most once in a run: a second try must then succeed, because the
/// first left everything as it was.
template <class Operation>
auto with_one_retry(int& failures, Operation operation) {
  auto result = operation();
  if (result) return result;
  ++failures;
  return operation();
}

/// What a driver does with two buffers: make, place, write, seal, give away, remove, and use the
/// place again. Returns how many operations had to be tried twice.
int run_script(Backdrop backdrop) {
  int failures = 0;
  auto window =
      with_one_retry(failures, [&] { return MemoryWindow::create(window_size, backdrop); });
  EXPECT_TRUE(window.has_value());
  for (const Extent extent : {first, second, first}) {
    auto memfd = with_one_retry(failures,
                                [&] { return SealedMemfd::create("failure-test", extent.length); });
    EXPECT_TRUE(memfd.has_value());
    const auto placed = with_one_retry(
        failures, [&] { return window->place(extent, memfd->fd(), 0_B, Access::read_write); });
    EXPECT_TRUE(placed.has_value());
    EXPECT_TRUE(window->write(extent.offset, Bytes(4096, mark)).has_value());
    const auto sealed =
        with_one_retry(failures, [&] { return memfd->seal(Sealing::fixed_size_read_only); });
    EXPECT_TRUE(sealed.has_value());
    auto given = with_one_retry(failures, [&] { return memfd->duplicate(); });
    EXPECT_TRUE(given.has_value());
    const auto adopted = SealedMemfd::adopt(std::move(*given));
    if (!adopted) ++failures;
    if (window->remove(extent) == Removal::pending) {
      ++failures;
      EXPECT_EQ(Bytes(), read(*window, extent.offset, 16));
      EXPECT_EQ(std::vector<Extent>{extent}, window->settle());
    }
    EXPECT_EQ(0U, window->placements());
    EXPECT_EQ(backdrop == Backdrop::zero ? Bytes(16) : Bytes(), read(*window, extent.offset, 16));
  }
  if (backdrop == Backdrop::zero) {
    EXPECT_TRUE(window->write(first.offset, Bytes(16, mark)).has_value());
    window->clear(first);
    EXPECT_EQ(Bytes(16), read(*window, first.offset, 16));
  }
  return failures;
}

class EachCall : public testing::TestWithParam<Backdrop> {};
INSTANTIATE_TEST_SUITE_P(MemoryWindow, EachCall, testing::Values(Backdrop::none, Backdrop::zero));

TEST_P(EachCall, FailingOnceLeaksNothingAndTheNextTrySucceeds) {
  long points = 0;
  {
    const FailingCall counting(0, 0);
    ASSERT_EQ(0, run_script(GetParam()));
    points = counting.calls();
  }
  const Census before = take_census();
  long noticed = 0;
  for (long k = 1; k <= points; ++k) {
    const FailingCall failing(k, ENOMEM);
    const int failures = run_script(GetParam());
    EXPECT_LE(failures, 1) << "call " << k;
    EXPECT_GE(failing.calls(), k);
    noticed += failures;
    const Census after = take_census();
    EXPECT_TRUE(before.matches(after)) << "call " << k << ": " << before << " / " << after;
  }
  std::printf("%ld system calls failed in turn; %ld were noticed, the others made up for\n", points,
              noticed);
  EXPECT_GE(points, 40);
  EXPECT_GE(noticed, 30);
}

TEST(MemoryWindowFailure, APendingRemovalIsReachedByNobodyUntilItSettles) {
  for (const Backdrop backdrop : {Backdrop::none, Backdrop::zero}) {
    auto window = MemoryWindow::create(window_size, backdrop);
    ASSERT_TRUE(window.has_value());
    const auto memfd = SealedMemfd::create("failure-test", first.length);
    ASSERT_TRUE(memfd.has_value());
    for (const Extent extent : {first, second}) {
      ASSERT_TRUE(window->place(extent, memfd->fd(), 0_B, Access::read_write).has_value());
    }
    {
      const FailingSite failing("mmap", ENOMEM);
      EXPECT_EQ(Removal::pending, window->remove(first));
      EXPECT_EQ(Removal::pending, window->remove(second));
      EXPECT_EQ(2U, window->pending_removals());
      EXPECT_TRUE(window->settle().empty());
      EXPECT_EQ(2U, window->pending_removals());
    }
    EXPECT_EQ(Bytes(), read(*window, first.offset, 1));
    EXPECT_EQ(Errc::fault, window->write(second.offset, Bytes(1)).error().code);
    const auto over = window->place(first, memfd->fd(), 0_B, Access::read_write);
    ASSERT_FALSE(over.has_value());
    EXPECT_EQ(Errc::address_in_use, over.error().code);

    EXPECT_EQ((std::vector<Extent>{first, second}), window->settle());
    EXPECT_EQ(0U, window->pending_removals());
    EXPECT_TRUE(window->settle().empty());
    EXPECT_EQ(0U, test::count_maps("/memfd:failure-test"));
    EXPECT_TRUE(window->place(first, memfd->fd(), 0_B, Access::read_write).has_value());
  }
}

TEST(MemoryWindowFailure, ARefusedPlaceLeavesAZeroBackdropWithItsContents) {
  auto window = MemoryWindow::create(window_size, Backdrop::zero);
  ASSERT_TRUE(window.has_value());
  ASSERT_TRUE(window->write(first.offset, Bytes(16, mark)).has_value());
  const auto memfd = SealedMemfd::create("failure-test", first.length);
  ASSERT_TRUE(memfd.has_value());
  for (const char* site : {"fstat", "get_seals", "mmap"}) {
    const FailingSite failing(site, EAGAIN);
    const auto placed = window->place(first, memfd->fd(), 0_B, Access::read_write);
    ASSERT_FALSE(placed.has_value()) << site;
    EXPECT_EQ(Errc::try_again, placed.error().code);
    EXPECT_GE(failing.failures(), 1);
    EXPECT_EQ(Bytes(16, mark), read(*window, first.offset, 16));
    EXPECT_EQ(0U, window->placements());
  }
}

TEST(MemoryWindowFailure, APlaceThatTheSystemRefusesIsAsBefore) {
  // Not injected: a descriptor that is open for reading only cannot be mapped writable.
  auto window = MemoryWindow::create(window_size, Backdrop::zero);
  ASSERT_TRUE(window.has_value());
  ASSERT_TRUE(window->write(first.offset, Bytes(16, mark)).has_value());
  const auto memfd = SealedMemfd::create("failure-test", first.length);
  ASSERT_TRUE(memfd.has_value());
  const UniqueFd reader(
      ::open(("/proc/self/fd/" + std::to_string(memfd->fd().get())).c_str(), O_RDONLY | O_CLOEXEC));
  const auto placed = window->place(first, reader.view(), 0_B, Access::read_write);
  ASSERT_FALSE(placed.has_value());
  EXPECT_EQ(EACCES, static_cast<int>(placed.error().code));
  EXPECT_EQ(Bytes(16, mark), read(*window, first.offset, 16));
}

TEST(MemoryWindowFailure, ClearingWithoutTheSystemsHelpWritesZeroes) {
  auto window = MemoryWindow::create(window_size, Backdrop::zero);
  ASSERT_TRUE(window.has_value());
  ASSERT_TRUE(window->write(first.offset, Bytes(first.length.value(), mark)).has_value());
  const FailingSite failing("madvise", EINVAL);
  window->clear(first);
  EXPECT_EQ(1, failing.failures());
  EXPECT_EQ(Bytes(first.length.value()), read(*window, first.offset, first.length.value()));
}

TEST(MemoryWindowFailure, AFailedAllocationLeavesTheWindowAsItWas) {
  auto window = MemoryWindow::create(window_size, Backdrop::none);
  ASSERT_TRUE(window.has_value());
  const auto memfd = SealedMemfd::create("failure-test", first.length);
  ASSERT_TRUE(memfd.has_value());
  std::optional<Result<void>> placed;
  {
    const FailingNew failing(0);
    placed = window->place(first, memfd->fd(), 0_B, Access::read_write);
    EXPECT_TRUE(failing.happened());
  }
  ASSERT_FALSE(placed->has_value());
  EXPECT_EQ(Errc::no_memory, placed->error().code);
  EXPECT_EQ(0U, window->placements());
  EXPECT_EQ(0U, test::count_maps("/memfd:failure-test"));
  EXPECT_TRUE(window->place(first, memfd->fd(), 0_B, Access::read_write).has_value());
}

TEST(MemoryWindowFailure, CreatingWithoutMemoryLeaksNothing) {
  const Census before = take_census();
  long points = 0;
  for (bool met = true; met; ++points) {
    const FailingNew failing(points);
    const auto window = MemoryWindow::create(window_size, Backdrop::zero);
    met = failing.happened();
    EXPECT_EQ(!met, window.has_value());
    if (!window) {
      EXPECT_EQ(Errc::no_memory, window.error().code);
    }
  }
  EXPECT_GE(points, 2);
  const Census after = take_census();
  EXPECT_TRUE(before.matches(after)) << before << " / " << after;
}

TEST(MemoryWindowFailure, RemovingAndSettlingWithoutMemoryDoNotFail) {
  auto window = MemoryWindow::create(window_size, Backdrop::none);
  ASSERT_TRUE(window.has_value());
  const auto memfd = SealedMemfd::create("failure-test", first.length);
  ASSERT_TRUE(memfd.has_value());
  ASSERT_TRUE(window->place(first, memfd->fd(), 0_B, Access::read_write).has_value());
  ASSERT_TRUE(window->place(second, memfd->fd(), 0_B, Access::read_write).has_value());
  const std::int64_t calls = test::heap.calls;
  EXPECT_EQ(Removal::done, window->remove(first));
  {
    const FailingSite failing("mmap", ENOMEM);
    EXPECT_EQ(Removal::pending, window->remove(second));
  }
  EXPECT_EQ(calls, test::heap.calls) << "a removal allocates nothing";
  {
    const FailingNew failing(0);
    EXPECT_TRUE(window->settle().empty());
    EXPECT_TRUE(failing.happened());
  }
  EXPECT_EQ(1U, window->pending_removals());
  EXPECT_EQ(std::vector<Extent>{second}, window->settle());
}

}  // namespace
}  // namespace accelmm
