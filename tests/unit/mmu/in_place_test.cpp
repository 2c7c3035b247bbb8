// SPDX-License-Identifier: Apache-2.0
//
// What changes the leaves of an address space and leaves mapped what is mapped: merge(), and the marks
// of what was written.
#include "unit/mmu/tables_fixture.hpp"

#include <accelmm/mmu/aarch64.hpp>
#include <accelmm/mmu/address_space.hpp>
#include <accelmm/mmu/npu1.hpp>
#include <accelmm/mmu/x86_64.hpp>

#include <algorithm>
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
constexpr std::uint64_t bus = 1ULL << 32;

template <class F>
class InPlaceTest : public ::testing::Test {
 protected:
  ~InPlaceTest() override {
    space->validate();
    release(space->unmap_all());
    space.reset();
    for (TableList& list : taken) tables.pool().give_back(std::move(list));
    EXPECT_EQ(tables.pool().tables_in_use(), 0u);
    tables.pool().validate();
  }
  void map(std::uint64_t begin, std::uint64_t length) {
    const Runs runs{run(bus + begin, length)};
    const Placement there{Placement::Kind::fixed, DeviceAddr(base + begin)};
    ASSERT_TRUE(space->map(runs, there, Access::read_write).has_value());
  }
  void protect(std::uint64_t begin, std::uint64_t end, Access access) {
    ASSERT_TRUE(space->protect(range(base + begin, base + end), access).has_value());
  }
  void merge(std::uint64_t begin, std::uint64_t end) {
    auto old = space->merge(range(base + begin, base + end));
    ASSERT_TRUE(old.has_value());
    release(std::move(*old));
  }
  std::uint64_t leaf_size(std::uint64_t offset) {
    const auto found = space->translate(DeviceAddr(base + offset));
    EXPECT_TRUE(found && found->address.value() == bus + offset);
    return found ? found->leaf_size.value() : 0;
  }
  void use_up_tables() {
    while (auto one = tables.pool().take(1)) taken.push_back(std::move(*one));
  }
  static std::unique_ptr<AddressSpace> make(TablePool& pool) {
    const VaWindow window{VaUse::any, range(base, base + 64 * large)};
    SpaceOptions options;
    options.windows = std::span(&window, 1);
    options.forget_now = [](Range<DeviceAddr>) {};
    return std::move(*make_address_space<F>(pool, options));
  }

  Tables tables{64};
  std::unique_ptr<AddressSpace> space = make(tables.pool());
  std::vector<TableList> taken;
};

using Merging = InPlaceTest<Npu1>;
using MergingThatBreaks = InPlaceTest<AArch64<12, 48>>;
using Marks = InPlaceTest<X86_64<4>>;

TEST_F(Merging, MakesOneLeafOfWhatWasCutAndIsAlikeAgain) {
  map(0, 2 * large);
  const ByteCount before = space->table_bytes();
  protect(5 * page, 6 * page, Access::read);
  merge(0, 2 * large);
  EXPECT_EQ(page, leaf_size(5 * page)) << "the pages differ";
  protect(5 * page, 6 * page, Access::read_write);
  EXPECT_EQ(page, leaf_size(0));
  EXPECT_GT(space->table_bytes(), before);
  merge(0, 2 * large);
  EXPECT_EQ(large, leaf_size(5 * page));
  EXPECT_EQ(before, space->table_bytes());
}

TEST_F(Merging, HasTheDeviceForgetTheOldLeavesAndTheirTable) {
  map(0, large);
  protect(0, page, Access::read);
  protect(0, page, Access::read_write);
  auto old = space->merge(range(base, base + large));
  ASSERT_TRUE(old.has_value());
  EXPECT_TRUE(old->is_moved());
  EXPECT_EQ(range(base, base + large), old->range());
  EXPECT_EQ(1u, old->tables());
  EXPECT_NE(0u, old->touched().leaf_sizes & page);
  EXPECT_EQ(Touched::Tables::freed, old->touched().tables);
  release(std::move(*old));
}

