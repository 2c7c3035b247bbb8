// SPDX-License-Identifier: Apache-2.0
#include "unit/mm/failing_new.hpp"
#include "unit/mm/va_fixture.hpp"

#include <accelmm/va_allocator.hpp>

#include <cstdint>
#include <utility>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

constexpr Alignment page(4096);

using test::range;

TEST(VaAllocatorReservation, NobodyElseGetsIn) {
  auto allocator = test::make_addresses(0x10000, 0x20000);
  const auto reserved = allocator.reserve({.size = 0x8000_B}).value();
  EXPECT_EQ(0x8000_B, reserved.size());
  EXPECT_EQ(0x8000_B, allocator.statistics().reserved);
  EXPECT_EQ(0x8000_B, allocator.free_bytes());
  EXPECT_EQ(Errc::address_in_use, allocator.allocate_at(reserved).error().code);
  EXPECT_EQ(Errc::address_in_use, allocator.reserve_at(reserved).error().code);
  const auto hinted = allocator.allocate({.size = 1_B, .hint = reserved.begin});
  EXPECT_FALSE(reserved.contains(*hinted));
  ASSERT_TRUE(allocator.allocate(0x7000_B, page).has_value());
  EXPECT_EQ(Errc::no_memory, allocator.allocate(1_B, page).error().code);
  EXPECT_EQ(Errc::no_memory, allocator.allocate({.size = 1_B, .within = reserved}).error().code);
  allocator.validate();
}

TEST(VaAllocatorReservation, PiecesAreTakenAtChosenAndAtAnyAddressAndGivenBack) {
  auto allocator = test::make_addresses(0x10000, 0x40000);
  const auto reserved = allocator.reserve_at(range(0x20000, 0x30000)).value();
  VaAllocator* pieces = allocator.reservation(reserved.begin);
  ASSERT_NE(nullptr, pieces);
  EXPECT_EQ(reserved, pieces->range());
  EXPECT_EQ(range(0x24000, 0x26000), pieces->allocate_at(range(0x24000, 0x26000)).value());
  const auto any = pieces->allocate(0x4000_B, page).value();
  EXPECT_TRUE(reserved.contains(any));
  EXPECT_EQ(Errc::invalid_argument, pieces->allocate_at(range(0x30000, 0x31000)).error().code);
  EXPECT_EQ(Errc::invalid_argument, allocator.free(DeviceAddr(0x24000)).error().code);
  allocator.validate();
  EXPECT_TRUE(pieces->free(DeviceAddr(0x24000)).has_value());
  EXPECT_TRUE(pieces->free(any.begin).has_value());
  EXPECT_EQ(0x10000_B, pieces->free_bytes());
  EXPECT_TRUE(allocator.release(reserved.begin).has_value());
  EXPECT_EQ(nullptr, allocator.reservation(reserved.begin));
  EXPECT_EQ(1U, allocator.holes());
  allocator.validate();
}

TEST(VaAllocatorReservation, IsNotReleasedWhileAPieceIsInUse) {
  auto allocator = test::make_addresses(0x10000, 0x40000);
  const auto reserved = allocator.reserve({.size = 0x8000_B}).value();
  VaAllocator* pieces = allocator.reservation(reserved.begin);
  const auto piece = pieces->allocate(1_B, page).value();
  EXPECT_EQ(Errc::busy, allocator.release(reserved.begin).error().code);
  EXPECT_EQ(pieces, allocator.reservation(reserved.begin));
  ASSERT_TRUE(pieces->free(piece.begin).has_value());
  const auto inner = pieces->reserve({.size = 0x2000_B}).value();
  EXPECT_EQ(Errc::busy, allocator.release(reserved.begin).error().code);
  ASSERT_TRUE(pieces->release(inner.begin).has_value());
  EXPECT_TRUE(allocator.release(reserved.begin).has_value());
  EXPECT_EQ(Errc::invalid_argument, allocator.release(reserved.begin).error().code);
}

TEST(VaAllocatorReservation, IsNoIntervalThatFreeTakesNorTheOtherWayRound) {
  auto allocator = test::make_addresses(0x10000, 0x40000);
  const auto reserved = allocator.reserve({.size = 0x8000_B}).value();
  const auto taken = allocator.allocate(0x1000_B, page).value();
  EXPECT_EQ(Errc::invalid_argument, allocator.free(reserved.begin).error().code);
  EXPECT_EQ(Errc::invalid_argument, allocator.release(taken.begin).error().code);
  EXPECT_EQ(Errc::invalid_argument, allocator.release(reserved.begin + 0x1000_B).error().code);
  EXPECT_EQ(nullptr, allocator.reservation(taken.begin));
  EXPECT_EQ(nullptr, allocator.reservation(reserved.begin + 0x1000_B));
}

