// SPDX-License-Identifier: Apache-2.0
#include "unit/mm/va_fixture.hpp"

#include <accelmm/va_allocator.hpp>

#include <array>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

constexpr Alignment page(4096);
constexpr Alignment large(2 << 20);
using Placement = VaAllocator::Placement;

using test::range;

TEST(VaAllocatorRequest, TopDownTakesTheUpperEndOfTheHighestHoleThatFits) {
  auto allocator = test::make_addresses(0x10000, 0x80000);
  ASSERT_TRUE(allocator.allocate_at(range(0x70000, 0x7f000)).has_value());
  const VaAllocator::Request request{.size = 0x2000_B, .placement = Placement::top_down};
  EXPECT_EQ(range(0x6e000, 0x70000), allocator.allocate(request).value());
  EXPECT_EQ(range(0x6c000, 0x6e000), allocator.allocate(request).value());
  EXPECT_EQ(range(0x7f000, 0x80000),
            allocator.allocate({.size = 1_B, .placement = Placement::top_down}).value());
  allocator.validate();
}

TEST(VaAllocatorRequest, TopDownAlignsDownwardsWithAPhase) {
  auto allocator = test::make_addresses(0x1000, 0x80'0000);
  const VaAllocator::Request request{
      .size = 0x1000_B, .alignment = large, .phase = 0x3000_B, .placement = Placement::top_down};
  EXPECT_EQ(0x60'3000U, allocator.allocate(request).value().begin.value());
  EXPECT_EQ(0x40'3000U, allocator.allocate(request).value().begin.value());
}

TEST(VaAllocatorRequest, BottomUpTakesTheLowestHoleThatFitsNotTheSmallest) {
  auto allocator = test::make_addresses(0x10000, 0x80000);
  ASSERT_TRUE(allocator.allocate_at(range(0x20000, 0x30000)).has_value());
  ASSERT_TRUE(allocator.allocate_at(range(0x32000, 0x80000)).has_value());
  EXPECT_EQ(range(0x30000, 0x32000), allocator.allocate(0x2000_B, page).value());
  ASSERT_TRUE(allocator.free(DeviceAddr(0x30000)).has_value());
  EXPECT_EQ(range(0x10000, 0x12000),
            allocator.allocate({.size = 0x2000_B, .placement = Placement::bottom_up}).value());
}

TEST(VaAllocatorRequest, StaysWithinTheRangeAskedFor) {
  auto allocator = test::make_addresses(0x10000, 0x80000);
  for (const Placement placement :
       {Placement::best_fit, Placement::bottom_up, Placement::top_down}) {
    const auto got = allocator.allocate(
        {.size = 0x3000_B, .within = range(0x41000, 0x4b000), .placement = placement});
    ASSERT_TRUE(got.has_value());
    EXPECT_TRUE(range(0x41000, 0x4b000).contains(*got));
  }
  const auto full = allocator.allocate({.size = 0x2000_B, .within = range(0x41000, 0x4b000)});
  EXPECT_EQ(Errc::no_memory, full.error().code);
  allocator.validate();
}

TEST(VaAllocatorRequest, BestFitWithinARangeTakesASmallHole) {
  auto allocator = test::make_addresses(0x10000, 0x100000);
  for (const std::uint64_t at : {0x20000U, 0x24000U, 0x50000U})
    ASSERT_TRUE(allocator.allocate_at(range(at, at + 0x1000)).has_value());
  const auto got = allocator.allocate({.size = 0x3000_B, .within = range(0x10000, 0x80000)});
  EXPECT_EQ(range(0x21000, 0x24000), got.value());
}

TEST(VaAllocatorRequest, RefusesARangeThatIsEmptyUnalignedOrOutside) {
  auto allocator = test::make_addresses(0x10000, 0x80000);
  for (const auto& within :
       {range(0x20000, 0x20000), range(0x20001, 0x30000), range(0x20000, 0x30800),
        range(0xf000, 0x20000), range(0x20000, 0x81000)}) {
    const auto got = allocator.allocate({.size = 1_B, .within = within});
    EXPECT_EQ(Errc::invalid_argument, got.error().code);
  }
  EXPECT_EQ(0x70000_B, allocator.free_bytes());
}

TEST(VaAllocatorRequest, FollowsAHintWhereItCan) {
  auto allocator = test::make_addresses(0x10000, 0x80000);
  const VaAllocator::Request request{.size = 0x2000_B, .hint = DeviceAddr(0x30000)};
  EXPECT_EQ(range(0x30000, 0x32000), allocator.allocate(request).value());
  EXPECT_NE(DeviceAddr(0x30000), allocator.allocate(request).value().begin);
}

TEST(VaAllocatorRequest, FollowsAHintIntoTheLastPagesOfAHole) {
  auto allocator = test::make_addresses(0x10000, 0x80000);
  const VaAllocator::Request request{.size = 0x2000_B, .hint = DeviceAddr(0x7e000)};
  EXPECT_EQ(range(0x7e000, 0x80000), allocator.allocate(request).value());
}

TEST(VaAllocatorRequest, IgnoresAHintThatIsNullUnalignedOutsideOrTooNear) {
  auto allocator = test::make_addresses(0, 0x80'0000);
  ASSERT_TRUE(allocator.allocate_at(range(0x40'1000, 0x40'2000)).has_value());
  for (const std::uint64_t hint : {0x0U, 0x30800U, 0x80'0000U, 0x7f'f000U, 0x40'0000U}) {
    const auto got = allocator.allocate({.size = 0x2000_B, .hint = DeviceAddr(hint)});
    ASSERT_TRUE(got.has_value());
    EXPECT_NE(DeviceAddr(hint), got->begin);
  }
  const auto aligned =
      allocator.allocate({.size = 1_B, .alignment = large, .hint = DeviceAddr(0x50'0000)});
  EXPECT_EQ(0U, aligned.value().begin.value() % (2 << 20));
  const auto within = allocator.allocate(
      {.size = 1_B, .within = range(0x60'0000, 0x61'0000), .hint = DeviceAddr(0x50'0000)});
  EXPECT_TRUE(range(0x60'0000, 0x61'0000).contains(*within));
}

TEST(VaAllocatorRequest, LeavesHintRangesToThoseWhoNameTheirAddresses) {
  const std::array hints{range(0x20000, 0x40000), range(0x60000, 0x80000)};
  auto allocator = test::make_addresses(0x10000, 0x80000, {.hint_ranges = hints});
  EXPECT_EQ(0x70000_B, allocator.free_bytes());
  EXPECT_EQ(0x20000_B, allocator.statistics().longest);
  EXPECT_EQ(range(0x40000, 0x60000), allocator.allocate(0x20000_B, page).value());
  EXPECT_EQ(range(0x10000, 0x20000), allocator.allocate(0x10000_B, page).value());
  EXPECT_EQ(Errc::no_memory, allocator.allocate(1_B, page).error().code);
  const auto top = allocator.allocate({.size = 1_B, .placement = Placement::top_down});
  EXPECT_EQ(Errc::no_memory, top.error().code);
  const auto hinted = allocator.allocate({.size = 0x1000_B, .hint = DeviceAddr(0x30000)});
  EXPECT_EQ(range(0x30000, 0x31000), hinted.value());
  EXPECT_TRUE(allocator.allocate_at(range(0x60000, 0x61000)).has_value());
  EXPECT_TRUE(allocator.reserve_at(range(0x70000, 0x71000)).has_value());
  allocator.validate();
}

TEST(VaAllocatorRequest, ForcedAddressesMayCrossTheEdgeOfAHintRange) {
  const std::array hints{range(0x20000, 0x40000)};
  auto allocator = test::make_addresses(0x10000, 0x80000, {.hint_ranges = hints});
  EXPECT_TRUE(allocator.allocate_at(range(0x1f000, 0x21000)).has_value());
  allocator.validate();
  ASSERT_TRUE(allocator.free(DeviceAddr(0x1f000)).has_value());
  EXPECT_EQ(1U, allocator.holes());
  allocator.validate();
}

TEST(VaAllocatorRequest, RefusesHintRangesThatAreTooManyUnalignedEmptyOrInDisorder) {
  const auto create = [](std::vector<Range<DeviceAddr>> hints) {
    return VaAllocator::create(range(0, 0x100000), page, {.hint_ranges = hints});
  };
  EXPECT_EQ(Errc::invalid_argument, create({range(0x2000, 0x2000)}).error().code);
  EXPECT_EQ(Errc::invalid_argument, create({range(0x2800, 0x4000)}).error().code);
  EXPECT_EQ(Errc::invalid_argument, create({range(0x2000, 0x4001)}).error().code);
  EXPECT_EQ(Errc::invalid_argument,
            create({range(0x4000, 0x6000), range(0x2000, 0x3000)}).error().code);
  EXPECT_EQ(Errc::invalid_argument,
            create({range(0x4000, 0x6000), range(0x5000, 0x7000)}).error().code);
  std::vector<Range<DeviceAddr>> hints;
  for (std::uint64_t at = 0; at < 8 * 0x2000; at += 0x2000) hints.push_back(range(at, at + 0x1000));
  EXPECT_TRUE(create(hints).has_value());
  for (auto& hint : hints) hint = {hint.begin + 0x1000_B, hint.end + 0x1000_B};
  EXPECT_TRUE(create(hints).has_value());  // with page 0 nine closed ranges
  hints.push_back(range(0x20000, 0x21000));
  EXPECT_EQ(Errc::invalid_argument, create(hints).error().code);
}

TEST(VaAllocatorRequest, KeepsAGuardBehindAnIntervalUntilItIsFreed) {
  auto allocator = test::make_addresses(0x10000, 0x20000, {.guard = 0x1000_B});
  const auto first = allocator.allocate(0x2000_B, page).value();
  EXPECT_EQ(range(0x10000, 0x12000), first);
  EXPECT_EQ(Errc::address_in_use, allocator.allocate_at(range(0x12000, 0x13000)).error().code);
  EXPECT_EQ(range(0x13000, 0x14000), allocator.allocate(1_B, page).value());
  const auto wide = allocator.allocate({.size = 0x1000_B, .guard = 0x1001_B}).value();
  EXPECT_EQ(range(0x15000, 0x16000), wide);
  EXPECT_EQ(0x4000_B, allocator.statistics().guard);
  EXPECT_EQ(0x4000_B, allocator.statistics().taken);
  EXPECT_EQ(0x8000_B, allocator.free_bytes());
  EXPECT_EQ(Errc::invalid_argument, allocator.free(DeviceAddr(0x12000)).error().code);
  ASSERT_TRUE(allocator.free(first.begin).has_value());
  EXPECT_TRUE(allocator.allocate_at(range(0x10000, 0x13000)).has_value());
  allocator.validate();
}

TEST(VaAllocatorRequest, AnAddressForcedByItsCallerHasNoGuard) {
  auto allocator = test::make_addresses(0x10000, 0x20000, {.guard = 0x1000_B});
  EXPECT_TRUE(allocator.allocate_at(range(0x1f000, 0x20000)).has_value());
  EXPECT_EQ(0_B, allocator.statistics().guard);
}

TEST(VaAllocatorRequest, RefusesGuardsThatWouldOverflow) {
  auto allocator = test::make_addresses(0x10000, 0x20000);
  const ByteCount most(~std::uint64_t{0});
  const auto too_long = ByteCount(std::uint64_t{1} << 42);
  EXPECT_EQ(Errc::invalid_argument, allocator.allocate({.size = 1_B, .guard = most}).error().code);
  EXPECT_EQ(Errc::invalid_argument,
            allocator.allocate({.size = 1_B, .guard = too_long}).error().code);
  const ByteCount nearly(~std::uint64_t{0xfff});
  EXPECT_EQ(Errc::no_memory, allocator.allocate({.size = nearly, .guard = 0x1000_B}).error().code);
  EXPECT_EQ(0x10000_B, allocator.free_bytes());
}

TEST(VaAllocatorRequest, QuarantineKeepsFreedAddressesUntilYoungerOnesPushThemOut) {
  auto allocator = test::make_addresses(0x10000, 0x20000, {.quarantine = {.ranges = 2}});
  std::vector<DeviceAddr> begins;
  for (int i = 0; i < 3; ++i) begins.push_back(allocator.allocate(0x1000_B, page)->begin);
  ASSERT_TRUE(allocator.free(begins[0]).has_value());
  EXPECT_EQ(0x1000_B, allocator.statistics().quarantined);
  EXPECT_EQ(0xd000_B, allocator.free_bytes());
  EXPECT_EQ(Errc::invalid_argument, allocator.free(begins[0]).error().code);
  const auto other = allocator.allocate({.size = 1_B, .placement = Placement::bottom_up}).value();
  EXPECT_NE(begins[0], other.begin);
  ASSERT_TRUE(allocator.free(begins[1]).has_value());
  ASSERT_TRUE(allocator.free(begins[2]).has_value());
  EXPECT_EQ(2U, allocator.statistics().quarantined_ranges);
  EXPECT_EQ(begins[0], allocator.allocate({.size = 1_B, .placement = Placement::bottom_up})->begin);
  allocator.validate();
}

TEST(VaAllocatorRequest, QuarantineHoldsNoMoreBytesThanItMay) {
  auto allocator =
      test::make_addresses(0x10000, 0x80000, {.quarantine = {.ranges = 8, .bytes = 0x3000_B}});
  const auto large_one = allocator.allocate(0x4000_B, page).value();
  const auto first = allocator.allocate(0x2000_B, page).value();
  const auto second = allocator.allocate(0x2000_B, page).value();
  ASSERT_TRUE(allocator.free(large_one.begin).has_value());
  EXPECT_EQ(0_B, allocator.statistics().quarantined);
  ASSERT_TRUE(allocator.free(first.begin).has_value());
  ASSERT_TRUE(allocator.free(second.begin).has_value());
  EXPECT_EQ(0x2000_B, allocator.statistics().quarantined);
  EXPECT_TRUE(allocator.allocate_at(first).has_value());
  EXPECT_EQ(0x2000_B, allocator.statistics().quarantined);
}

TEST(VaAllocatorRequest, QuarantineEndsBeforeARequestIsRefused) {
  auto allocator = test::make_addresses(0x10000, 0x20000, {.quarantine = {.ranges = 8}});
  const auto whole = allocator.allocate(0x10000_B, page).value();
  ASSERT_TRUE(allocator.free(whole.begin).has_value());
  EXPECT_EQ(0_B, allocator.free_bytes());
  EXPECT_EQ(whole, allocator.allocate(0x10000_B, page).value());
  ASSERT_TRUE(allocator.free(whole.begin).has_value());
  EXPECT_EQ(range(0x14000, 0x15000), allocator.allocate_at(range(0x14000, 0x15000)).value());
  EXPECT_EQ(0U, allocator.statistics().quarantined_ranges);
  allocator.validate();
}

TEST(VaAllocatorRequest, AForcedAddressThatIsTakenLeavesTheQuarantineAlone) {
  auto allocator = test::make_addresses(0x10000, 0x20000, {.quarantine = {.ranges = 8}});
  const auto freed = allocator.allocate_at(range(0x10000, 0x12000)).value();
  ASSERT_TRUE(allocator.allocate_at(range(0x13000, 0x14000)).has_value());
  ASSERT_TRUE(allocator.free(freed.begin).has_value());
  EXPECT_EQ(Errc::address_in_use, allocator.allocate_at(range(0x10000, 0x14000)).error().code);
  EXPECT_EQ(0x2000_B, allocator.statistics().quarantined);
  allocator.drain_quarantine();
  EXPECT_EQ(0_B, allocator.statistics().quarantined);
  EXPECT_EQ(0xf000_B, allocator.free_bytes());
}

TEST(VaAllocatorRequest, CreateRefusesAQuarantineBeyondAllMemory) {
  const auto made = VaAllocator::create(range(0x10000, 0x20000), page,
                                        {.quarantine = {.ranges = ~std::size_t{0}}});
  EXPECT_EQ(Errc::no_memory, made.error().code);
}

/// The holes that one request looks at, of `count` holes of 2 MiB without an aligned place, where
/// the one hole that fits lies behind them.
std::uint64_t holes_looked_at(std::uint64_t count, VaAllocator::Request request) {
  auto allocator = test::make_addresses(0x1000, std::uint64_t{1} << 47);
  const std::uint64_t step = 0x40'0000;
  std::uint64_t at = 0x1000;
  for (std::uint64_t i = 1; i <= count; ++i) {
    EXPECT_TRUE(allocator.allocate_at(range(at, i * step + 0x1000)).has_value());
    at = i * step + 0x20'1000;
  }
  EXPECT_TRUE(allocator.allocate_at(range(at, at + step)).has_value());
  EXPECT_EQ(count + 1, allocator.holes());
  const std::uint64_t before = allocator.holes_looked_at();
  EXPECT_TRUE(allocator.allocate(request).has_value());
  return allocator.holes_looked_at() - before;
}

TEST(VaAllocatorRequest, NoSuccessfulRequestLooksAtMoreHolesWhereThereAreMore) {
  for (const Placement placement :
       {Placement::best_fit, Placement::bottom_up, Placement::top_down}) {
    for (const std::uint64_t phase : {0U, 0x2000U}) {
      for (const auto& within : {std::optional<Range<DeviceAddr>>(),
                                 std::optional(range(0x3000, std::uint64_t{1} << 46))}) {
        for (const Alignment alignment : {large, Alignment(1 << 21 << 2)}) {
          const VaAllocator::Request request{.size = 2_MiB,
                                             .alignment = alignment,
                                             .phase = ByteCount(phase),
                                             .within = within,
                                             .placement = placement};
          EXPECT_GE(50U, holes_looked_at(100, request));
          EXPECT_GE(50U, holes_looked_at(3000, request));
        }
      }
    }
  }
}

TEST(VaAllocatorRequest, RefusesWithoutAWalkWhatIsLongerThanEveryHole) {
  auto allocator = test::make_addresses(0x1000, 0x4000'0000);
  for (std::uint64_t at = 0x3000; at < 0x4000'0000; at += 0x10'0000)
    ASSERT_TRUE(allocator.allocate_at(range(at, at + 0x1000)).has_value());
  const std::uint64_t before = allocator.holes_looked_at();
  EXPECT_EQ(Errc::no_memory, allocator.allocate(1_MiB, page).error().code);
  EXPECT_EQ(Errc::no_memory, allocator.allocate(1_MiB, large).error().code);
  EXPECT_EQ(Errc::no_memory, allocator.allocate(1_MiB, Alignment(1 << 30)).error().code);
  EXPECT_EQ(before, allocator.holes_looked_at());
}

TEST(VaAllocatorRequest, StatisticsTellTheLongestRequestsThatWouldSucceed) {
  auto allocator = test::make_addresses(0, 0x80'0000);
  const auto statistics = allocator.statistics();
  EXPECT_EQ(ByteCount(0x7f'f000), statistics.longest);
  EXPECT_EQ(6_MiB, statistics.longest_large);
  EXPECT_EQ(statistics, allocator.recount());
  EXPECT_TRUE(allocator.allocate(statistics.longest_large, large).has_value());
  EXPECT_EQ(ByteCount(0x1f'f000), allocator.statistics().longest);
  EXPECT_EQ(0_B, allocator.statistics().longest_large);
  EXPECT_LT(0_B, allocator.metadata());
}

TEST(VaAllocatorRequest, TakesAForcedAddressWithAGuardBehindIt) {
  auto allocator = VaAllocator::create(range(0x10000, 0x80000), page).value();
  ASSERT_EQ(range(0x20000, 0x30000),
            allocator.allocate_at(range(0x20000, 0x30000), ByteCount(0x1800)).value());
  EXPECT_EQ(ByteCount(0x2000), allocator.statistics().guard);
  EXPECT_EQ(Errc::address_in_use, allocator.allocate_at(range(0x31000, 0x32000)).error().code);
  EXPECT_TRUE(allocator.allocate_at(range(0x32000, 0x33000)).has_value());
  // Its guard is taken, it is not.
  EXPECT_EQ(Errc::address_in_use,
            allocator.allocate_at(range(0x31000, 0x32000), 4_KiB).error().code);
  EXPECT_EQ(Errc::address_in_use,
            allocator.allocate_at(range(0x1e000, 0x20000), 4_KiB).error().code);
  EXPECT_EQ(Errc::invalid_argument,
            allocator.allocate_at(range(0x7e000, 0x80000), 4_KiB).error().code);
  EXPECT_EQ(Errc::invalid_argument,
            allocator.allocate_at(range(0x40000, 0x40000), 4_KiB).error().code);
  EXPECT_EQ(
      Errc::invalid_argument,
      allocator.allocate_at(range(0x40000, 0x41000), ByteCount(~std::uint64_t{0})).error().code);
  EXPECT_TRUE(allocator.free(DeviceAddr(0x20000)).has_value());
  EXPECT_EQ(ByteCount(0), allocator.statistics().guard);
  EXPECT_TRUE(allocator.allocate_at(range(0x20000, 0x32000)).has_value());
  allocator.validate();
}

}  // namespace
}  // namespace accelmm
