// SPDX-License-Identifier: Apache-2.0
#include "unit/mmu/tables_fixture.hpp"

#include <accelmm/mmu/address_space.hpp>
#include <accelmm/mmu/npu1.hpp>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::mmu {
namespace {

using test::range;
using test::release;
using test::run;
using test::Runs;
using test::Tables;

constexpr std::uint64_t page = 0x1000;
constexpr std::uint64_t large = 0x20'0000;
constexpr std::uint64_t base = 1ULL << 40;

class PartialUnmapTest : public ::testing::Test {
 protected:
  ~PartialUnmapTest() override {
    space->validate();
    release(space->unmap_all());
    space.reset();
    for (TableList& list : taken) tables.pool().give_back(std::move(list));
    EXPECT_EQ(tables.pool().tables_in_use(), 0u);
    tables.pool().validate();
  }
  Result<MappedRange> map(std::uint64_t offset, std::uint64_t length, std::uint64_t bus) {
    const Runs runs{run(bus, length)};
    return space->map(runs, {Placement::Kind::fixed, DeviceAddr(base + offset)}, {});
  }
  Result<Unmapped> unmap(std::uint64_t begin, std::uint64_t end) {
    return space->unmap(range(base + begin, base + end));
  }
  Result<Changed> protect(std::uint64_t begin, std::uint64_t end, Attributes attributes) {
    return space->protect(range(base + begin, base + end), attributes);
  }
  std::uint64_t bus_at(std::uint64_t offset) {
    const auto found = space->translate(DeviceAddr(base + offset));
    return found ? found->address.value() : ~0ULL;
  }
  // Takes every table that is free.
  void use_up_tables() {
    while (auto one = tables.pool().take(1)) taken.push_back(std::move(*one));
  }

