// SPDX-License-Identifier: Apache-2.0
#include "unit/mmu/tables_fixture.hpp"

#include <accelmm/mmu/table_pool.hpp>

#include <cstdint>
#include <cstring>
#include <set>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <sched.h>

namespace accelmm::mmu {
namespace {

using test::table_bytes;
using test::table_entries;
using test::Tables;

void return_all(TablePool& pool, std::vector<Table> tables) {
  TableList list;
  for (const Table& table : tables) pool.push(list, table, Contents::zero);
  pool.give_back(std::move(list));
}

std::vector<Table> take_all(TablePool& pool, std::uint32_t count) {
  auto list = pool.take(count);
  std::vector<Table> tables;
  while (list->count > 0) tables.push_back(pool.pop(*list));
  return tables;
}

TEST(TablePool, GivesOutEachTableOnceUntilNoneIsLeft) {
  Tables tables(5);
  const auto taken = take_all(tables.pool(), 5);
  std::set<std::uint64_t> addresses;
  for (const Table& table : taken) {
    addresses.insert(table.address.value());
    EXPECT_EQ(table.words, tables.at(table.address));
  }
  EXPECT_EQ(addresses.size(), 5u);
  EXPECT_EQ(*addresses.begin(), Tables::bus_begin);
  EXPECT_EQ(*addresses.rbegin(), Tables::bus_begin + 4 * 4096);
  EXPECT_EQ(tables.pool().tables_in_use(), 5u);
  EXPECT_EQ(tables.pool().take(1).error().code, Errc::no_memory);
  return_all(tables.pool(), taken);
  EXPECT_EQ(tables.pool().tables_in_use(), 0u);
  tables.pool().validate();
}

TEST(TablePool, TakesNothingWhenFewerAreFreeThanWanted) {
  Tables tables(4);
  const auto taken = take_all(tables.pool(), 2);
  EXPECT_EQ(tables.pool().take(3).error().code, Errc::no_memory);
  EXPECT_EQ(tables.pool().tables_in_use(), 2u);
  tables.pool().validate();
  return_all(tables.pool(), take_all(tables.pool(), 2));
  return_all(tables.pool(), taken);
}

TEST(TablePool, TakingNoneWorksOnAnEmptyPool) {
  Tables tables(1);
  const auto taken = take_all(tables.pool(), 1);
  auto none = tables.pool().take(0);
  ASSERT_TRUE(none.has_value());
  EXPECT_EQ(none->count, 0u);
  return_all(tables.pool(), taken);
}

TEST(TablePool, CountsHeldTablesAsInUse) {
  Tables tables(3);
  auto held = tables.pool().take(2);
  ASSERT_TRUE(held.has_value());
  EXPECT_EQ(tables.pool().tables_in_use(), 2u);
  tables.pool().give_back(std::move(*held));
  EXPECT_EQ(tables.pool().tables_in_use(), 0u);
}

TEST(TablePool, HandsOutTheTableGivenBackLastFirst) {
  Tables tables(8);
  const auto taken = take_all(tables.pool(), 3);
  return_all(tables.pool(), {taken[1]});
  const auto again = take_all(tables.pool(), 1);
  EXPECT_EQ(again[0].address, taken[1].address);
  return_all(tables.pool(), {taken[0], again[0], taken[2]});
}

// --- homes ---

// Moves this thread to each processor in turn.
template <class Body>
void on_each_processor(Body body) {
  cpu_set_t allowed;
  ASSERT_EQ(0, sched_getaffinity(0, sizeof allowed, &allowed));
  for (unsigned i = 0; i < CPU_SETSIZE; ++i) {
    if (!CPU_ISSET(i, &allowed)) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(i, &one);
    ASSERT_EQ(0, sched_setaffinity(0, sizeof one, &one));
    body();
  }
  ASSERT_EQ(0, sched_setaffinity(0, sizeof allowed, &allowed));
}

TEST(TablePool, ManyTablesGoToAnyProcessorWhosoeverTheyAre) {
  Tables tables(1000);
  on_each_processor([&] {
    auto most = take_all(tables.pool(), 999);
    std::set<std::uint64_t> addresses;
    for (const Table& table : most) addresses.insert(table.address.value());
    EXPECT_EQ(addresses.size(), 999u);
    EXPECT_EQ(tables.pool().tables_in_use(), 999u);
    return_all(tables.pool(), most);
    tables.pool().validate();
  });
}

TEST(TablePool, WhoFindsTooFewInAllHomesLeavesThemWhereTheyWere) {
  Tables tables(1000);
  const auto held = take_all(tables.pool(), 300);
  on_each_processor([&] {
    EXPECT_EQ(tables.pool().take(701).error().code, Errc::no_memory);
    EXPECT_EQ(tables.pool().tables_in_use(), 300u);
    tables.pool().validate();
  });
  return_all(tables.pool(), take_all(tables.pool(), 700));
  return_all(tables.pool(), held);
  tables.pool().validate();
}

TEST(TablePool, ATableGoesHomeWhoeverGivesItBack) {
  Tables tables(1000);
  std::vector<std::uint64_t> first_taken;
  const auto first_of_here = [&] {
    const auto one = take_all(tables.pool(), 1);
    first_taken.push_back(one[0].address.value());
    return_all(tables.pool(), one);
  };
  on_each_processor(first_of_here);
  const auto before = std::exchange(first_taken, {});
  return_all(tables.pool(), take_all(tables.pool(), 1000));  // by this processor, all of them
  on_each_processor(first_of_here);
  for (std::size_t i = 0; i < before.size(); ++i)
    for (std::size_t j = 0; j < before.size(); ++j)
      if (i != j && before[i] != before[j]) {
        EXPECT_NE(first_taken[i], first_taken[j]) << "two processors share a home";
      }
  tables.pool().validate();
}

TEST(TablePool, FillStoresASequenceAndTouchesNothingElse) {
  Tables tables(1);
  const auto taken = take_all(tables.pool(), 1);
  std::vector<std::uint64_t> words(table_entries);
  for (const Reach reach : {Reach::hidden, Reach::live})
    for (std::uint32_t first : {0u, 1u, 3u, 8u, 500u, 511u})
      for (std::uint32_t count : {0u, 1u, 7u, 8u, 9u, 12u, 64u, 255u, 511u, 512u}) {
        if (count > table_entries - first) continue;
        tables.pool().fill(taken[0], first, count, std::uint64_t{0x1000'0000'0819},
                           std::uint64_t{0x1000}, reach);
        std::memcpy(words.data(), taken[0].words, table_bytes);
        for (std::uint32_t i = 0; i < table_entries; ++i) {
          const bool inside = first <= i && i < first + count;
          const std::uint64_t expected = inside ? 0x1000'0000'0819 + (i - first) * 0x1000ULL : 0;
          ASSERT_EQ(words[i], expected) << "first " << first << " count " << count << " at " << i;
        }
        tables.pool().clear<std::uint64_t>(taken[0], first, count, reach);
      }
  return_all(tables.pool(), taken);
  tables.pool().validate();
}

TEST(TablePool, RefusesRangesThatAreNotWholeTables) {
  alignas(4096) static std::byte memory[2 * 4096];
  const auto code = [](std::uint64_t begin, std::uint64_t size, std::byte* view) {
    const auto pool = TablePool::create({BusAddr(begin), ByteCount(size), view});
    return pool ? Errc{} : pool.error().code;
  };
  EXPECT_EQ(code(0x1000, 0x1000, memory), Errc{});
  EXPECT_EQ(code(0x1008, 0x1000, memory), Errc::invalid_argument);
  EXPECT_EQ(code(0x1000, 0, memory), Errc::invalid_argument);
  EXPECT_EQ(code(0x1000, 0x1008, memory), Errc::invalid_argument);
  EXPECT_EQ(code(0x1000, 0x1000, nullptr), Errc::invalid_argument);
  EXPECT_EQ(code(0x1000, 0x1000, memory + 8), Errc::invalid_argument);
  EXPECT_EQ(code(~0xFFFULL, 0x2000, memory), Errc::overflow);
  EXPECT_EQ(code(0, 0xFFFF'FFFFULL * 4096, memory), Errc::overflow);
}

TEST(TablePoolDeathTest, AbortsWhenAChainOfTablesIsDropped) {
  Tables tables(1);
  EXPECT_DEATH({ const auto dropped = tables.pool().take(1); }, "check failed: count == 0");
}

TEST(TablePool, ATableDiesWithItsLastLiveWordAndCannotBeJoinedAfterwards) {
  Tables tables(1);
  TablePool& pool = tables.pool();
  const auto taken = take_all(pool, 1);
  pool.begin_count(taken[0], 2);
  EXPECT_TRUE(pool.join(taken[0], 3));
  EXPECT_EQ(pool.live(taken[0]), 5u);
  EXPECT_FALSE(pool.retire(taken[0], 4)) << "it has another number of live words";
  EXPECT_FALSE(pool.leave(taken[0], 4));
  EXPECT_TRUE(pool.leave(taken[0], 1));
  EXPECT_FALSE(pool.join(taken[0], 1));
  return_all(pool, taken);
}

TEST(TablePool, ATableOfExactlySoManyLiveWordsCanBeRetired) {
  Tables tables(1);
  const auto taken = take_all(tables.pool(), 1);
  tables.pool().begin_count(taken[0], 512);
  EXPECT_TRUE(tables.pool().retire(taken[0], 512));
  EXPECT_FALSE(tables.pool().join(taken[0], 1));
  return_all(tables.pool(), taken);
}

TEST(TablePoolDeathTest, AbortsWhenMoreLiveWordsLeaveThanAreThere) {
  Tables tables(1);
  const auto taken = take_all(tables.pool(), 1);
  tables.pool().begin_count(taken[0], 2);
  EXPECT_DEATH((void)tables.pool().leave(taken[0], 3), "check failed: .*seen >= count");
  return_all(tables.pool(), taken);
}

TEST(TablePoolDeathTest, AbortsWhenATableIsDetachedTwice) {
  Tables tables(2);
  const auto taken = take_all(tables.pool(), 1);
  EXPECT_DEATH(return_all(tables.pool(), {taken[0], taken[0]}), "check failed: .*State::linked");
  return_all(tables.pool(), taken);
}

TEST(TablePoolDeathTest, AbortsOnALinkThatNamesNoTableOfThePool) {
  Tables tables(2);
  const auto taken = take_all(tables.pool(), 1);
  EXPECT_EQ(tables.pool().at(taken[0].address).slot, taken[0].slot);
  const BusAddr begin(Tables::bus_begin);
  EXPECT_DEATH((void)tables.pool().at(begin - ByteCount(4096)), "check failed: .*offset");
  EXPECT_DEATH((void)tables.pool().at(begin + ByteCount(8)), "check failed: .*offset");
  EXPECT_DEATH((void)tables.pool().at(begin + ByteCount(2 * 4096)), "check failed: .*offset");
  return_all(tables.pool(), taken);
}

TEST(TablePool, AStaleTableKeepsItsWordsAndSaysSoWhenItIsTakenAgain) {
  Tables tables(1);
  const auto taken = take_all(tables.pool(), 1);
  tables.plant(taken[0].address, 7, 0x1819);
  TableList list;
  tables.pool().push(list, taken[0], Contents::stale);
  tables.pool().give_back(std::move(list));
  tables.pool().validate();
  const auto again = take_all(tables.pool(), 1);
  EXPECT_EQ(again[0].contents, Contents::stale);
  EXPECT_EQ(tables.word(again[0].address, 7), 0x1819u);
  tables.plant(taken[0].address, 7, 0);
  return_all(tables.pool(), again);
}

TEST(TablePoolDeathTest, ValidateFindsAFreeTableThatIsNotZero) {
  Tables tables(2);
  const auto taken = take_all(tables.pool(), 1);
  return_all(tables.pool(), taken);
  tables.pool().validate();
  tables.plant(taken[0].address, 511, 1);
  EXPECT_DEATH(tables.pool().validate(), "check failed: .*is_zero");
}

}  // namespace
}  // namespace accelmm::mmu