TEST(VaAllocatorReservation, HasNoGuardAndIsNotQuarantined) {
  auto allocator =
      test::make_addresses(0x10000, 0x40000, {.guard = 0x1000_B, .quarantine = {.ranges = 4}});
  EXPECT_EQ(Errc::invalid_argument,
            allocator.reserve({.size = 0x8000_B, .guard = 0x1000_B}).error().code);
  const auto reserved = allocator.reserve({.size = 0x8000_B}).value();
  EXPECT_EQ(0x28000_B, allocator.free_bytes());
  VaAllocator* pieces = allocator.reservation(reserved.begin);
  const auto first = pieces->allocate(0x4000_B, page).value();
  ASSERT_TRUE(pieces->allocate(0x4000_B, page).has_value());
  ASSERT_TRUE(pieces->free(first.begin).has_value());
  EXPECT_EQ(0x4000_B, pieces->free_bytes());
  EXPECT_EQ(0_B, allocator.statistics().guard);
}

TEST(VaAllocatorReservation, TakesWhatARequestAsksFor) {
  auto allocator = test::make_addresses(0x10000, 0x80'0000);
  const auto reserved = allocator
                            .reserve({.size = 1_MiB,
                                      .alignment = Alignment(1 << 20),
                                      .within = range(0x10000, 0x60'0000),
                                      .placement = VaAllocator::Placement::top_down})
                            .value();
  EXPECT_EQ(range(0x50'0000, 0x60'0000), reserved);
  EXPECT_EQ(Errc::no_memory, allocator.reserve({.size = 1_GiB}).error().code);
  EXPECT_EQ(Errc::invalid_argument, allocator.reserve({.size = 0_B}).error().code);
  EXPECT_EQ(Errc::invalid_argument, allocator.reserve_at(range(0x11000, 0x11000)).error().code);
}

TEST(VaAllocatorReservation, OutlivesAMoveOfItsAllocator) {
  auto first = test::make_addresses(0x10000, 0x40000);
  const auto reserved = first.reserve({.size = 0x8000_B}).value();
  VaAllocator* pieces = first.reservation(reserved.begin);
  auto second = std::move(first);
  EXPECT_EQ(pieces, second.reservation(reserved.begin));
  EXPECT_TRUE(pieces->allocate(1_B, page).has_value());
  second.validate();
}

TEST(VaAllocatorReservation, EachFailedAllocationLeavesAllAsItWas) {
  const auto live = test::heap.live;
  {
    auto allocator = test::make_addresses(0x10000, 0x40000);
    const auto before = allocator.statistics();
    const auto live_before = test::heap.live;
    int failures = 0;
    for (;; ++failures) {
      const test::FailingNew failing(failures);
      const auto reserved = allocator.reserve({.size = 0x8000_B});
      if (!failing.happened()) {
        EXPECT_TRUE(reserved.has_value());
        break;
      }
      EXPECT_EQ(Errc::no_memory, reserved.error().code);
      EXPECT_EQ(before, allocator.statistics());
      EXPECT_EQ(live_before, test::heap.live);
      allocator.validate();
    }
    EXPECT_EQ(6, failures);  // state, two sets of bins, a hole, a leaf, and the reservation
  }
  EXPECT_EQ(live, test::heap.live);
}

TEST(VaAllocatorReservation, ReleaseAndTheEndOfQuarantineTakeNoMemory) {
  auto allocator = test::make_addresses(0x10000, 0x4000'0000, {.quarantine = {.ranges = 64}});
  const auto reserved = allocator.reserve_at(range(0x2000'0000, 0x3000'0000)).value();
  for (std::uint64_t i = 0; i < 200; ++i)
    ASSERT_TRUE(allocator.allocate_at(range(0x1000'0000 + i * 0x2000, 0x1000'1000 + i * 0x2000)));
  const auto calls = test::heap.calls;
  for (std::uint64_t i = 0; i < 200; ++i)
    ASSERT_TRUE(allocator.free(DeviceAddr(0x1000'0000 + i * 0x2000)).has_value());
  allocator.drain_quarantine();
  ASSERT_TRUE(allocator.release(reserved.begin).has_value());
  EXPECT_EQ(calls, test::heap.calls);
  EXPECT_EQ(1U, allocator.holes());
}

}  // namespace
}  // namespace accelmm
