// SPDX-License-Identifier: Apache-2.0
#include "unit/mmu/invalidation_recorder.hpp"
#include "unit/mmu/tables_fixture.hpp"

#include <accelmm/mmu/address_space.hpp>
#include <accelmm/mmu/invalidation_gather.hpp>
#include <accelmm/mmu/npu1.hpp>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::mmu {
namespace {

using test::InvalidationRecorder;
using test::range;
using test::release;
using test::run;
using test::Runs;
using test::Tables;
using Cause = Invalidation::Cause;

constexpr std::uint64_t page = 0x1000;
constexpr std::uint64_t large = 0x20'0000;
constexpr std::uint64_t base = 1ULL << 40;

std::vector<Range<DeviceAddr>> listed(const Invalidation& invalidation) {
  return {invalidation.ranges().begin(), invalidation.ranges().end()};
}

TEST(InvalidationRanges, KeepsRangesApartInOrderAndJoinsThoseThatTouch) {
  InvalidationRanges ranges;
  EXPECT_TRUE(ranges.add(range(50, 60), 8));
  EXPECT_TRUE(ranges.add(range(10, 20), 8));
  EXPECT_TRUE(ranges.add(range(30, 40), 8));
  ASSERT_EQ(ranges.all().size(), 3u);
  EXPECT_EQ(ranges.all()[1], range(30, 40));
  EXPECT_TRUE(ranges.add(range(20, 25), 8)) << "touches the first at its end";
  EXPECT_EQ(ranges.all()[0], range(10, 25));
  EXPECT_TRUE(ranges.add(range(39, 50), 8)) << "joins two";
  ASSERT_EQ(ranges.all().size(), 2u);
  EXPECT_EQ(ranges.all()[1], range(30, 60));
  EXPECT_FALSE(ranges.add(range(70, 80), 2)) << "beyond the limit";
  EXPECT_EQ(ranges.all().size(), 2u);
  EXPECT_TRUE(ranges.add(range(0, 100), 2));
  ASSERT_EQ(ranges.all().size(), 1u);
  EXPECT_EQ(ranges.hull(), range(0, 100));
}

class InvalidationGatherTest : public ::testing::Test {
 protected:
  ~InvalidationGatherTest() override {
    space->validate();
    release(space->unmap_all());
    space.reset();
    EXPECT_EQ(tables.pool().tables_in_use(), 0u);
  }
  void map(std::uint64_t offset, std::uint64_t length, std::uint64_t bus) {
    const Runs runs{run(bus, length)};
    ASSERT_TRUE(space->map(runs, {Placement::Kind::fixed, DeviceAddr(base + offset)}, {}));
  }
  Unmapped unmap(std::uint64_t begin, std::uint64_t end) {
    auto gone = space->unmap(range(base + begin, base + end));
    EXPECT_TRUE(gone.has_value());
    return std::move(*gone);
  }

