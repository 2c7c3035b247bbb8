// SPDX-License-Identifier: Apache-2.0
//
// Whatever allocation of the heap's own metadata fails, the call says so and nothing has changed.
#include "unit/mm/device_heap_fixture.hpp"
#include "unit/mm/failing_new.hpp"

#include <vector>

namespace accelmm::test {
namespace {

// Runs `call` with the k-th allocation failing, for every k until none fails. Some calls can do
// without what failed: `undo` takes back what they did.
template <class Call, class Undo, class Check>
int fail_each(Call call, Undo undo, Check unchanged) {
  for (int k = 0; k < 1000; ++k) {
    bool succeeded = false;
    bool happened = false;
    {
      const FailingNew failing(k);
      succeeded = call();
      happened = failing.happened();
    }
    if (!happened) {
      EXPECT_TRUE(succeeded);
      return k;
    }
    if (succeeded) undo();
    unchanged();
  }
  return -1;
}

TEST_F(DeviceHeapTest, CreateFailsCleanlyAtEveryAllocation) {
  for (int k = 0;; ++k) {
    const auto live = test::heap.live;
    bool happened = false;
    {
      const FailingNew failing(k);
      const auto made = DeviceHeap::create({.size = 64_MiB, .native_page = native});
      happened = failing.happened();
      EXPECT_EQ(!happened, made.has_value());
      EXPECT_EQ(happened ? Errc::no_memory : Errc{}, code(made));
    }
    EXPECT_EQ(live, test::heap.live);
    if (!happened) break;
    ASSERT_LT(k, 100);
  }
}

TEST_F(DeviceHeapTest, AllocateFailsCleanlyAtEveryAllocation) {
  for (const ByteCount size : {ByteCount(1), 4_KiB, 4_MiB}) {
    make();
    const OwnerId me = owner();
    const auto before = heap->statistics();
    Result<DeviceHeap::Allocated> got;
    const int failures = fail_each(
        [&] {
          got = heap->allocate(me, {.size = size});
          EXPECT_EQ(got ? Errc{} : Errc::no_memory, code(got));
          return got.has_value();
        },
        [&] { ASSERT_TRUE(heap->free(me, got->id)); },
        [&] {
          static_cast<void>(heap->trim());
          EXPECT_EQ(before, heap->statistics());
          EXPECT_EQ(ByteCount(0), device->used());
          heap->validate();
        });
    EXPECT_GT(failures, 0);
    heap->validate();
  }
}

TEST_F(DeviceHeapTest, AScatteredAllocationFailsCleanlyAtEveryAllocation) {
  make();
  const OwnerId me = owner();
  std::vector<DeviceHeap::Allocated> pages;
  for (int i = 0; i < 32; ++i) pages.push_back(take(me, native));
  for (std::size_t i = 0; i < 32; i += 2) ASSERT_TRUE(heap->free(me, pages[i].id));
  const auto before = heap->statistics();
  Result<DeviceHeap::Allocated> got;
  const int failures = fail_each(
      [&] {
        got = heap->allocate(me, {.size = 20_MiB, .layout = DeviceHeap::Layout::scattered});
        return got.has_value();
      },
      [&] { ASSERT_TRUE(heap->free(me, got->id)); },
      [&] {
        EXPECT_EQ(before, heap->statistics());
        heap->validate();
      });
  EXPECT_GT(failures, 2);
  heap->validate();
}

TEST_F(DeviceHeapTest, MovesAndPlansFailCleanlyAtEveryAllocation) {
  make();
  const OwnerId me = owner();
  std::vector<DeviceHeap::Allocated> pages;
  for (int i = 0; i < 32; ++i)
    pages.push_back(
        heap->allocate(me, {.size = native, .placement = Placement::bottom_up}).value());
  for (std::size_t i = 0; i < 32; ++i)
    if (i % 3 != 0) {
      ASSERT_TRUE(heap->free(me, pages[i].id));
    }
  const auto before = heap->statistics();
  std::vector<DeviceHeap::Move> plan;
  const auto unchanged = [&] {
    EXPECT_EQ(before, heap->statistics());
    heap->validate();
  };
  fail_each(
      [&] {
        auto planned = heap->plan_moves(64_MiB, {.size = 16_MiB});
        if (planned) plan = std::move(*planned);
        return planned.has_value();
      },
      [] {}, unchanged);
  ASSERT_FALSE(plan.empty());
  fail_each([&] { return heap->begin_move(plan[0]).has_value(); },
            [&] { ASSERT_TRUE(heap->abort_move(plan[0])); }, unchanged);
  heap->validate();
}

TEST_F(DeviceHeapTest, FreeingNeedsNoMemory) {
  make();
  const OwnerId me = owner();
  std::vector<DeviceHeap::Allocated> taken;
  for (const ByteCount size : {ByteCount(1), 4_KiB, 4_MiB, ByteCount(1), 4_KiB, 4_MiB, 2_MiB})
    taken.push_back(take(me, size));
  const DeviceHeap::Move move{taken[6].id, taken[6].extent, {RegionOffset(32 << 20), native}};
  ASSERT_TRUE(heap->begin_move(move));
  const auto calls = test::heap.calls;
  for (std::size_t i = 0; i < 3; ++i) ASSERT_TRUE(heap->free(me, taken[i].id));
  for (std::size_t i = 3; i < 6; ++i) ASSERT_TRUE(heap->free_after(me, taken[i].id, i));
  ASSERT_TRUE(heap->commit_move(move));
  static_cast<void>(heap->retire(100));
  static_cast<void>(heap->trim());
  ASSERT_TRUE(heap->close_owner(me));
  EXPECT_EQ(calls, test::heap.calls);
  heap->validate();
}

TEST_F(DeviceHeapTest, NothingIsLeftBehindOfWhatWasAllocated) {
  const auto live = test::heap.live;
  {
    auto made = DeviceHeap::create({.size = 64_MiB, .native_page = native}).value();
    const auto mine = std::make_shared<Account>(Account::Options{});
    const OwnerId me = made.add_owner(mine).value();
    for (const ByteCount size : {ByteCount(1), 4_KiB, 4_MiB})
      ASSERT_TRUE(made.allocate(me, {.size = size}));
    ASSERT_TRUE(made.reserve({RegionOffset(0), native}));
  }
  EXPECT_EQ(live, test::heap.live);
}

}  // namespace
}  // namespace accelmm::test
