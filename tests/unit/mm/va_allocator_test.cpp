// SPDX-License-Identifier: Apache-2.0
#include "unit/mm/failing_new.hpp"

#include <accelmm/va_allocator.hpp>

#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

constexpr Alignment page(4096);
constexpr Alignment large(2 << 20);

Range<DeviceAddr> range(std::uint64_t begin, std::uint64_t end) {
  return {DeviceAddr(begin), DeviceAddr(end)};
}

VaAllocator make(std::uint64_t begin, std::uint64_t end) {
  auto made = VaAllocator::create(range(begin, end), page);
  EXPECT_TRUE(made.has_value());
  return std::move(made).value();
}

TEST(VaAllocator, RefusesAnEmptyOrUnalignedRange) {
  EXPECT_EQ(Errc::invalid_argument, VaAllocator::create(range(4096, 4096), page).error().code);
  EXPECT_EQ(Errc::invalid_argument, VaAllocator::create(range(8192, 4096), page).error().code);
  EXPECT_EQ(Errc::invalid_argument, VaAllocator::create(range(1, 8192), page).error().code);
  EXPECT_EQ(Errc::invalid_argument, VaAllocator::create(range(4096, 8193), page).error().code);
}

TEST(VaAllocator, RoundsUpToThePage) {
  auto allocator = make(0x10000, 0x20000);
  EXPECT_EQ(0x2000_B, allocator.allocate(0x1001_B, page).value().size());
  EXPECT_EQ(0xe000_B, allocator.free_bytes());
}

TEST(VaAllocator, PicksTheSmallestHoleThatFits) {
  auto allocator = make(0x10000, 0x80000);
  ASSERT_TRUE(allocator.allocate_at(range(0x20000, 0x21000)).has_value());
  ASSERT_TRUE(allocator.allocate_at(range(0x23000, 0x24000)).has_value());
  EXPECT_EQ(range(0x21000, 0x23000), allocator.allocate(0x2000_B, page).value());
  EXPECT_EQ(range(0x10000, 0x20000), allocator.allocate(0x10000_B, page).value());
  allocator.validate();
}

TEST(VaAllocator, NeverAllocatesAddressZeroByItself) {
  auto allocator = make(0, 0x4000);
  EXPECT_EQ(range(0x1000, 0x4000), allocator.allocate(0x3000_B, page).value());
  EXPECT_EQ(Errc::no_memory, allocator.allocate(0x1000_B, page).error().code);
  EXPECT_EQ(0x1000_B, allocator.free_bytes());
  EXPECT_EQ(range(0, 0x1000), allocator.allocate_at(range(0, 0x1000)).value());
  EXPECT_EQ(0_B, allocator.free_bytes());
  EXPECT_EQ(0U, allocator.holes());
  allocator.validate();
}

TEST(VaAllocator, AlignsWithAPhase) {
  auto allocator = make(0, 64 << 20);
  const auto got = allocator.allocate(3_MiB, large, 0x3000_B).value();
  EXPECT_EQ(0x3000U, got.begin.value() % (2 << 20));
  EXPECT_EQ(3_MiB, got.size());
  const auto aligned = allocator.allocate(2_MiB, large).value();
  EXPECT_EQ(0U, aligned.begin.value() % (2 << 20));
  EXPECT_NE(0U, aligned.begin.value());
  allocator.validate();
}

TEST(VaAllocator, AlignsAgainstAddressesNotAgainstTheStartOfItsRange) {
  auto allocator = make(0x1ff000, 0x600000);
  EXPECT_EQ(range(0x200000, 0x400000), allocator.allocate(2_MiB, large).value());
}

TEST(VaAllocator, RefusesAPhaseThatNoAddressCanHave) {
  auto allocator = make(0, 64 << 20);
  EXPECT_EQ(Errc::invalid_argument, allocator.allocate(1_MiB, large, 2_MiB).error().code);
  EXPECT_EQ(Errc::invalid_argument, allocator.allocate(1_MiB, large, 0x800_B).error().code);
  EXPECT_EQ(Errc::invalid_argument, allocator.allocate(0_B, page).error().code);
}

TEST(VaAllocator, RefusesSizesThatWouldOverflow) {
  auto allocator = make(0x1000, ~std::uint64_t{0xfff});
  const ByteCount most(~std::uint64_t{0});
  EXPECT_EQ(Errc::no_memory, allocator.allocate(most, page).error().code);
  EXPECT_EQ(Errc::no_memory,
            allocator.allocate(ByteCount(~std::uint64_t{0xfff}), page).error().code);
  const Alignment half(std::uint64_t{1} << 63);
  EXPECT_EQ(std::uint64_t{1} << 63, allocator.allocate(1_MiB, half).value().begin.value());
  EXPECT_EQ(Errc::no_memory, allocator.allocate(1_MiB, half).error().code);
  allocator.validate();
}

