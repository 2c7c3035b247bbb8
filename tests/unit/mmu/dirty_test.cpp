// SPDX-License-Identifier: Apache-2.0
//
// Leaves that a device wrote through: what read_and_clear_dirty() tells, and what keeps the marks.
#include "unit/mmu/tables_fixture.hpp"

#include <accelmm/mmu/aarch64.hpp>
#include <accelmm/mmu/amd_iommu.hpp>
#include <accelmm/mmu/page_table.hpp>
#include <accelmm/mmu/riscv.hpp>
#include <accelmm/mmu/vtd.hpp>
#include <accelmm/mmu/x86_64.hpp>

#include <algorithm>
#include <cstdint>
#include <optional>
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
constexpr std::uint64_t va = 7 * large;
constexpr std::uint64_t bus = std::uint64_t{1} << 32;

template <class F>
class Dirty : public ::testing::Test {
 protected:
  using Tree = PageTable<F, TablePool>;
  using Found = std::vector<Range<DeviceAddr>>;

  ~Dirty() override { release(tree.detach_all()); }

  void map(std::uint64_t begin, std::uint64_t length, Attributes attributes = {}) {
    const Runs runs{run(bus + (begin - va), length)};
    ASSERT_TRUE(tree.map(DeviceAddr(begin), runs, attributes).has_value());
  }
  Found ask(std::uint64_t begin, std::uint64_t end) {
    Found found;
    const auto asked = tree.read_and_clear_dirty(
        range(begin, end), [&](DeviceAddr from, DeviceAddr to) { found.push_back({from, to}); });
    EXPECT_TRUE(asked.has_value());
    return found;
  }
  // What the device does when it writes: the entry that it walked to gets the mark.
  void write_through(std::uint64_t address) {
    const Walk walk = tree.walk(DeviceAddr(address));
    const WalkStep& leaf = walk.steps().back();
    ASSERT_EQ(leaf.kind, EntryKind::leaf);
    tables.plant(leaf.table, leaf.index, F::soil(leaf.entry));
  }
  Range<DeviceAddr> leaf_at(std::uint64_t address) {
    const auto leaf = tree.translate(DeviceAddr(address));
    const DeviceAddr begin = DeviceAddr(address) - (leaf->leaf_size - leaf->remaining);
    return {begin, begin + leaf->leaf_size};
  }

  Tables tables{64};
  Tree tree{std::move(*Tree::create(tables.pool()))};
};

const auto forgets = [](Range<DeviceAddr>) {};

using Formats = ::testing::Types<X86_64<4>, AArch64<12, 48>, RiscV<48, Svnapot::yes>,
                                 VtdSecondStage<4>, AmdIommuV1<4>>;
TYPED_TEST_SUITE(Dirty, Formats);

TYPED_TEST(Dirty, TellsTheLeavesThatWereWrittenSinceItWasAskedLast) {
  this->map(va, large + 40 * page);
  this->ask(va, va + large + 40 * page);  // fresh leaves may count as written
  EXPECT_TRUE(this->ask(va, va + large + 40 * page).empty());
  this->write_through(va + 5 * page);           // in the large leaf
  this->write_through(va + large + 39 * page);  // and in the last small one
  const auto expected = {this->leaf_at(va), this->leaf_at(va + large + 39 * page)};
  EXPECT_TRUE(std::ranges::equal(this->ask(va, va + large + 40 * page), expected));
  EXPECT_TRUE(this->ask(va, va + large + 40 * page).empty());
  this->tree.validate();
}

TYPED_TEST(Dirty, OneEntryOfAGroupStandsForTheGroupAndAllAreCleared) {
  this->map(va, 16 * page);  // one leaf of 64 KiB where the format has such groups
  this->ask(va, va + 16 * page);
  for (const std::uint64_t written : {3 * page, 9 * page}) this->write_through(va + written);
  const auto found = this->ask(va, va + 16 * page);
  ASSERT_FALSE(found.empty());
  EXPECT_EQ(found.front(), this->leaf_at(va + 3 * page));
  EXPECT_EQ(found.back(), this->leaf_at(va + 9 * page));
  EXPECT_EQ(found.size(), this->leaf_at(va).size().value() == page ? 2u : 1u);
  EXPECT_TRUE(this->ask(va, va + 16 * page).empty());
  this->tree.validate();
}

TYPED_TEST(Dirty, MarksSurviveProtectSplitAndMerge) {
  this->map(va, large);
  this->ask(va, va + large);
  this->write_through(va);
  ASSERT_TRUE(this->tree.protect(range(va, va + large), Access::read).has_value());
  ASSERT_TRUE(this->tree.split(range(va + page, va + 2 * page), forgets).has_value());
  this->tree.validate();
  release(std::move(*this->tree.merge(range(va, va + large), forgets)));
  this->tree.validate();
  ASSERT_EQ(this->leaf_at(va).size(), ByteCount(large));
  const auto expected = {range(va, va + large)};
  EXPECT_TRUE(std::ranges::equal(this->ask(va, va + large), expected));
}

TYPED_TEST(Dirty, CleanLeavesStayCleanThroughSplitAndMerge) {
  this->map(va, large);
  this->ask(va, va + large);
  ASSERT_TRUE(this->tree.split(range(va + page, va + 2 * page), forgets).has_value());
  EXPECT_TRUE(this->ask(va, va + large).empty());
  release(std::move(*this->tree.merge(range(va, va + large), forgets)));
  EXPECT_TRUE(this->ask(va, va + large).empty());
  EXPECT_EQ(this->tree.translate(DeviceAddr(va))->attributes, Attributes());
}

TYPED_TEST(Dirty, GapsAreSkippedAndCutsRefused) {
  this->map(va, large);
  const auto nothing = [](DeviceAddr, DeviceAddr) {};
  EXPECT_TRUE(this->tree.read_and_clear_dirty(range(va - large, va + 3 * large), nothing));
  EXPECT_EQ(this->tree.read_and_clear_dirty(range(va, va + page), nothing).error().code,
            Errc::invalid_argument);
  EXPECT_EQ(this->tree.read_and_clear_dirty(range(va, va), nothing).error().code,
            Errc::invalid_argument);
}

}  // namespace
}  // namespace accelmm::mmu
