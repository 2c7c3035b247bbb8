// SPDX-License-Identifier: Apache-2.0
//
// What a device that caches leaves, tables and faults makes of our tables when it is told what
// changed, and when it is not. Each case without an invalidation shows what that would be: these are
// the reasons for Invalidation and Detached.
#include "unit/mmu/caching_walker.hpp"
#include "unit/mmu/tables_fixture.hpp"

#include <accelmm/mmu/npu1.hpp>
#include <accelmm/mmu/page_table.hpp>

#include <cstdint>
#include <optional>
#include <utility>

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

class StaleTranslationTest : public ::testing::Test {
 protected:
  using Tree = PageTable<Npu1, TablePool>;

  ~StaleTranslationTest() override { release(tree.detach_all()); }

  void map(std::uint64_t va, std::uint64_t bus, std::uint64_t length = page) {
    ASSERT_TRUE(tree.map(DeviceAddr(va), Runs{run(bus, length)}, {}).has_value());
  }
  [[nodiscard]] Detached<TablePool> unmap(std::uint64_t va, std::uint64_t length = page) {
    return std::move(*tree.unmap(range(va, va + length)));
  }

  Tables tables{32};
  Tree tree{std::move(*Tree::create(tables.pool()))};
  caching_npu1::Mmu device{{tables.bytes(), tables.size()}, Tables::bus_begin, tree.root().value()};
};

// Neighbours are mapped, the page between them was asked for too early: hl-thunk maps pages 1 and 3,
// touches 2, and maps 2.
TEST_F(StaleTranslationTest, APageThatWasTouchedBeforeItWasMappedIsThereAfterASoftInvalidation) {
  constexpr std::uint64_t first = large + 16 * page;
  map(first, 0x1000);
  map(first + 2 * page, 0x3000);
  EXPECT_EQ(device.access(first), 0x1000u);
  EXPECT_EQ(device.access(first + 2 * page), 0x3000u);
  EXPECT_EQ(device.access(first + page), std::nullopt) << "a fault, which is remembered";
  map(first + page, 0x2000);
  EXPECT_EQ(device.access(first + page), std::nullopt) << "without an invalidation it still faults";
  device.invalidate_soft(first + page, first + 2 * page);
  EXPECT_EQ(device.access(first + page + 5), 0x2005u);
  EXPECT_EQ(device.access(first), 0x1000u);
  EXPECT_EQ(device.access(first + 2 * page), 0x3000u);
}

TEST_F(StaleTranslationTest, ASoftInvalidationIsNotEnoughAfterAnUnmap) {
  map(large, 0x1000);
  EXPECT_EQ(device.access(large), 0x1000u);
  auto gone = unmap(large);
  device.invalidate_soft(large, large + page);
  EXPECT_EQ(device.access(large), 0x1000u);
  device.invalidate(gone.range().begin.value(), gone.range().end.value());
  EXPECT_EQ(device.access(large), std::nullopt);
  release(std::move(gone));
}

TEST_F(StaleTranslationTest, AnUnmappedPageIsReachedUntilTheDeviceForgetsIt) {
  map(large, 0x1000, 2 * page);
  EXPECT_EQ(device.access(large + page), 0x2000u);
  auto gone = unmap(large, 2 * page);
  EXPECT_EQ(device.access(large + page), 0x2000u) << "use after unmap";
  EXPECT_EQ(device.access(large), std::nullopt) << "its word was cleared, where few are";
  device.invalidate(gone.range().begin.value(), gone.range().end.value());
  EXPECT_EQ(device.access(large + page), std::nullopt);
  release(std::move(gone));
}

// The device knows the table of the last hop. Used again for other addresses before it forgot, the
// table would lead it to memory that was never mapped where it looks.
TEST_F(StaleTranslationTest, ATableThatIsUsedAgainTooEarlyLeadsToMemoryOfOthers) {
  map(large, 0x1000);
  EXPECT_EQ(device.access(large), 0x1000u);
  auto gone = unmap(large);
  // What Detached forbids: its proof is for tables that no device was ever shown.
  std::move(gone).release(InvalidationDone::never_shown());
  map(7 * large, 0xBAD'0000, 4 * page);
  EXPECT_EQ(device.access(large + 3 * page), 0xBAD'3000u) << "memory of another mapping";
  device.invalidate(large, large + page);
  EXPECT_EQ(device.access(large + 2 * page), std::nullopt);
}

TEST_F(StaleTranslationTest, ADetachedTableIsNotUsedForAnotherMapping) {
  map(large, 0x1000);
  EXPECT_EQ(device.access(large), 0x1000u);
  auto gone = unmap(large);
  map(7 * large, 0xBAD'0000, 4 * page);
  EXPECT_EQ(device.access(large + 3 * page), std::nullopt);
  device.invalidate(gone.range().begin.value(), gone.range().end.value());
  release(std::move(gone));
  map(9 * large, 0xD00'0000, 4 * page);
  EXPECT_EQ(device.access(large + 2 * page), std::nullopt);
  EXPECT_EQ(device.access(9 * large + 3 * page), 0xD00'3000u);
}

// A large leaf in place of a table: the device must forget the whole range, which is the one that
// merge() says.
TEST_F(StaleTranslationTest, AMergedTableIsPassedUntilItsRangeIsForgotten) {
  map(large, 64 * large, large / 2);
  map(large + large / 2, 64 * large + large / 2, large / 2);
  EXPECT_EQ(device.access(large + 5 * page), 64 * large + 5 * page);
  auto gone = std::move(*tree.merge(range(large, 2 * large)));
  ASSERT_EQ(gone.tables(), 1u);
  EXPECT_EQ(device.access(large + 9 * page), 64 * large + 9 * page) << "through the old table";
  device.invalidate(gone.range().begin.value(), gone.range().end.value());
  release(std::move(gone));
  map(0, 0xBAD'0000, 16 * page);  // takes the table
  EXPECT_EQ(device.access(large + 9 * page), 64 * large + 9 * page);
}

}  // namespace
}  // namespace accelmm::mmu