  Tables tables{64};
  std::unique_ptr<AddressSpace> space =
      std::move(*make_address_space<Npu1>(tables.pool(), range(base, base + 64 * large)));
  std::vector<TableList> taken;
};

TEST_F(PartialUnmapTest, MiddleOfAMappingLeavesTwo) {
  ASSERT_TRUE(map(0, 10 * page, 0).has_value());
  auto gone = unmap(3 * page, 5 * page);
  ASSERT_TRUE(gone.has_value());
  space->validate();
  EXPECT_EQ(gone->range(), range(base + 3 * page, base + 5 * page));
  EXPECT_EQ(space->mappings(), 2u);
  EXPECT_EQ(space->mapped_bytes(), ByteCount(8 * page));
  EXPECT_EQ(bus_at(2 * page), 2 * page);
  EXPECT_EQ(bus_at(3 * page), ~0ULL);
  EXPECT_EQ(bus_at(5 * page), 5 * page);
  release(std::move(*gone));
  auto rest = space->unmap(DeviceAddr(base + 5 * page));
  ASSERT_TRUE(rest.has_value()) << "what is left is a mapping of its own";
  release(std::move(*rest));
}

TEST_F(PartialUnmapTest, HoleCanBeMappedAgainAfterItsInvalidation) {
  ASSERT_TRUE(map(0, 10 * page, 0).has_value());
  auto gone = unmap(3 * page, 5 * page);
  EXPECT_EQ(map(3 * page, page, 0).error().code, Errc::address_in_use);
  release(std::move(*gone));
  EXPECT_TRUE(map(3 * page, page, 40 * page).has_value());
  EXPECT_EQ(bus_at(3 * page), 40 * page);
}

TEST_F(PartialUnmapTest, AddressesAreFreeForAnyPlacementWhenAllOfThemAreUnmapped) {
  ASSERT_TRUE(map(0, 64 * large, 0).has_value());
  auto first = unmap(0, 10 * large + 5 * page);
  release(std::move(*first));
  const Runs runs{run(0, page)};
  EXPECT_EQ(space->map(runs, {}, {}).error().code, Errc::no_memory)
      << "a limit: by fixed address only";
  auto second = unmap(10 * large + 5 * page, 64 * large);
  release(std::move(*second));
  const auto mapped = space->map(runs, {}, {});
  EXPECT_TRUE(mapped.has_value());
}

TEST_F(PartialUnmapTest, CutInsideALargeLeafSplitsIt) {
  ASSERT_TRUE(map(0, 2 * large, 8 * large).has_value());
  auto gone = unmap(large - page, large + page);
  ASSERT_TRUE(gone.has_value());
  EXPECT_EQ(gone->touched().leaf_sizes & large, large) << "which the device may know still";
  EXPECT_EQ(gone->touched().first_hop, 3u);
  EXPECT_EQ(space->translate(DeviceAddr(base))->leaf_size, ByteCount(page));
  EXPECT_EQ(bus_at(large - 2 * page), 9 * large - 2 * page);
  EXPECT_EQ(bus_at(large + page), 9 * large + page);
  EXPECT_EQ(bus_at(large), ~0ULL);
  release(std::move(*gone));
}

TEST_F(PartialUnmapTest, CutThatFallsBetweenLeavesSplitsNone) {
  ASSERT_TRUE(map(0, 3 * large, 8 * large).has_value());
  auto gone = unmap(large, 2 * large);
  ASSERT_TRUE(gone.has_value());
  EXPECT_EQ(space->translate(DeviceAddr(base))->leaf_size, ByteCount(large));
  EXPECT_EQ(space->translate(DeviceAddr(base + 2 * large))->leaf_size, ByteCount(large));
  release(std::move(*gone));
}

TEST_F(PartialUnmapTest, FirstCutOfAMappingNeedsNoTableOfThePool) {
  ASSERT_TRUE(map(0, 4 * large, 8 * large).has_value());
  EXPECT_EQ(space->spare_tables(), 2u);
  use_up_tables();
  auto gone = unmap(large / 2, 3 * large + large / 2);
  ASSERT_TRUE(gone.has_value()) << "both cuts lie inside of leaves";
  space->validate();
  EXPECT_EQ(space->spare_tables(), 0u) << "and nothing was left to set aside again";
  release(std::move(*gone));
}

TEST_F(PartialUnmapTest, LaterCutSaysThatNoTableIsLeftAndChangesNothing) {
  ASSERT_TRUE(map(0, 6 * large, 8 * large).has_value());
  use_up_tables();
  auto gone = unmap(2 * large + page, 3 * large + page);
  ASSERT_TRUE(gone.has_value());
  EXPECT_EQ(unmap(page, 2 * page).error().code, Errc::no_memory);
  EXPECT_EQ(protect(page, 2 * page, Access::read).error().code, Errc::no_memory);
  space->validate();
  EXPECT_EQ(space->translate(DeviceAddr(base + page))->leaf_size, ByteCount(large));
  EXPECT_EQ(space->mappings(), 2u);
  release(std::move(*gone));
  for (TableList& list : taken) tables.pool().give_back(std::move(list));
  taken.clear();
  auto again = unmap(page, 2 * page);
  ASSERT_TRUE(again.has_value()) << "there are tables again";
  release(std::move(*again));
}

TEST_F(PartialUnmapTest, ReserveIsFilledAgainAfterACut) {
  ASSERT_TRUE(map(0, 6 * large, 8 * large).has_value());
  auto gone = unmap(2 * large + page, 3 * large + page);
  release(std::move(*gone));
  EXPECT_EQ(space->spare_tables(), 4u) << "two for each of what is left";
  use_up_tables();
  auto left = unmap(page, 2 * page);
  auto right = unmap(5 * large + page, 5 * large + 2 * page);
  ASSERT_TRUE(left && right);
  release(std::move(*left));
  release(std::move(*right));
}

TEST_F(PartialUnmapTest, RangeTakesWhateverLiesInIt) {
  ASSERT_TRUE(map(0, 2 * page, 0).has_value());
  ASSERT_TRUE(map(4 * page, 2 * page, large).has_value());
  auto gone = unmap(page, 5 * page);
  ASSERT_TRUE(gone.has_value());
  std::size_t pieces = 0;
  gone->for_each_range([&pieces](Range<DeviceAddr> one) {
    ++pieces;
    EXPECT_EQ(one.size(), ByteCount(page));
  });
  EXPECT_EQ(pieces, 2u);
  EXPECT_EQ(space->mappings(), 2u);
  release(std::move(*gone));
}

TEST_F(PartialUnmapTest, RefusesWhatIsNoRangeOrNotMapped) {
  ASSERT_TRUE(map(0, 2 * page, 0).has_value());
  EXPECT_EQ(unmap(page, page).error().code, Errc::invalid_argument);
  EXPECT_EQ(unmap(0, page / 2).error().code, Errc::invalid_argument);
  EXPECT_EQ(unmap(2 * page, 4 * page).error().code, Errc::invalid_argument);
  EXPECT_EQ(space->unmap(range(base - page, base + page)).error().code, Errc::invalid_argument);
  EXPECT_EQ(protect(page, 3 * page, Access::read).error().code, Errc::invalid_argument) << "a gap";
  EXPECT_EQ(protect(0, page, Access{0}).error().code, Errc::invalid_argument);
  EXPECT_EQ(protect(0, page, {Access::read, MemoryType::device}).error().code, Errc::not_supported);
  space->validate();
  EXPECT_EQ(space->mappings(), 1u);
}

TEST_F(PartialUnmapTest, ProtectChangesAPartAndNoMore) {
  ASSERT_TRUE(map(0, 2 * large, 8 * large).has_value());
  const auto changed = protect(page, 3 * page, Access::read);
  ASSERT_TRUE(changed.has_value());
  space->validate();
  EXPECT_EQ(changed->range, range(base + page, base + 3 * page));
  EXPECT_EQ(changed->touched.first_hop, 3u) << "a large leaf was split";
  const auto access_at = [&](std::uint64_t offset) {
    return space->translate(DeviceAddr(base + offset))->attributes.access;
  };
  EXPECT_EQ(access_at(0), Access::read_write);
  EXPECT_EQ(access_at(page), Access::read);
  EXPECT_EQ(access_at(2 * page), Access::read);
  EXPECT_EQ(access_at(3 * page), Access::read_write);
  EXPECT_EQ(bus_at(page), 8 * large + page);
}

TEST_F(PartialUnmapTest, EndOfTheSpaceEndsEverything) {
  ASSERT_TRUE(map(0, 2 * page, 0).has_value());
  release(space->unmap_all());
  EXPECT_EQ(unmap(0, page).error().code, Errc::invalid_argument);
  EXPECT_EQ(protect(0, page, Access::read).error().code, Errc::invalid_argument);
  EXPECT_EQ(space->reserve(ByteCount(page), {}).error().code, Errc::invalid_argument);
  EXPECT_FALSE(space->translate(DeviceAddr(base)).has_value());
  EXPECT_TRUE(space->walk(DeviceAddr(base)).steps().empty());
  space = std::move(*make_address_space<Npu1>(tables.pool(), range(base, base + large)));
}

}  // namespace
}  // namespace accelmm::mmu
