// SPDX-License-Identifier: Apache-2.0
#include "unit/mmu/naive_npu1_walker.hpp"
#include "unit/mmu/tables_fixture.hpp"

#include <accelmm/mmu/npu1.hpp>
#include <accelmm/mmu/page_table.hpp>

#include <cstdint>
#include <optional>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::mmu {
namespace {

using test::invalidated;
using test::range;
using test::release;
using test::run;
using test::Runs;
using test::table_entries;
using test::Tables;

constexpr std::uint64_t page = 0x1000;
constexpr std::uint64_t large = 0x20'0000;
constexpr std::uint64_t va_end = 1ULL << 50;

class PageTableTest : public ::testing::Test {
 protected:
  using Tree = PageTable<Npu1, TablePool>;

  ~PageTableTest() override {
    if (!tree) return;
    tree->validate();
    release(tree->detach_all());
    EXPECT_EQ(tables.pool().tables_in_use(), 0u);
    tables.pool().validate();
  }

  Errc map(std::uint64_t va, Runs runs, Access access = Access::read_write) {
    const auto mapped = tree->map(DeviceAddr(va), runs, access);
    return mapped ? Errc{} : mapped.error().code;
  }
  Errc unmap(std::uint64_t begin, std::uint64_t end) {
    auto gone = tree->unmap(range(begin, end));
    if (!gone) return gone.error().code;
    release(std::move(*gone));
    return Errc{};
  }
  naive_npu1::Answer naive(std::uint64_t va) {
    return naive_npu1::walk({tables.bytes(), Tables::bus_begin, tables.size()},
                            tree->root().value(), va);
  }
  void expect_page(std::uint64_t va, std::uint64_t bus, std::uint64_t size, bool read = true,
                   bool write = true) {
    EXPECT_EQ(naive(va), (naive_npu1::Answer{naive_npu1::Verdict::page, bus, size, read, write}))
        << std::hex << va;
  }
  void expect_nothing(std::uint64_t va) {
    EXPECT_EQ(naive(va), naive_npu1::Answer{}) << std::hex << va;
  }

