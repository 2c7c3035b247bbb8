// SPDX-License-Identifier: Apache-2.0
#include "unit/mm/device_heap_fixture.hpp"

#include <cstdio>
#include <random>
#include <vector>

namespace accelmm::test {
namespace {

using Goal = DeviceHeap::Goal;

TEST_F(DeviceHeapTest, AMoveHoldsBothPlacesUntilItEnds) {
  make();
  const OwnerId me = owner();
  const auto got = take(me, native);
  const DeviceHeap::Move move{got.id, got.extent, {RegionOffset(32 << 20), native}};
  ASSERT_TRUE(heap->begin_move(move));
  EXPECT_EQ(60_MiB, heap->statistics().free);
  EXPECT_EQ(native, heap->statistics().moving);
  EXPECT_EQ(native, device->used());  // the driver's second place is not the owner's
  EXPECT_EQ(Errc::busy, code(heap->free(me, got.id)));
  EXPECT_EQ(Errc::busy, code(heap->free(me, got.extent)));
  EXPECT_EQ(Errc::busy, code(heap->free_after(me, got.id, 1)));
  EXPECT_EQ(Errc::busy, code(heap->pin(got.id)));
  EXPECT_EQ(Errc::invalid_argument, code(heap->begin_move(move)));
  heap->validate();
  ASSERT_TRUE(heap->commit_move(move));
  EXPECT_EQ(Errc::invalid_argument, code(heap->commit_move(move)));
  EXPECT_EQ(move.to, heap->extents(got.id)->front());
  EXPECT_EQ(62_MiB, heap->statistics().free);
  heap->validate();
  const DeviceHeap::Move back{got.id, move.to, move.from};
  ASSERT_TRUE(heap->begin_move(back));
  ASSERT_TRUE(heap->abort_move(back));
  EXPECT_EQ(Errc::invalid_argument, code(heap->abort_move(back)));
  EXPECT_EQ(move.to, heap->extents(got.id)->front());
  ASSERT_TRUE(heap->free(me, move.to));
  EXPECT_EQ(64_MiB, heap->statistics().free);
}

TEST_F(DeviceHeapTest, MovesToWhereTheAllocationMayNotLieAreRefused) {
  make();
  const OwnerId me = owner();
  const Range<RegionOffset> bank{RegionOffset(0), RegionOffset(16 << 20)};
  const auto got =
      heap->allocate(me, {.size = native, .alignment = Alignment(4 << 20), .within = bank}).value();
  const auto blocker = take(me, native);
  const auto attempt = [&](std::uint64_t to, ByteCount length) {
    return code(heap->begin_move({got.id, got.extent, {RegionOffset(to), length}}));
  };
  const auto before = heap->statistics();
  EXPECT_EQ(Errc::invalid_argument, attempt(6 << 20, native));   // alignment
  EXPECT_EQ(Errc::invalid_argument, attempt(16 << 20, native));  // outside its range
  EXPECT_EQ(Errc::invalid_argument, attempt(8 << 20, 4_MiB));    // another length
  EXPECT_EQ(Errc::invalid_argument, attempt(64 << 20, native));  // outside the heap
  EXPECT_EQ(Errc::invalid_argument, attempt(~std::uint64_t{0}, native));
  EXPECT_EQ(
      Errc::invalid_argument,
      code(heap->begin_move({AllocationId{999}, got.extent, {RegionOffset(8 << 20), native}})));
  EXPECT_EQ(Errc::address_in_use, code(heap->begin_move({blocker.id, blocker.extent, got.extent})));
  ASSERT_TRUE(heap->pin(got.id));
  EXPECT_EQ(Errc::invalid_argument, attempt(8 << 20, native));
  ASSERT_TRUE(heap->unpin(got.id));
  EXPECT_EQ(Errc::invalid_argument, code(heap->unpin(got.id)));
  EXPECT_EQ(before, heap->statistics());
  EXPECT_EQ(Errc{}, attempt(8 << 20, native));
}

TEST_F(DeviceHeapTest, SmallPiecesNeverMoveIntoAnothersPage) {
  make();
  const OwnerId me = owner();
  const OwnerId other = owner();
  const auto mine = take(me, 4_KiB);
  const auto theirs = take(other, 4_KiB);
  const Extent beside{theirs.extent.offset + 4_KiB, 4_KiB};
  EXPECT_EQ(Errc::invalid_argument, code(heap->begin_move({mine.id, mine.extent, beside})));
  EXPECT_EQ(Errc::invalid_argument,
            code(heap->begin_move({mine.id, mine.extent, {RegionOffset(0), 4_KiB}})));
  heap->validate();
}

TEST_F(DeviceHeapTest, APlanMakesARunWithinItsBudgetAndAroundWhatIsPinned) {
  make();
  const OwnerId me = owner();
  std::vector<DeviceHeap::Allocated> pages;
  for (int i = 0; i < 32; ++i)
    pages.push_back(
        heap->allocate(me, {.size = native, .placement = Placement::bottom_up}).value());
  // Left: pages 0, 4, 8, ... and one pinned more.
  for (std::size_t i = 0; i < 32; ++i)
    if (i % 4 != 0 && i != 18) {
      ASSERT_TRUE(heap->free(me, pages[i].id));
    }
  ASSERT_TRUE(heap->pin(pages[18].id));
  const Goal goal{.kind = Goal::Kind::run, .size = 16_MiB};
  EXPECT_EQ(0U, heap->plan_moves(ByteCount(0), goal)->size());
  EXPECT_EQ(0U, heap->plan_moves(native, goal)->size());
  const auto plan = heap->plan_moves(4_MiB, goal).value();
  ASSERT_EQ(2U, plan.size());
  for (const auto& move : plan) {
    EXPECT_NE(pages[18].id, move.allocation);
    ASSERT_TRUE(heap->begin_move(move));
  }
  for (const auto& move : plan) ASSERT_TRUE(heap->commit_move(move));
  EXPECT_EQ(16_MiB, take(me, 16_MiB).extent.length);
  EXPECT_EQ(0U, heap->plan_moves(64_MiB, {.size = ByteCount(0)})->size());
  EXPECT_EQ(0U, heap->plan_moves(64_MiB, {.size = 63_MiB})->size());
  heap->validate();
}

// What a driver with a budget gets: whole native pages for the bytes that it copies.
TEST_F(DeviceHeapTest, EmptyingPagesGainsMoreThanItMoves) {
  make({.size = 512_MiB, .native_page = native});
  const std::vector<OwnerId> owners{owner(), owner(), owner()};
  std::mt19937_64 random(11);
  std::vector<std::pair<OwnerId, AllocationId>> live;
  for (int i = 0; i < 12'000; ++i) {
    const OwnerId me = owners[random() % owners.size()];
    live.emplace_back(me, take(me, ByteCount(std::uint64_t{4096} << (random() % 4))).id);
  }
  for (const auto& [me, id] : live)
    if (random() % 100 < 85) {
      ASSERT_TRUE(heap->free(me, id));
    }
  const ByteCount held = heap->statistics().held;
  ByteCount moved;
  for (int round = 0; round < 40; ++round) {
    const auto plan = heap->plan_moves(4_MiB, {.kind = Goal::Kind::pages, .size = {}}).value();
    if (plan.empty()) break;
    ByteCount bytes;
    for (const auto& move : plan) {
      bytes += move.from.length;
      ASSERT_TRUE(heap->begin_move(move));
    }
    EXPECT_LE(bytes, 4_MiB);
    for (const auto& move : plan) ASSERT_TRUE(heap->commit_move(move));
    moved += bytes;
  }
  heap->validate();
  const ByteCount gained = held - heap->statistics().held;
  std::printf("held %llu MiB before, gained %llu MiB by moving %llu MiB\n",
              static_cast<unsigned long long>(held.value() >> 20),
              static_cast<unsigned long long>(gained.value() >> 20),
              static_cast<unsigned long long>(moved.value() >> 20));
  EXPECT_GE(gained.value(), 2 * moved.value());
  EXPECT_GE(gained.value(), held.value() / 2);
}

TEST_F(DeviceHeapTest, ARunOfManyPagesIsRegainedAfterChurn) {
  make({.size = 512_MiB, .native_page = native});
  const OwnerId me = owner();
  std::mt19937_64 random(5);
  std::vector<AllocationId> live;
  for (int i = 0; i < 20'000; ++i) {
    if (heap->statistics().held < 440_MiB && random() % 8 != 0) {
      const auto got = heap->allocate(me, {.size = ByteCount(native.value() * (1 + random() % 3))});
      if (got) live.push_back(got->id);
    } else if (!live.empty()) {
      std::swap(live[random() % live.size()], live.back());
      ASSERT_TRUE(heap->free(me, live.back()));
      live.pop_back();
    }
  }
  const ByteCount wanted = 32_MiB;
  const auto shortage = heap->explain(me, {.size = wanted});
  if (shortage.largest_free >= wanted) GTEST_FAIL() << "churn left a run: the test tests nothing";
  const auto plan = heap->plan_moves(512_MiB, {.size = wanted}).value();
  ByteCount moved;
  for (const auto& move : plan) {
    moved += move.from.length;
    ASSERT_TRUE(heap->begin_move(move));
  }
  heap->validate();
  for (const auto& move : plan) ASSERT_TRUE(heap->commit_move(move));
  EXPECT_GE(moved, shortage.moves_to_make);
  std::printf("a run of %llu MiB for %llu MiB moved, %llu MiB foretold\n",
              static_cast<unsigned long long>(wanted.value() >> 20),
              static_cast<unsigned long long>(moved.value() >> 20),
              static_cast<unsigned long long>(shortage.moves_to_make.value() >> 20));
  EXPECT_EQ(wanted, take(me, wanted).extent.length);
  heap->validate();
}

}  // namespace
}  // namespace accelmm::test