TEST_F(Merging, KeepsNeighboursApartSoThatEachEndsByItself) {
  map(0, large / 2);
  map(large / 2, large / 2);
  merge(0, large);
  EXPECT_EQ(page, leaf_size(0));
  use_up_tables();
  auto gone = space->unmap(DeviceAddr(base));
  ASSERT_TRUE(gone.has_value());
  release(std::move(*gone));
  EXPECT_EQ(page, leaf_size(large / 2));
}

TEST_F(Merging, SetsTablesAsideSoThatTheNewLeafCanBeCut) {
  map(0, large);
  protect(0, page, Access::read);
  protect(0, page, Access::read_write);
  merge(0, large);
  use_up_tables();
  auto gone = space->unmap(range(base + 3 * page, base + 4 * page));
  ASSERT_TRUE(gone.has_value());
  release(std::move(*gone));
  EXPECT_EQ(page, leaf_size(2 * page));
}

TEST_F(Merging, RefusesWhatIsNoRangeOfPages) {
  map(0, large);
  for (const auto& wrong : {range(base, base), range(base + 1, base + page),
                            range(base, base + 65 * large), range(0, base)})
    EXPECT_EQ(Errc::invalid_argument, space->merge(wrong).error().code);
  EXPECT_EQ(large, leaf_size(0));
}

TEST_F(MergingThatBreaks, AsksTheDeviceToForgetOrIsRefused) {
  map(0, large);
  protect(0, page, Access::read);
  protect(0, page, Access::read_write);
  merge(0, large);
  EXPECT_EQ(large, leaf_size(0));
  // The same where nobody can make the device forget at once.
  const VaWindow window{VaUse::any, range(base, base + 64 * large)};
  SpaceOptions options;
  options.windows = std::span(&window, 1);
  const auto mute = std::move(*make_address_space<AArch64<12, 48>>(tables.pool(), options));
  const Runs runs{run(bus + page, large)};
  const Placement there{Placement::Kind::fixed, DeviceAddr(base)};
  ASSERT_TRUE(mute->map(runs, there, Access::read_write).has_value());
  EXPECT_EQ(Errc::not_supported, mute->merge(range(base, base + large)).error().code);
  mute->validate();
  release(mute->unmap_all());
}

TEST_F(Marks, AreToldOnceAndForgottenByTheDeviceWithTheRange) {
  map(0, large + 8 * page);
  std::vector<Range<DeviceAddr>> written;
  const auto note = [&](Range<DeviceAddr> leaf) { written.push_back(leaf); };
  const auto all = range(base, base + large + 8 * page);
  ASSERT_TRUE(space->read_and_clear_dirty(all, note).has_value());
  written.clear();
  // The device writes through one page.
  const Walk walk = space->walk(DeviceAddr(base + large + 3 * page));
  const WalkStep& leaf = walk.steps().back();
  tables.plant(leaf.table, leaf.index, X86_64<4>::soil(leaf.entry));
  const auto changed = space->read_and_clear_dirty(all, note);
  ASSERT_TRUE(changed.has_value());
  EXPECT_EQ(all, changed->range);
  EXPECT_EQ(large | page, changed->touched.leaf_sizes);
  ASSERT_EQ(1u, written.size());
  EXPECT_EQ(range(base + large + 3 * page, base + large + 4 * page), written.front());
  ASSERT_TRUE(space->read_and_clear_dirty(all, note).has_value());
  EXPECT_EQ(1u, written.size());
}

TEST_F(Marks, AreNotClearedWhereTheRangeCutsALeaf) {
  map(0, large);
  const auto nothing = [](Range<DeviceAddr>) {};
  EXPECT_EQ(Errc::invalid_argument,
            space->read_and_clear_dirty(range(base, base + page), nothing).error().code);
}

TEST_F(Merging, AFormatWithoutMarksSaysSo) {
  map(0, large);
  const auto nothing = [](Range<DeviceAddr>) {};
  EXPECT_EQ(Errc::not_supported,
            space->read_and_clear_dirty(range(base, base + large), nothing).error().code);
}

}  // namespace
}  // namespace accelmm::mmu