  Tables tables{64};
  std::optional<Tree> tree{std::move(*Tree::create(tables.pool()))};
};

TEST_F(PageTableTest, OnePageWritesTheGoldenEntryOfEachHop) {
  // Digits 2, 3, 5, 7, 11 in hops 0 to 4.
  const std::uint64_t va =
      (2ULL << 48) + (3ULL << 39) + (5ULL << 30) + (7ULL << 21) + (11ULL << 12);
  ASSERT_EQ(map(va, {run(0x1234'5000, page)}, Access::read), Errc{});
  EXPECT_EQ(tree->tables(), 5u);
  std::uint64_t table = tree->root().value();
  const std::uint32_t index[] = {2, 3, 5, 7};
  for (unsigned hop = 0; hop < 4; ++hop) {
    const std::uint64_t link = tables.word(BusAddr(table), index[hop]);
    EXPECT_EQ(link % 4096, 1u) << "a link has PRESENT and nothing else";
    table = link - 1;
  }
  EXPECT_EQ(tables.word(BusAddr(table), 11), 0x1234'5809u);
  expect_page(va, 0x1234'5000, page, true, false);
  expect_nothing(va + page);
  expect_nothing(va - page);
}

TEST_F(PageTableTest, LargeLeafIsWrittenAtHopThree) {
  ASSERT_EQ(map(large, {run(6 * large, large)}, Access::write), Errc{});
  EXPECT_EQ(tree->tables(), 4u);
  const Walk walk = tree->walk(DeviceAddr(large + 0x12345));
  ASSERT_EQ(walk.steps().size(), 4u);
  EXPECT_EQ(walk.steps()[3].entry, 0xC0'0811u);
  expect_page(large + 0x12345, 6 * large + 0x12345, large, false, true);
}

TEST_F(PageTableTest, MisalignedBusAddressUsesSmallLeavesOnly) {
  ASSERT_EQ(map(large, {run(6 * large + page, large)}), Errc{});
  for (std::uint64_t i = 0; i < 512; ++i)
    expect_page(large + i * page, 6 * large + (i + 1) * page, page);
}

TEST_F(PageTableTest, CongruentRunUsesLargeLeavesInTheMiddle) {
  ASSERT_EQ(map(large - page, {run(9 * large - page, 2 * large + 2 * page)}), Errc{});
  expect_nothing(large - 2 * page);
  expect_page(large - page, 9 * large - page, page);
  expect_page(large, 9 * large, large);
  expect_page(3 * large - 1, 11 * large - 1, large);
  expect_page(3 * large, 11 * large, page);
  expect_nothing(3 * large + page);
  EXPECT_EQ(tree->tables(), 6u) << "root, one each at hops 1 to 3, head and tail at hop 4";
}

TEST_F(PageTableTest, MapsAcrossTheBoundaryOfEveryHop) {
  for (const unsigned shift : {21u, 30u, 39u, 48u, 49u}) {
    const std::uint64_t boundary = 1ULL << shift;
    ASSERT_EQ(map(boundary - 2 * page, {run(5 * page, 4 * page)}), Errc{}) << shift;
    expect_nothing(boundary - 3 * page);
    for (std::uint64_t i = 0; i < 4; ++i)
      expect_page(boundary - 2 * page + i * page, (5 + i) * page, page);
    expect_nothing(boundary + 2 * page);
    tree->validate();
    ASSERT_EQ(unmap(boundary - 2 * page, boundary + 2 * page), Errc{}) << shift;
    EXPECT_EQ(tree->tables(), 1u) << shift;
  }
}

TEST_F(PageTableTest, MapsTheFirstAndTheLastPageOfTheSpace) {
  ASSERT_EQ(map(0, {run(page, page)}), Errc{});
  ASSERT_EQ(map(va_end - page, {run(0xFFFF'FFFF'FFFF'F000, page)}), Errc{});
  expect_page(0, page, page);
  expect_page(va_end - 1, 0xFFFF'FFFF'FFFF'FFFF, page);
  EXPECT_EQ(tree->translate(DeviceAddr(va_end - 1))->address, BusAddr(0xFFFF'FFFF'FFFF'FFFF));
  EXPECT_FALSE(tree->translate(DeviceAddr(va_end)).has_value());
  EXPECT_TRUE(tree->walk(DeviceAddr(va_end)).steps().empty());
}

TEST_F(PageTableTest, RefusesWhatLiesBeyondTheSpace) {
  const auto before = tables.snapshot();
  EXPECT_EQ(map(va_end - page, {run(0, 2 * page)}), Errc::invalid_argument);
  EXPECT_EQ(map(va_end, {run(0, page)}), Errc::invalid_argument);
  EXPECT_EQ(map(page, {run(0, va_end)}), Errc::invalid_argument);
  EXPECT_EQ(map(0x10, {run(0, page)}), Errc::invalid_argument);
  EXPECT_EQ(map(0, {}), Errc::invalid_argument);
  EXPECT_EQ(map(0, {run(0, page)}, Access{0}), Errc::invalid_argument);
  EXPECT_EQ(tables.snapshot(), before);
  EXPECT_EQ(tables.pool().tables_in_use(), 1u);
}

TEST_F(PageTableTest, RefusesAnAddressThatIsMappedAnywhereAndChangesNothing) {
  ASSERT_EQ(map(4 * large, {run(8 * large, large)}), Errc{});
  ASSERT_EQ(map(6 * large + 5 * page, {run(page, page)}), Errc{});
  const auto before = tables.snapshot();
  const std::uint32_t in_use = tables.pool().tables_in_use();
  // The same large leaf; a page inside it; a run that reaches it at its end; large over a table of
  // small ones; a run whose last page is taken, after pages that need new tables.
  EXPECT_EQ(map(4 * large, {run(0, large)}), Errc::address_in_use);
  EXPECT_EQ(map(4 * large + 7 * page, {run(0, page)}), Errc::address_in_use);
  EXPECT_EQ(map(4 * large - page, {run(page, 2 * page)}), Errc::address_in_use);
  EXPECT_EQ(map(6 * large, {run(large, large)}), Errc::address_in_use);
  EXPECT_EQ(map(5 * large, {run(page, large + 6 * page)}), Errc::address_in_use);
  EXPECT_EQ(map(6 * large, {run(page, 5 * page), run(0, page)}), Errc::address_in_use);
  EXPECT_EQ(tables.snapshot(), before);
  EXPECT_EQ(tables.pool().tables_in_use(), in_use);
  EXPECT_EQ(map(6 * large, {run(page, 5 * page)}), Errc{}) << "the pages in front are free";
}

TEST_F(PageTableTest, LargeLeafFitsAgainWhenTheSmallOnesUnderItAreGone) {
  ASSERT_EQ(map(large, {run(page, page)}), Errc{});
  EXPECT_EQ(map(large, {run(0, large)}), Errc::address_in_use);
  ASSERT_EQ(unmap(large, large + page), Errc{});
  EXPECT_EQ(map(large, {run(0, large)}), Errc{});
}

TEST_F(PageTableTest, UnmapFreesTheTablesThatBecomeEmptyAndNoOthers) {
  ASSERT_EQ(map(large, {run(0, page)}), Errc{});
  ASSERT_EQ(map(large + page, {run(8 * page, page)}), Errc{});
  ASSERT_EQ(map(1ULL << 39, {run(0, page)}), Errc{});
  EXPECT_EQ(tree->tables(), 8u) << "root; hops 1; 2, 3 and 4 twice";
  ASSERT_EQ(unmap(large, large + page), Errc{});
  EXPECT_EQ(tree->tables(), 8u);
  ASSERT_EQ(unmap(large + page, large + 2 * page), Errc{});
  EXPECT_EQ(tree->tables(), 5u);
  ASSERT_EQ(unmap(1ULL << 39, (1ULL << 39) + page), Errc{});
  EXPECT_EQ(tree->tables(), 1u);
  EXPECT_EQ(tables.pool().tables_in_use(), 1u);
}

TEST_F(PageTableTest, UnmapTakesAnyWholeLeavesOutOfTheMiddle) {
  ASSERT_EQ(map(large - 4 * page, {run(9 * large - 4 * page, 3 * large)}), Errc{});
  ASSERT_EQ(unmap(large - 2 * page, 2 * large), Errc{});
  expect_page(large - 3 * page, 9 * large - 3 * page, page);
  expect_nothing(large - 2 * page);
  expect_nothing(large);
  expect_nothing(2 * large - 1);
  expect_page(2 * large, 10 * large, large);
  tree->validate();
}

TEST_F(PageTableTest, UnmapAcrossSeveralMappingsIsOneOperation) {
  ASSERT_EQ(map(large - page, {run(page, page)}), Errc{});
  ASSERT_EQ(map(large, {run(0, large)}), Errc{});
  ASSERT_EQ(map(2 * large, {run(7 * page, page)}), Errc{});
  ASSERT_EQ(unmap(large - page, 2 * large + page), Errc{});
  EXPECT_EQ(tree->tables(), 1u);
}

TEST_F(PageTableTest, UnmapRefusesCutsAndHolesAndChangesNothing) {
  ASSERT_EQ(map(large, {run(0, large)}), Errc{});
  ASSERT_EQ(map(2 * large, {run(page, 2 * page)}), Errc{});
  ASSERT_EQ(map(4 * large, {run(5 * large + page, large)}), Errc{});
  ASSERT_EQ(unmap(4 * large + 9 * page, 4 * large + 10 * page), Errc{});
  const auto before = tables.snapshot();
  for (const auto& [begin, end] : std::vector<std::pair<std::uint64_t, std::uint64_t>>{
           {4 * large, 5 * large},                // a whole table but for a page
           {large, large + page},                 // the head of a large leaf
           {2 * large - page, 2 * large + page},  // its tail, and a page behind it
           {large, 2 * large + 3 * page},         // a page too far
           {2 * large + page, 3 * large},         // to the end of the table
           {large - page, 2 * large},             // a page too early
           {0, page},                             // nothing at all
           {0, va_end},                           // everything
           {1ULL << 48, 1ULL << 49},              // no table there
           {large, large},                        // empty
           {2 * large, large},                    // backwards
           {2 * large, 2 * large + 0x800},        // not whole pages
           {2 * large + 0x800, 2 * large + page},
           {va_end - page, va_end + page},  // beyond the space
       })
    EXPECT_EQ(unmap(begin, end), Errc::invalid_argument) << std::hex << begin << ' ' << end;
  EXPECT_EQ(tables.snapshot(), before);
  tree->validate();
}

TEST_F(PageTableTest, DetachedTablesAreNotReusedBeforeTheInvalidation) {
  ASSERT_EQ(map(0, {run(0, page)}), Errc{});
  auto gone = tree->unmap(range(0, page));
  ASSERT_TRUE(gone.has_value());
  EXPECT_EQ(gone->tables(), 4u);
  EXPECT_EQ(gone->range(), range(0, page));
  EXPECT_EQ(tree->tables(), 1u);
  EXPECT_EQ(tables.pool().tables_in_use(), 5u);
  auto rest = tables.pool().take(59);
  ASSERT_TRUE(rest.has_value());
  EXPECT_EQ(map(0, {run(0, page)}), Errc::no_memory);
  release(std::move(*gone));
  EXPECT_EQ(map(0, {run(0, page)}), Errc{});
  tables.pool().give_back(std::move(*rest));
}

TEST_F(PageTableTest, DetachedWithoutTablesMayBeDropped) {
  ASSERT_EQ(map(0, {run(0, 2 * page)}), Errc{});
  const auto gone = tree->unmap(range(0, page));
  EXPECT_EQ(gone->tables(), 0u);
}

TEST_F(PageTableTest, TranslatesEveryByteLikeTheNaiveWalker) {
  ASSERT_EQ(map(large - page, {run(9 * large - page, large + 2 * page)}, Access::read), Errc{});
  for (std::uint64_t va = large - 2 * page; va < 2 * large + 3 * page; va += 0x3C1) {
    const auto ours = tree->translate(DeviceAddr(va));
    const auto theirs = naive(va);
    ASSERT_EQ(ours.has_value(), theirs.verdict == naive_npu1::Verdict::page) << std::hex << va;
    if (!ours) continue;
    EXPECT_EQ(ours->address.value(), theirs.bus);
    EXPECT_EQ(ours->leaf_size.value(), theirs.page_bytes);
    EXPECT_EQ(ours->remaining.value(), theirs.page_bytes - va % theirs.page_bytes);
    EXPECT_EQ(ours->attributes.access, Access::read);
  }
}

TEST_F(PageTableTest, WalkShowsEachHopUpToTheEntryThatEndsIt) {
  ASSERT_EQ(map(large, {run(0x5000, page)}), Errc{});
  const Walk mapped = tree->walk(DeviceAddr(large + 0x234));
  ASSERT_EQ(mapped.steps().size(), 5u);
  EXPECT_EQ(mapped.steps()[0].table, tree->root());
  for (unsigned hop = 0; hop < 5; ++hop) {
    const WalkStep& step = mapped.steps()[hop];
    EXPECT_EQ(step.hop, hop);
    EXPECT_EQ(step.entry, tables.word(step.table, step.index));
    EXPECT_EQ(step.kind, hop < 4 ? EntryKind::table : EntryKind::leaf);
    if (hop > 0) {
      EXPECT_EQ(step.table.value(), mapped.steps()[hop - 1].entry & ~0xFFFULL);
    }
  }
  const Walk beside = tree->walk(DeviceAddr(large + page));
  ASSERT_EQ(beside.steps().size(), 5u);
  EXPECT_EQ(beside.steps()[4].kind, EntryKind::empty);
  const Walk elsewhere = tree->walk(DeviceAddr(1ULL << 48));
  ASSERT_EQ(elsewhere.steps().size(), 1u);
  EXPECT_EQ(elsewhere.steps()[0].index, 1u);
}

TEST_F(PageTableTest, WalkShowsADamagedEntry) {
  ASSERT_EQ(map(large, {run(0x5000, page)}), Errc{});
  const WalkStep leaf = tree->walk(DeviceAddr(large)).steps()[4];
  tables.plant(leaf.table, leaf.index, 0x5839);
  EXPECT_EQ(tree->walk(DeviceAddr(large)).steps()[4].kind, EntryKind::malformed);
  EXPECT_FALSE(tree->translate(DeviceAddr(large)).has_value());
  tables.plant(leaf.table, leaf.index, leaf.entry);
}

TEST_F(PageTableTest, VisitsLeavesInAscendingOrder) {
  ASSERT_EQ(map(3ULL << 48, {run(0, page)}, Access::write), Errc{});
  ASSERT_EQ(map(large - page, {run(9 * large - page, large + page)}, Access::read), Errc{});
  std::vector<Leaf> leaves;
  tree->for_each_leaf([&leaves](const Leaf& leaf) { leaves.push_back(leaf); });
  const std::vector<Leaf> expected = {
      {DeviceAddr(large - page), BusAddr(9 * large - page), ByteCount(page), Access::read},
      {DeviceAddr(large), BusAddr(9 * large), ByteCount(large), Access::read},
      {DeviceAddr(3ULL << 48), BusAddr(0), ByteCount(page), Access::write},
  };
  EXPECT_EQ(leaves, expected);
}

TEST_F(PageTableTest, DetachAllTakesEveryTableAndLeavesTheRootEmpty) {
  ASSERT_EQ(map(large - page, {run(9 * large - page, large + 2 * page)}), Errc{});
  ASSERT_EQ(map(3ULL << 48, {run(0, page)}), Errc{});
  const std::uint32_t linked = tree->tables();
  const BusAddr root = tree->root();
  auto gone = tree->detach_all();
  EXPECT_EQ(gone.tables(), linked);
  EXPECT_EQ(gone.range(), range(0, va_end));
  EXPECT_EQ(tables.pool().tables_in_use(), linked);
  for (std::uint32_t i = 0; i < table_entries; ++i) ASSERT_EQ(tables.word(root, i), 0u) << i;
  release(std::move(gone));
  EXPECT_EQ(tables.pool().tables_in_use(), 0u);
  tree.reset();
}

TEST_F(PageTableTest, MovedTreeKeepsItsTables) {
  ASSERT_EQ(map(0, {run(0, page)}), Errc{});
  Tree moved(std::move(*tree));
  tree.reset();
  EXPECT_EQ(moved.tables(), 5u);
  EXPECT_TRUE(moved.translate(DeviceAddr(0)).has_value());
  tree.emplace(std::move(moved));
}

TEST(PageTable, ShortageOfTablesAtAnyPointChangesNothing) {
  // A page under one branch of the root; under the next one small leaves, a large one, small ones:
  // the root, four tables, and three with two of hop 4.
  const std::uint64_t va = (1ULL << 48) - page;
  const Runs runs = {run(page, 3 * page), run(9 * large + 2 * page, 2 * large)};
  std::uint32_t needed = 0;
  for (std::uint32_t capacity = 1; needed == 0; ++capacity) {
    ASSERT_LE(capacity, 32u);
    Tables tables(capacity);
    auto tree = PageTable<Npu1, TablePool>::create(tables.pool());
    ASSERT_TRUE(tree.has_value());
    const auto before = tables.snapshot();
    const auto mapped = tree->map(DeviceAddr(va), runs, Access::read_write);
    if (mapped) {
      needed = capacity;
      EXPECT_EQ(tree->tables(), capacity) << "not one table is taken in vain";
    } else {
      EXPECT_EQ(mapped.error().code, Errc::no_memory);
      EXPECT_EQ(tables.snapshot(), before);
      EXPECT_EQ(tables.pool().tables_in_use(), 1u);
      EXPECT_EQ(tree->tables(), 1u);
    }
    tree->validate();
    release(tree->detach_all());
  }
  EXPECT_EQ(needed, 10u);
}

TEST(PageTable, NoTableForTheRootIsNoMemory) {
  Tables tables(1);
  auto first = PageTable<Npu1, TablePool>::create(tables.pool());
  ASSERT_TRUE(first.has_value());
  const auto second = PageTable<Npu1, TablePool>::create(tables.pool());
  EXPECT_EQ(second.error().code, Errc::no_memory);
  release(first->detach_all());
}

TEST(PageTable, TwoTreesShareAPoolButNoTable) {
  Tables tables(16);
  auto a = PageTable<Npu1, TablePool>::create(tables.pool());
  auto b = PageTable<Npu1, TablePool>::create(tables.pool());
  const Runs first{run(page, page)};
  const Runs second{run(2 * page, page)};
  ASSERT_TRUE(a->map(DeviceAddr(0), first, Access::read).has_value());
  ASSERT_TRUE(b->map(DeviceAddr(0), second, Access::write).has_value());
  EXPECT_EQ(a->translate(DeviceAddr(0))->address, BusAddr(page));
  EXPECT_EQ(b->translate(DeviceAddr(0))->address, BusAddr(2 * page));
  release(a->detach_all());
  EXPECT_EQ(b->translate(DeviceAddr(0))->address, BusAddr(2 * page));
  b->validate();
  release(b->detach_all());
}

using PageTableDeathTest = PageTableTest;

TEST_F(PageTableDeathTest, AbortsWhenDetachedTablesAreDropped) {
  ASSERT_EQ(map(0, {run(0, page)}), Errc{});
  EXPECT_DEATH((void)tree->unmap(range(0, page)), "check failed: count == 0");
}

TEST_F(PageTableDeathTest, AbortsWhenTheInvalidationDoesNotCoverTheRange) {
  ASSERT_EQ(map(0, {run(0, 2 * page)}), Errc{});
  EXPECT_DEATH(std::move(*tree->unmap(range(0, 2 * page))).release(invalidated(range(0, page))),
               "check failed: done.covers");
  EXPECT_DEATH(tree->detach_all().release(invalidated(range(0, va_end - page))),
               "check failed: done.covers");
}

TEST_F(PageTableDeathTest, AbortsWhenATreeIsDestroyedWithItsTables) {
  EXPECT_DEATH(tree.reset(), "check failed: .*root_");
}

TEST_F(PageTableDeathTest, ValidateFindsReservedBitsWrongCountsAndEmptyTables) {
  ASSERT_EQ(map(large, {run(0x5000, 2 * page)}), Errc{});
  const Walk walk = tree->walk(DeviceAddr(large));
  const WalkStep leaf = walk.steps()[4];
  const WalkStep link = walk.steps()[3];
  tree->validate();
  const auto die_with = [&](const WalkStep& step, std::uint32_t index, std::uint64_t entry) {
    const std::uint64_t good = tables.word(step.table, index);
    tables.plant(step.table, index, entry);
    EXPECT_DEATH(tree->validate(), "check failed");
    tables.plant(step.table, index, good);
  };
  die_with(leaf, leaf.index, leaf.entry | 0x20);   // a reserved bit
  die_with(leaf, leaf.index, leaf.entry & ~1ULL);  // not PRESENT
  die_with(leaf, leaf.index, 0);                   // an entry too few
  die_with(leaf, leaf.index + 2, leaf.entry);      // one too many
  die_with(link, link.index + 1, link.entry);      // a table linked twice
  die_with(walk.steps()[0], 4, link.entry);        // an entry beyond the four of the root
  tree->validate();
}

}  // namespace
}  // namespace accelmm::mmu