TEST(VaAllocator, FindsTheOneAlignedPlaceBehindManyHolesThatFitOnlyUnaligned) {
  auto allocator = make(0x1000, 0x1'0000'0000);
  ASSERT_TRUE(allocator.allocate_at(range(0x1000, 0x1'0000'0000)).has_value());
  ASSERT_TRUE(allocator.free(DeviceAddr(0x1000)).has_value());
  // 100 holes of 2 MiB at odd places, one of 2 MiB + 4 KiB that holds an aligned place.
  std::uint64_t at = 0x1000;
  for (int i = 0; i < 100; ++i) {
    const std::uint64_t taken = 0x1000 + static_cast<std::uint64_t>(i) * 0x40'0000;
    ASSERT_TRUE(allocator.allocate_at(range(at, taken + 0x1000)).has_value());
    at = taken + 0x20'1000;
  }
  ASSERT_TRUE(allocator.allocate_at(range(at, 0x8000'0000)).has_value());
  ASSERT_TRUE(allocator.allocate_at(range(0x8020'1000, 0x1'0000'0000)).has_value());
  EXPECT_EQ(101U, allocator.holes());
  EXPECT_EQ(range(0x8000'0000, 0x8020'0000), allocator.allocate(2_MiB, large).value());
  EXPECT_EQ(Errc::no_memory, allocator.allocate(2_MiB, large).error().code);
  allocator.validate();
}

TEST(VaAllocator, WalksHolesJustBelowTheSizeThatAlwaysFits) {
  auto allocator = make(0x1000, 0x1'0000'0000);
  // 30 holes of 2 MiB at odd places, then one of 4 MiB - 8 KiB (4 MiB - 4 KiB would always do).
  std::uint64_t at = 0x1000;
  for (std::uint64_t begin = 0x40'1000; begin < 0x40'1000 + 30 * 0x40'0000; begin += 0x40'0000) {
    ASSERT_TRUE(allocator.allocate_at(range(at, begin)).has_value());
    at = begin + 0x20'0000;
  }
  ASSERT_TRUE(allocator.allocate_at(range(at, 0x8000'0000)).has_value());
  ASSERT_TRUE(allocator.allocate_at(range(0x803f'e000, 0x1'0000'0000)).has_value());
  EXPECT_EQ(range(0x8000'0000, 0x8020'0000), allocator.allocate(2_MiB, large).value());
  allocator.validate();
}

TEST(VaAllocator, AllocateAtRefusesAnyTakenByte) {
  auto allocator = make(0x10000, 0x20000);
  ASSERT_TRUE(allocator.allocate_at(range(0x14000, 0x16000)).has_value());
  const Range<DeviceAddr> taken[] = {range(0x14000, 0x16000), range(0x15000, 0x16000),
                                     range(0x13000, 0x15000), range(0x15000, 0x17000),
                                     range(0x10000, 0x20000)};
  for (const auto& wanted : taken)
    EXPECT_EQ(Errc::address_in_use, allocator.allocate_at(wanted).error().code);
  EXPECT_EQ(0xe000_B, allocator.free_bytes());
  EXPECT_TRUE(allocator.allocate_at(range(0x13000, 0x14000)).has_value());
  EXPECT_TRUE(allocator.allocate_at(range(0x16000, 0x20000)).has_value());
  allocator.validate();
}

TEST(VaAllocator, AllocateAtRefusesWhatIsEmptyUnalignedOrOutside) {
  auto allocator = make(0x10000, 0x20000);
  const Range<DeviceAddr> bad[] = {range(0x12000, 0x12000), range(0x13000, 0x12000),
                                   range(0x10001, 0x11000), range(0x10000, 0x10800),
                                   range(0xf000, 0x11000),  range(0x1f000, 0x21000),
                                   range(0x20000, 0x21000)};
  for (const auto& wanted : bad)
    EXPECT_EQ(Errc::invalid_argument, allocator.allocate_at(wanted).error().code);
  EXPECT_EQ(0x10000_B, allocator.free_bytes());
}

TEST(VaAllocator, FreeMergesWithHolesOnBothSides) {
  auto allocator = make(0x10000, 0x20000);
  const auto left = allocator.allocate_at(range(0x12000, 0x13000)).value();
  const auto middle = allocator.allocate_at(range(0x13000, 0x14000)).value();
  const auto right = allocator.allocate_at(range(0x14000, 0x15000)).value();
  EXPECT_EQ(2U, allocator.holes());
  ASSERT_TRUE(allocator.free(left.begin).has_value());
  ASSERT_TRUE(allocator.free(right.begin).has_value());
  EXPECT_EQ(2U, allocator.holes());
  allocator.validate();
  ASSERT_TRUE(allocator.free(middle.begin).has_value());
  EXPECT_EQ(1U, allocator.holes());
  EXPECT_EQ(range(0x10000, 0x20000), allocator.allocate(0x10000_B, page).value());
}

TEST(VaAllocator, FreeRefusesWhatDoesNotBeginATakenInterval) {
  auto allocator = make(0x10000, 0x20000);
  const auto taken = allocator.allocate_at(range(0x12000, 0x14000)).value();
  for (const std::uint64_t begin : {0x10000U, 0x13000U, 0x14000U, 0x12001U, 0x20000U, 0U})
    EXPECT_EQ(Errc::invalid_argument, allocator.free(DeviceAddr(begin)).error().code);
  ASSERT_TRUE(allocator.free(taken.begin).has_value());
  EXPECT_EQ(Errc::invalid_argument, allocator.free(taken.begin).error().code);
  EXPECT_EQ(0x10000_B, allocator.free_bytes());
  allocator.validate();
}

/// Fails each allocation of an operation in turn until it succeeds; returns how many failed.
template <class Operation>
int fail_each_allocation(VaAllocator& allocator, Operation operation) {
  for (int k = 0;; ++k) {
    const auto live = test::heap.live;
    const auto free_bytes = allocator.free_bytes();
    const auto holes = allocator.holes();
    const test::FailingNew failing(k);
    const auto result = operation();
    if (!failing.happened()) {
      EXPECT_TRUE(result.has_value());
      return k;
    }
    EXPECT_EQ(Errc::no_memory, result.error().code);
    EXPECT_EQ(live, test::heap.live);
    EXPECT_EQ(free_bytes, allocator.free_bytes());
    EXPECT_EQ(holes, allocator.holes());
    allocator.validate();
  }
}

TEST(VaAllocator, EachFailedAllocationLeavesAllAsItWas) {
  const auto live = test::heap.live;
  int failures = 0;
  {
    // 2000 intervals: all pools grow many times, also several at once.
    auto allocator = make(0x10000, 0x40'0000'0000);
    for (std::uint64_t i = 0; i < 1000; ++i) {
      VaAllocator::Request request{.size = 4_KiB, .alignment = large, .phase = 0x1000_B};
      request.placement = VaAllocator::Placement::bottom_up;
      failures += fail_each_allocation(allocator, [&] { return allocator.allocate(request); });
      const auto at = range(0x20'0000'0000 + i * 0x3000, 0x20'0000'0000 + i * 0x3000 + 0x1000);
      failures += fail_each_allocation(allocator, [&] { return allocator.allocate_at(at); });
    }
  }
  EXPECT_LE(15, failures);
  EXPECT_EQ(live, test::heap.live);
}

TEST(VaAllocator, CreateFailsCleanlyAtEachAllocation) {
  const auto live = test::heap.live;
  int failures = 0;
  VaAllocator::Options options;
  options.quarantine.ranges = 8;
  for (int k = 0;; ++k, ++failures) {
    const test::FailingNew failing(k);
    const auto made = VaAllocator::create(range(0x1000, 0x2000), page, options);
    if (made) break;
    EXPECT_EQ(Errc::no_memory, made.error().code);
    EXPECT_EQ(live, test::heap.live);
  }
  EXPECT_EQ(6, failures);  // the state, two sets of bins, a hole, a leaf, and the ring
  EXPECT_EQ(live, test::heap.live);
}

TEST(VaAllocator, FreeTakesNoMemory) {
  auto allocator = make(0x10000, 0x4000'0000);
  std::vector<DeviceAddr> begins;
  for (int i = 0; i < 200; ++i) begins.push_back(allocator.allocate(64_KiB, page).value().begin);
  const auto calls = test::heap.calls;
  for (std::size_t i = 0; i < begins.size(); i += 2)
    ASSERT_TRUE(allocator.free(begins[i]).has_value());
  for (std::size_t i = 1; i < begins.size(); i += 2)
    ASSERT_TRUE(allocator.free(begins[i]).has_value());
  EXPECT_EQ(calls, test::heap.calls);
  EXPECT_EQ(1U, allocator.holes());
}

TEST(VaAllocator, MovesWithItsState) {
  auto first = make(0x10000, 0x20000);
  const auto taken = first.allocate(0x1000_B, page).value();
  auto second = std::move(first);
  EXPECT_EQ(range(0x10000, 0x20000), second.range());
  EXPECT_TRUE(second.free(taken.begin).has_value());
  second.validate();
}

}  // namespace
}  // namespace accelmm
