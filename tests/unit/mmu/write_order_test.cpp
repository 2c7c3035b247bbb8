// SPDX-License-Identifier: Apache-2.0
//
// What a device sees while the CPU writes: each store in its order, and a second thread that walks
// all the time.
#include "unit/mmu/naive_npu1_walker.hpp"
#include "unit/mmu/recording_memory.hpp"
#include "unit/mmu/tables_fixture.hpp"

#include <accelmm/mmu/npu1.hpp>
#include <accelmm/mmu/page_table.hpp>

#include <atomic>
#include <cstdint>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::mmu {
namespace {

using test::RecordingMemory;
using test::release;
using test::run;
using test::Runs;
using test::table_entries;
using test::Tables;
using Store = RecordingMemory::Store;

constexpr std::uint64_t page = 0x1000;
constexpr std::uint64_t large = 0x20'0000;

class WriteOrderTest : public ::testing::Test {
 protected:
  using Tree = PageTable<Npu1, RecordingMemory>;

  ~WriteOrderTest() override { release(tree.detach_all()); }

  void map(std::uint64_t va, const Runs& runs) {
    memory.stores.clear();
    ASSERT_TRUE(tree.map(DeviceAddr(va), runs, Access::read_write).has_value());
  }

  // The tables that the device reaches before the recorded stores.
  std::set<std::uint64_t> reachable() {
    std::set<std::uint64_t> found;
    collect(tree.root().value(), 0, found);
    return found;
  }

  Tables tables{64};
  RecordingMemory memory{tables.pool()};
  Tree tree{std::move(*Tree::create(memory))};