  Tables tables{64};
  std::unique_ptr<AddressSpace> space =
      std::move(*make_address_space<Npu1>(tables.pool(), range(base, base + 64 * large)));
  InvalidationRecorder device;
};

TEST_F(InvalidationGatherTest, OneInvalidationCompletesManyUnmaps) {
  map(0, 2 * page, 0);
  map(4 * page, page, 8 * page);
  map(5 * page, page, 20 * page);
  const std::uint32_t in_use = tables.pool().tables_in_use();
  InvalidationGather gather(7, {});
  for (const std::uint64_t at : {0 * page, 4 * page, 5 * page}) gather.add(unmap(at, at + page));
  EXPECT_EQ(gather.changes(), 3u);
  EXPECT_EQ(tables.pool().tables_in_use(), in_use) << "nothing comes back before";
  const Runs runs{run(0, page)};
  const Placement taken{Placement::Kind::fixed, DeviceAddr(base)};
  EXPECT_EQ(space->map(runs, taken, {}).error().code, Errc::address_in_use);
  device.complete(std::move(gather));
  ASSERT_EQ(device.count(), 1u);
  EXPECT_EQ(device.last().asid, 7u);
  EXPECT_EQ(device.last().cause, Cause::unmap);
  EXPECT_EQ(listed(device.last()),
            (std::vector{range(base, base + page), range(base + 4 * page, base + 6 * page)}));
  EXPECT_EQ(device.last().range, range(base, base + 6 * page)) << "for drivers that take the hull";
  EXPECT_TRUE(space->map(runs, taken, {}).has_value());
}

TEST_F(InvalidationGatherTest, TellsWhichEntriesChanged) {
  map(0, page, page);
  map(page, page, page);
  map(4 * large, 2 * large, 8 * large);
  InvalidationGather small(1, {});
  small.add(unmap(0, page));
  device.complete(std::move(small));
  EXPECT_EQ(device.last().touched, (Touched{page, 4, Touched::Tables::kept}))
      << "a leaf of the last hop, beside another";
  InvalidationGather big(1, {});
  big.add(unmap(4 * large, 5 * large));
  device.complete(std::move(big));
  EXPECT_EQ(device.last().touched.leaf_sizes & large, large);
  EXPECT_EQ(device.last().touched.first_hop, 3u);
  EXPECT_EQ(device.last().touched.tables, Touched::Tables::kept);
  InvalidationGather freeing(1, {});
  freeing.add(unmap(page, 2 * page));
  device.complete(std::move(freeing));
  EXPECT_EQ(device.last().touched, (Touched{page, 3, Touched::Tables::freed}))
      << "the link to the last table went";
}

TEST_F(InvalidationGatherTest, AChangeInPlaceIsNotedAndCarriesNothing) {
  map(0, 4 * page, page);
  const auto changed = space->protect(range(base + page, base + 2 * page), Access::read);
  ASSERT_TRUE(changed.has_value());
  InvalidationGather gather(1, {});
  gather.add(*changed);
  EXPECT_FALSE(gather.carries());
  device.complete(std::move(gather));
  EXPECT_EQ(device.last().cause, Cause::protect);
  EXPECT_EQ(listed(device.last()), std::vector{range(base + page, base + 2 * page)});
  EXPECT_EQ(device.last().touched, (Touched{page, 4, Touched::Tables::kept}));
}

TEST_F(InvalidationGatherTest, NewMappingsCountOnlyWhereADeviceCachesNegativeEntries) {
  const MappedRange mapped{range(base, base + page)};
  InvalidationGather plain(1, {});
  plain.add(mapped);
  EXPECT_FALSE(plain.is_needed());
  device.complete(std::move(plain));
  EXPECT_EQ(device.count(), 0u);
  InvalidationGather negative(1, {.negative_entries = InvalidationPolicy::NegativeEntries::cached});
  negative.add(mapped);
  device.complete(std::move(negative));
  ASSERT_EQ(device.count(), 1u);
  EXPECT_EQ(device.last().cause, Cause::map);
}

TEST_F(InvalidationGatherTest, BeyondWhatTheDeviceTakesItIsTheHullOrEverything) {
  for (std::uint64_t i = 0; i < 6; ++i) map(2 * i * page, page, 0);
  InvalidationGather hull(1, {.most_ranges = 2});
  for (std::uint64_t i = 0; i < 3; ++i) hull.add(unmap(2 * i * page, 2 * i * page + page));
  device.complete(std::move(hull));
  EXPECT_EQ(listed(device.last()), std::vector{range(base, base + 5 * page)});
  InvalidationGather all(1, {.most_ranges = 2, .beyond = InvalidationPolicy::Beyond::everything});
  for (std::uint64_t i = 3; i < 6; ++i) all.add(unmap(2 * i * page, 2 * i * page + page));
  device.complete(std::move(all));
  EXPECT_EQ(listed(device.last()), std::vector{range(0, ~0ULL)});
}

TEST_F(InvalidationGatherTest, RangesGrowToWhatTheDeviceCanName) {
  map(page, page, 0);
  InvalidationGather coarse(1, {.granularity = Alignment(0x1'0000)});
  coarse.add(unmap(page, 2 * page));
  device.complete(std::move(coarse));
  EXPECT_EQ(device.last().range, range(base, base + 0x1'0000));
  map(page, page, 0);
  InvalidationGather all_or_nothing(1, {.most_ranges = 0});
  all_or_nothing.add(unmap(page, 2 * page));
  device.complete(std::move(all_or_nothing));
  EXPECT_EQ(device.last().range, range(0, ~0ULL));
}

TEST_F(InvalidationGatherTest, WhatReplacedNothingNeedsNoInvalidation) {
  const Runs runs{run(0, page)};
  InvalidationGather gather(1, {});
  auto replaced = space->replace(runs, {Placement::Kind::fixed, DeviceAddr(base)}, {});
  ASSERT_TRUE(replaced.has_value());
  gather.add(std::move(*replaced));
  EXPECT_TRUE(gather.carries());
  EXPECT_FALSE(gather.is_needed());
  device.complete(std::move(gather));
  EXPECT_EQ(device.count(), 0u);
}

using InvalidationGatherDeathTest = InvalidationGatherTest;

TEST_F(InvalidationGatherDeathTest, AbortsWhenDroppedWithWhatItCarries) {
  map(0, page, 0);
  EXPECT_DEATH(
      {
        InvalidationGather gather(1, {});
        gather.add(unmap(0, page));
      },
      "check failed: space_ == nullptr");
}

TEST_F(InvalidationGatherDeathTest, AbortsOnAnInvalidationThatMissesARange) {
  map(0, page, 0);
  map(4 * page, page, 0);
  EXPECT_DEATH(
      {
        InvalidationGather gather(1, {});
        gather.add(unmap(0, page));
        const Invalidation first = gather.invalidation();
        gather.add(unmap(4 * page, 5 * page));
        std::move(gather).release(InvalidationDone(first));
      },
      "check failed: done.covers");
}

TEST_F(InvalidationGatherDeathTest, AbortsOnTheUnmapsOfTwoAddressSpaces) {
  auto other = std::move(*make_address_space<Npu1>(tables.pool(), range(base, base + large)));
  const Runs runs{run(0, page)};
  ASSERT_TRUE(other->map(runs, {Placement::Kind::fixed, DeviceAddr(base)}, {}));
  map(0, page, 0);
  EXPECT_DEATH(
      {
        InvalidationGather gather(1, {});
        gather.add(unmap(0, page));
        gather.add(std::move(*other->unmap(DeviceAddr(base))));
      },
      "check failed: space_ != nullptr && space_ == other.space_");
  release(other->unmap_all());
}

}  // namespace
}  // namespace accelmm::mmu
