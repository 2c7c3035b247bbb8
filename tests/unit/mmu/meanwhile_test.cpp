// SPDX-License-Identifier: Apache-2.0
//
// What another thread does to the tables of a map at the worst moment, made certain: the memory lets
// it run just before one of the map's steps.
#include "unit/mmu/forwarding_memory.hpp"
#include "unit/mmu/naive_npu1_walker.hpp"
#include "unit/mmu/tables_fixture.hpp"

#include <accelmm/mmu/npu1.hpp>
#include <accelmm/mmu/page_table.hpp>

#include <cstdint>
#include <functional>
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
constexpr std::uint64_t giant = 0x4000'0000;

/// A pool that calls `meanwhile` once, before the step that it names.
class InterruptedPool : public test::ForwardingMemory {
 public:
  enum class Step { none, take, join, link, leave };

  using ForwardingMemory::ForwardingMemory;

  void interrupt(Step step, std::function<void()> meanwhile) {
    step_ = step;
    meanwhile_ = std::move(meanwhile);
  }
  [[nodiscard]] bool was_interrupted() const { return step_ == Step::none; }

  Result<TableList> take(std::uint32_t count) {
    pass(Step::take);
    return ForwardingMemory::take(count);
  }
  bool join(Table table, std::uint32_t count) {
    pass(Step::join);
    return ForwardingMemory::join(table, count);
  }
  bool leave(Table table, std::uint32_t count) {
    pass(Step::leave);
    return ForwardingMemory::leave(table, count);
  }
  template <class Word>
  bool link(Table table, std::uint32_t index, Word entry) {
    pass(Step::link);
    return ForwardingMemory::link(table, index, entry);
  }

 private:
  void pass(Step step) {
    if (step_ != step) return;
    step_ = Step::none;
    meanwhile_();
  }

  Step step_ = Step::none;
  std::function<void()> meanwhile_;
};
static_assert(TableMemory<InterruptedPool>);

class MeanwhileTest : public ::testing::Test {
 protected:
  using Step = InterruptedPool::Step;

  ~MeanwhileTest() override {
    EXPECT_TRUE(memory.was_interrupted());
    tree.validate();
    for (auto& one : gone) release(std::move(one));
    EXPECT_EQ(tables.pool().tables_in_use(), tree.tables());
    release(tree.detach_all());
    EXPECT_EQ(tables.pool().tables_in_use(), 0u);
    tables.pool().validate();
  }

  static std::uint64_t bus_of(std::uint64_t va) { return va + 5 * page; }
  void map(std::uint64_t va, std::uint64_t length) {
    ASSERT_TRUE(tree.map(DeviceAddr(va), Runs{run(bus_of(va), length)}, {}).has_value());
  }
  void map_prepared(std::uint64_t va, std::uint64_t length) {
    auto prepared = tree.prepare(range(va, va + length), {});
    ASSERT_TRUE(prepared.has_value());
    tree.commit(std::move(*prepared), Runs{run(bus_of(va), length)});
  }
  void unmap(std::uint64_t va, std::uint64_t length) {
    auto removed = tree.unmap(range(va, va + length));
    ASSERT_TRUE(removed.has_value());
    gone.push_back(std::move(*removed));  // the operation that is interrupted has not ended
  }
  void expect_mapped(std::uint64_t va, std::uint64_t length) {
    for (std::uint64_t at = va; at < va + length; at += page)
      EXPECT_EQ(naive_npu1::walk({tables.bytes(), Tables::bus_begin, tables.size()},
                                 tree.root().value(), at)
                    .bus,
                bus_of(at));
  }

  Tables tables{64};
  InterruptedPool memory{tables.pool()};
  PageTable<Npu1, InterruptedPool> tree{
      std::move(*PageTable<Npu1, InterruptedPool>::create(memory))};
  std::vector<Detached<InterruptedPool>> gone;
};

// The map begins where tables begin and ends inside of them: the rest of them is somebody else's, and
// all of them may die after they were counted.
TEST_F(MeanwhileTest, EveryTableThatWasCountedAsThereDiesBeforeTheMapIsWritten) {
  map(giant + 100 * large, page);
  memory.interrupt(Step::take, [&] { unmap(giant + 100 * large, page); });
  map(giant, 600 * page);
  expect_mapped(giant, 600 * page);
}

TEST_F(MeanwhileTest, ThePreparedMapFindsNoneOfTheTablesThatWereThere) {
  map(giant + 100 * large, page);
  auto prepared = tree.prepare(range(giant, giant + 600 * page), {});
  ASSERT_TRUE(prepared.has_value());
  unmap(giant + 100 * large, page);
  tree.commit(std::move(*prepared), Runs{run(bus_of(giant), 600 * page)});
  expect_mapped(giant, 600 * page);
  memory.interrupt(Step::none, {});
}

TEST_F(MeanwhileTest, TheTableDiesBeforeTheMapJoinsIt) {
  map(giant, page);
  memory.interrupt(Step::join, [&] { unmap(giant, page); });
  map(giant + page, page);
  expect_mapped(giant + page, page);
}

TEST_F(MeanwhileTest, TheTablesDieBeforeALongMapJoinsThem) {
  map(giant - page, 2 * page);
  memory.interrupt(Step::join, [&] { unmap(giant - page, 2 * page); });
  map(giant + page, 700 * page);
  expect_mapped(giant + page, 700 * page);
}

TEST_F(MeanwhileTest, AnotherLinksTheSameTableFirst) {
  map(giant + 9 * large, page);
  memory.interrupt(Step::link, [&] { map(giant, page); });
  map(giant + page, 2 * page);
  expect_mapped(giant, 3 * page);
}

TEST_F(MeanwhileTest, AnotherLinksTheSameSubtreeFirst) {
  memory.interrupt(Step::link, [&] { map(giant - page, page); });
  map(giant, 700 * page);
  expect_mapped(giant - page, 701 * page);
}

TEST_F(MeanwhileTest, AnotherLinksTheSameSubtreeBeforeACommit) {
  memory.interrupt(Step::link, [&] { map_prepared(giant + 700 * page, page); });
  map_prepared(giant - 3 * page, 703 * page);
  expect_mapped(giant - 3 * page, 704 * page);
}

TEST_F(MeanwhileTest, AnotherLinksTheSameTableFirstAndTakesItAwayAgain) {
  memory.interrupt(Step::link, [&] {
    map(giant, page);
    memory.interrupt(Step::join, [&] { unmap(giant, page); });
  });
  map(giant + page, 700 * page);
  expect_mapped(giant + page, 700 * page);
}

TEST_F(MeanwhileTest, ATableIsJoinedWhileTheLastWordIsTakenAway) {
  map(giant, page);
  memory.interrupt(Step::leave, [&] { map(giant + page, page); });
  unmap(giant, page);
  expect_mapped(giant + page, page);
  EXPECT_EQ(gone.back().tables(), 0u);
}

}  // namespace
}  // namespace accelmm::mmu