 private:
  void collect(std::uint64_t table, int hop, std::set<std::uint64_t>& found) {
    found.insert(table);
    for (std::uint32_t i = 0; hop < 4 && i < table_entries; ++i) {
      const std::uint64_t entry = tables.word(BusAddr(table), i);
      if (entry % 4096 == 1) collect(entry - 1, hop + 1, found);
    }
  }
};

// A table is complete when it is linked: no store of the same map goes to it, or below it,
// afterwards.
void expect_leaves_before_links(const std::vector<Store>& stores,
                                const std::set<std::uint64_t>& live_before) {
  std::set<std::uint64_t> linked;
  for (const Store& store : stores) {
    EXPECT_FALSE(linked.contains(store.table)) << "a store into a table that was linked before it";
    EXPECT_NE(store.kind, Store::Kind::clear);
    if (store.kind == Store::Kind::link) linked.insert(store.entry - 1);
    if (store.kind == Store::Kind::fill) {
      EXPECT_EQ(store.reach, live_before.contains(store.table) ? Reach::live : Reach::hidden);
    }
  }
}

TEST_F(WriteOrderTest, MapStoresLeavesBeforeTheLinksOfNewTablesDeepestFirst) {
  const auto before = reachable();
  map((1ULL << 48) - 2 * page, {run(page, 4 * page)});
  expect_leaves_before_links(memory.stores, before);
  // Two branches, each a fill and four links, from hop 3's link to hop 0's.
  ASSERT_EQ(memory.stores.size(), 10u);
  for (const std::size_t branch : {0u, 5u}) {
    const std::uint64_t leaf_table = memory.stores[branch].table;
    EXPECT_EQ(memory.stores[branch].kind, Store::Kind::fill);
    EXPECT_EQ(memory.stores[branch].count, 2u);
    std::uint64_t child = leaf_table;
    for (std::size_t i = branch + 1; i < branch + 5; ++i) {
      EXPECT_EQ(memory.stores[i].kind, Store::Kind::link);
      EXPECT_EQ(memory.stores[i].entry, child | 1);
      child = memory.stores[i].table;
    }
    EXPECT_EQ(child, tree.root().value());
  }
}

TEST_F(WriteOrderTest, MapIntoExistingTablesWritesThemWordByWord) {
  map(0, {run(page, page)});
  const auto before = reachable();
  map(page, {run(7 * page, 3 * page)});
  ASSERT_EQ(memory.stores.size(), 1u);
  expect_leaves_before_links(memory.stores, before);
}

TEST_F(WriteOrderTest, MapOfManyRunsFillsEachTableOnceAndLinksItOnce) {
  map(2 * large, {run(page, page)});
  const auto before = reachable();
  Runs runs;
  for (std::uint64_t i = 0; i < 600; ++i) runs.push_back(run((1000 + 2 * i) * page, page));
  runs.push_back(run(8 * large, 2 * large));
  map((1ULL << 39) - 700 * page, runs);
  expect_leaves_before_links(memory.stores, before);
  std::set<std::uint64_t> links;
  for (const Store& store : memory.stores)
    if (store.kind == Store::Kind::link) {
      EXPECT_TRUE(links.insert(store.entry).second) << "a table linked twice";
    }
}

TEST_F(WriteOrderTest, OneStorePerRangeOfATable) {
  map(0, {run(large + page, 3 * large)});
  std::size_t fills = 0;
  for (const Store& store : memory.stores) fills += store.kind == Store::Kind::fill ? 1 : 0;
  EXPECT_EQ(fills, 3u) << "512 leaves each, one call each";
}

TEST_F(WriteOrderTest, RefusedMapStoresNothing) {
  map(large, {run(page, page)});
  memory.stores.clear();
  const Runs runs{run(page, large + page)};
  EXPECT_FALSE(tree.map(DeviceAddr(0), runs, Access::read).has_value());
  EXPECT_TRUE(memory.stores.empty());
}

TEST_F(WriteOrderTest, UnmapClearsLeavesBeforeTheLinksOfEmptyTables) {
  map((1ULL << 48) - page, {run(page, 2 * page)});
  memory.stores.clear();
  auto gone = tree.unmap({DeviceAddr((1ULL << 48) - page), DeviceAddr((1ULL << 48) + page)});
  ASSERT_TRUE(gone.has_value());
  ASSERT_EQ(memory.stores.size(), 10u);
  std::set<std::uint64_t> cleared;
  for (const Store& store : memory.stores) {
    EXPECT_EQ(store.kind, Store::Kind::clear);
    cleared.insert(store.table);
  }
  EXPECT_EQ(memory.stores[4].table, tree.root().value()) << "the root's link goes last";
  EXPECT_EQ(memory.stores[9].table, tree.root().value());
  EXPECT_EQ(cleared.size(), 9u);
  release(std::move(*gone));
}

// A device that never stops: it may see an address mapped or not mapped while that changes, but
// nothing else, ever. Tables return only when it began a new walk after the unmap, which is what an
// invalidation is to a walker with no TLB.
TEST(ConcurrentWalk, ADeviceSeesEachAddressMappedRightOrNotAtAll) {
  Tables tables(64);
  auto tree = PageTable<Npu1, TablePool>::create(tables.pool());
  const std::uint64_t root = tree->root().value();
  const naive_npu1::TableBytes bytes{tables.bytes(), Tables::bus_begin, tables.size()};
  const std::uint64_t va = (1ULL << 30) - 300 * page;
  const std::uint64_t length = large + 600 * page;
  constexpr std::uint64_t bus = 5 * large - 300 * page;  // congruent: small, large and small leaves
  std::atomic<std::uint64_t> walks{0};
  std::atomic<bool> stop{false};
  std::uint64_t wrong = 0;
  std::uint64_t mapped = 0;
  std::thread device([&] {
    for (std::uint64_t at = 0; !stop; at = (at + 37 * page) % length) {
      const auto answer = naive_npu1::walk(bytes, root, va + at);
      if (answer.verdict == naive_npu1::Verdict::corrupt) ++wrong;
      if (answer.verdict == naive_npu1::Verdict::page) {
        ++mapped;
        if (answer.bus != bus + at) ++wrong;
      }
      walks.fetch_add(1, std::memory_order_release);
    }
  });
  const auto wait_for_new_walks = [&walks](std::uint64_t count) {
    const std::uint64_t from = walks.load(std::memory_order_acquire);
    while (walks.load(std::memory_order_acquire) < from + count) std::this_thread::yield();
  };
  const Runs runs{run(bus, length)};
  for (int round = 0; round < 50; ++round) {
    ASSERT_TRUE(tree->map(DeviceAddr(va), runs, Access::read_write).has_value());
    wait_for_new_walks(10);
    auto gone = tree->unmap({DeviceAddr(va), DeviceAddr(va + length)});
    wait_for_new_walks(2);  // the one that was under way, and one that began after it
    release(std::move(*gone));
  }
  stop = true;
  device.join();
  EXPECT_EQ(wrong, 0u);
  EXPECT_GT(mapped, 0u);
  release(tree->detach_all());
}

}  // namespace
}  // namespace accelmm::mmu
