// SPDX-License-Identifier: Apache-2.0
#include "unit/mm/device_heap_fixture.hpp"

#include <optional>

namespace accelmm::test {
namespace {

TEST_F(DeviceHeapTest, RefusesSizesAndPagesThatDoNotFit) {
  EXPECT_EQ(Errc::invalid_argument,
            code(DeviceHeap::create({.size = 64_MiB, .native_page = ByteCount(0)})));
  EXPECT_EQ(Errc::invalid_argument,
            code(DeviceHeap::create({.size = 64_MiB, .native_page = ByteCount(6000)})));
  EXPECT_EQ(Errc::invalid_argument,
            code(DeviceHeap::create({.size = 63_MiB, .native_page = 2_MiB})));
  EXPECT_EQ(Errc::invalid_argument,
            code(DeviceHeap::create({.size = ByteCount(0), .native_page = 2_MiB})));
}

TEST_F(DeviceHeapTest, ALargeRequestGetsWholeNativePages) {
  make();
  const OwnerId me = owner();
  const auto got = take(me, ByteCount(3 * native.value() - 1));
  EXPECT_EQ(ByteCount(3 * native.value()), got.extent.length);
  EXPECT_EQ(0U, got.extent.offset.value() % native.value());
  EXPECT_EQ(ByteCount(3 * native.value()), device->used());
  EXPECT_EQ(ByteCount(3 * native.value() - 1), heap->statistics().requested);
  ASSERT_TRUE(heap->free(me, got.id));
  EXPECT_EQ(ByteCount(0), device->used());
  EXPECT_EQ(64_MiB, heap->statistics().free);
  heap->validate();
}

TEST_F(DeviceHeapTest, MalformedRequestsAreRefused) {
  make();
  const OwnerId me = owner();
  EXPECT_EQ(Errc::invalid_argument, code(heap->allocate(me, {.size = ByteCount(0)})));
  EXPECT_EQ(Errc::invalid_argument, code(heap->allocate(OwnerId{77}, {.size = 1_MiB})));
  EXPECT_EQ(
      Errc::invalid_argument,
      code(heap->allocate(me, {.size = 1_MiB, .within = {RegionOffset(4096), RegionOffset(0)}})));
  EXPECT_EQ(Errc::no_memory, code(heap->allocate(me, {.size = ByteCount(~std::uint64_t{0})})));
  EXPECT_EQ(Errc::not_supported,
            code(heap->allocate(me, {.size = 4_MiB,
                                     .alignment = Alignment(8 << 20),
                                     .layout = DeviceHeap::Layout::scattered})));
  EXPECT_EQ(Errc::invalid_argument, code(heap->add_owner(nullptr)));
  EXPECT_EQ(64_MiB, heap->statistics().free);
}

TEST_F(DeviceHeapTest, ARangeAnAlignmentAndADirectionAreKept) {
  make();
  const OwnerId me = owner();
  const Range<RegionOffset> bank{RegionOffset(16 << 20), RegionOffset(32 << 20)};
  const auto low = heap->allocate(me, {.size = 2_MiB,
                                       .alignment = Alignment(4 << 20),
                                       .placement = Placement::bottom_up,
                                       .within = bank})
                       .value();
  EXPECT_EQ(bank.begin, low.extent.offset);
  const auto high =
      heap->allocate(me, {.size = 2_MiB, .placement = Placement::top_down, .within = bank}).value();
  EXPECT_EQ(bank.end, high.extent.end());
  const auto small =
      heap->allocate(
              me, {.size = 64_KiB,
                   .alignment = Alignment(64 << 10),
                   .within = {RegionOffset((18 << 20) + 4096), RegionOffset((18 << 20) + 200'000)}})
          .value();
  EXPECT_EQ(RegionOffset((18 << 20) + (64 << 10)), small.extent.offset);
  EXPECT_EQ(Errc::no_memory, code(heap->allocate(me, {.size = 16_MiB, .within = bank})));
  heap->validate();
}

TEST_F(DeviceHeapTest, AScatteredRequestUsesWhatIsLeft) {
  make();
  const OwnerId me = owner();
  std::vector<DeviceHeap::Allocated> pages;
  for (int i = 0; i < 32; ++i) pages.push_back(take(me, native));
  for (std::size_t i = 0; i < 32; i += 2) ASSERT_TRUE(heap->free(me, pages[i].id));
  EXPECT_EQ(Errc::no_memory, code(heap->allocate(me, {.size = 4_MiB})));
  const auto got =
      heap->allocate(me, {.size = 5_MiB, .layout = DeviceHeap::Layout::scattered}).value();
  EXPECT_EQ(3U, got.extents);
  const auto extents = heap->extents(got.id).value();
  ASSERT_EQ(3U, extents.size());
  // One extent can go alone; the rest stays one allocation.
  ASSERT_TRUE(heap->free(me, extents[1]));
  EXPECT_EQ(Errc::invalid_argument, code(heap->free(me, extents[1])));
  EXPECT_EQ(2U, heap->extents(got.id)->size());
  heap->validate();
  ASSERT_TRUE(heap->free(me, got.id));
  EXPECT_EQ(32_MiB, heap->statistics().free);
  heap->validate();
}

TEST_F(DeviceHeapTest, DoubleAndForeignFreesAreRefusedAndChangeNothing) {
  make();
  const OwnerId me = owner();
  const OwnerId other = owner();
  for (const ByteCount size : {ByteCount(100), 64_KiB, 4_MiB}) {
    const auto got = take(me, size);
    const auto before = heap->statistics();
    EXPECT_EQ(Errc::invalid_argument, code(heap->free(other, got.id)));
    EXPECT_EQ(Errc::invalid_argument, code(heap->free(other, got.extent)));
    EXPECT_EQ(Errc::invalid_argument,
              code(heap->free(me, Extent{got.extent.offset, got.extent.length + ByteCount(1)})));
    EXPECT_EQ(Errc::invalid_argument,
              code(heap->free(me, Extent{got.extent.offset + ByteCount(1), got.extent.length})));
    EXPECT_EQ(Errc::invalid_argument, code(heap->free_after(other, got.id, 5)));
    EXPECT_EQ(before, heap->statistics());
    EXPECT_EQ(me, heap->owner_of(got.extent).value());
    ASSERT_TRUE(heap->free(me, got.extent));
    EXPECT_EQ(Errc::invalid_argument, code(heap->free(me, got.id)));
    EXPECT_EQ(Errc::invalid_argument, code(heap->free(me, got.extent)));
    EXPECT_EQ(Errc::invalid_argument, code(heap->owner_of(got.extent)));
    // Its successor in the same place is another allocation.
    const auto next = take(other, size);
    EXPECT_EQ(Errc::invalid_argument, code(heap->free(me, got.id)));
    ASSERT_TRUE(heap->free(other, next.id));
    heap->validate();
  }
}

TEST_F(DeviceHeapTest, AQuotaOfAnyLevelRefusesAndChangesNothing) {
  make();
  const auto user = account(8_MiB);
  const OwnerId one = heap->add_owner(account(6_MiB, 1, user)).value();
  const OwnerId two = heap->add_owner(account(6_MiB, 2, user)).value();
  EXPECT_EQ(Errc::over_quota, code(heap->allocate(one, {.size = 7_MiB})));
  const auto got = take(one, 6_MiB);
  const auto before = heap->statistics();
  EXPECT_EQ(Errc::over_quota, code(heap->allocate(two, {.size = 4_MiB})));
  EXPECT_EQ(before, heap->statistics());
  EXPECT_EQ(before, heap->recount());
  const auto rest = take(two, 2_MiB);
  EXPECT_EQ(Errc::over_quota, code(heap->allocate(two, {.size = ByteCount(1)})));
  ASSERT_TRUE(heap->free(one, got.id));
  EXPECT_TRUE(heap->allocate(two, {.size = ByteCount(1)}));
  EXPECT_EQ(8_MiB, user->usage().peak);
  EXPECT_EQ(2U, heap->counters().over_quota - 1);
  heap->validate();
  static_cast<void>(rest);
}

TEST_F(DeviceHeapTest, WhatWaitsForAPointIsNeitherFreeNorLost) {
  make();
  const OwnerId me = owner();
  const auto first = take(me, 32_MiB);
  const auto second = take(me, 32_MiB);
  ASSERT_TRUE(heap->free_after(me, first.id, 10));
  ASSERT_TRUE(heap->free_after(me, second.id, 7));
  EXPECT_EQ(64_MiB, heap->statistics().pending);
  EXPECT_EQ(ByteCount(0), heap->statistics().free);
  EXPECT_EQ(Errc::invalid_argument, code(heap->free(me, first.id)));
  EXPECT_EQ(Errc::invalid_argument, code(heap->free(me, first.extent)));
  EXPECT_EQ(Errc::invalid_argument, code(heap->free_after(me, first.id, 3)));
  EXPECT_EQ(Errc::invalid_argument, code(heap->owner_of(first.extent)));
  EXPECT_EQ(Errc::invalid_argument, code(heap->extents(first.id)));
  EXPECT_EQ(Errc::no_memory, code(heap->allocate(me, {.size = 2_MiB})));
  EXPECT_EQ(32_MiB, heap->retire(7));
  EXPECT_EQ(32_MiB, heap->statistics().free);
  EXPECT_EQ(ByteCount(0), heap->retire(9));
  EXPECT_EQ(32_MiB, heap->retire(10));
  EXPECT_EQ(64_MiB, heap->statistics().free);
  EXPECT_EQ(ByteCount(0), device->used());
  heap->validate();
  // A point that was reached before does not wait.
  const auto third = take(me, 2_MiB);
  ASSERT_TRUE(heap->free_after(me, third.id, 10));
  EXPECT_EQ(ByteCount(0), heap->statistics().pending);
}

TEST_F(DeviceHeapTest, AnOwnerThatIsClosedLivesUntilItsLastAllocation) {
  make();
  const OwnerId me = owner();
  const auto small = take(me, 4_KiB);
  const auto tiny = take(me, ByteCount(16));
  const auto large = take(me, 2_MiB);
  ASSERT_TRUE(heap->free_after(me, large.id, 3));
  ASSERT_TRUE(heap->close_owner(me));
  EXPECT_EQ(Errc::invalid_argument, code(heap->close_owner(me)));
  EXPECT_EQ(Errc::invalid_argument, code(heap->allocate(me, {.size = 4_KiB})));
  EXPECT_EQ(1U, heap->statistics().owners);
  ASSERT_TRUE(heap->free(me, small.extent));
  ASSERT_TRUE(heap->free(me, tiny.id));
  EXPECT_EQ(1U, heap->statistics().owners);
  EXPECT_EQ(2_MiB, heap->retire(3));
  EXPECT_EQ(0U, heap->statistics().owners);
  EXPECT_EQ(64_MiB, heap->statistics().free);
  EXPECT_EQ(ByteCount(0), device->used());
}

TEST_F(DeviceHeapTest, ReservedPagesAreNeverGivenOut) {
  make();
  const OwnerId me = owner();
  ASSERT_TRUE(heap->reserve({RegionOffset(0), 4_MiB}));
  EXPECT_EQ(Errc::address_in_use, code(heap->reserve({RegionOffset(2 << 20), 4_MiB})));
  EXPECT_EQ(Errc::invalid_argument, code(heap->reserve({RegionOffset(4096), 4_KiB})));
  EXPECT_EQ(4_MiB, heap->statistics().reserved);
  EXPECT_EQ(60_MiB, take(me, 60_MiB).extent.length);
  EXPECT_EQ(Errc::invalid_argument, code(heap->free(me, Extent{RegionOffset(0), 4_MiB})));
  heap->validate();
}

TEST_F(DeviceHeapTest, AHeapWithAllocationsCanBeMovedAndDestroyed) {
  make();
  const OwnerId me = owner();
  static_cast<void>(take(me, ByteCount(1)));
  static_cast<void>(take(me, 4_KiB));
  const auto pending = take(me, 2_MiB);
  ASSERT_TRUE(heap->free_after(me, pending.id, 1));
  const auto moving = take(me, 2_MiB);
  ASSERT_TRUE(heap->begin_move({moving.id, moving.extent, {RegionOffset(32 << 20), 2_MiB}}));
  DeviceHeap moved = std::move(*heap);
  heap.reset();
  moved.validate();
  {
    const DeviceHeap ended = std::move(moved);
  }
  EXPECT_EQ(ByteCount(0), device->used());
}

}  // namespace
}  // namespace accelmm::test
