// SPDX-License-Identifier: Apache-2.0
#include "unit/mm/device_heap_fixture.hpp"

#include <atomic>
#include <random>
#include <thread>
#include <vector>

namespace accelmm::test {
namespace {

/// Whose each granule is, told by the threads themselves: two owners of one are seen at once.
class Granules {
 public:
  explicit Granules(ByteCount size) : owners_(size.value() / 4096) {}
  void take(const Extent& extent, int owner) {
    each(extent, [&](std::atomic<int>& granule) { EXPECT_EQ(0, granule.exchange(owner)); });
  }
  void give(const Extent& extent, int owner) {
    each(extent, [&](std::atomic<int>& granule) { EXPECT_EQ(owner, granule.exchange(0)); });
  }

 private:
  template <class F>
  void each(const Extent& extent, F f) {
    for (std::uint64_t at = extent.offset.value(); at < extent.end().value(); at += 4096)
      f(owners_[at / 4096]);
  }
  std::vector<std::atomic<int>> owners_;
};

class CountingListener final : public PressureListener {
 public:
  void on_pressure(Pressure, ByteCount) noexcept override {
    EXPECT_EQ(0, inside.fetch_add(1));  // one call at a time
    ++calls;
    inside.fetch_sub(1);
  }
  std::atomic<int> inside = 0;
  std::atomic<int> calls = 0;
};

class RetiringEvictor final : public Evictor {
 public:
  ByteCount evict(ByteCount) noexcept override { return heap->retire(clock->load()); }
  DeviceHeap* heap = nullptr;
  std::atomic<std::uint64_t>* clock = nullptr;
};

TEST_F(DeviceHeapTest, ThreadsNeverShareAByteAndLoseNone) {
  CountingListener listener;
  RetiringEvictor evictor;
  std::atomic<std::uint64_t> clock{1};
  make({.size = 16_MiB,
        .native_page = 64_KiB,
        .thresholds = {.low = 4_MiB, .critical = 1_MiB, .relief = 256_KiB},
        .listener = &listener,
        .evictor = &evictor});
  evictor.heap = &*heap;
  evictor.clock = &clock;
  Granules granules(16_MiB);
  const auto user = account(12_MiB);
  {
    std::vector<std::jthread> threads;
    for (int t = 1; t <= 4; ++t)
      threads.emplace_back([&, t] {
        std::mt19937_64 random(static_cast<unsigned>(t));
        const OwnerId me = heap->add_owner(account(8_MiB, 0, user)).value();
        std::vector<DeviceHeap::Allocated> live;
        for (int step = 0; step < 6000; ++step) {
          if (live.empty() || (live.size() < 60 && random() % 2 == 0)) {
            const auto got = heap->allocate(me, {.size = ByteCount(4096 * (1 + random() % 48))});
            if (!got) continue;
            granules.take(got->extent, t);
            live.push_back(*got);
            continue;
          }
          std::swap(live[random() % live.size()], live.back());
          const auto gone = live.back();
          live.pop_back();
          granules.give(gone.extent, t);
          if (random() % 3 == 0) {
            EXPECT_TRUE(heap->free_after(me, gone.id, clock.fetch_add(1) + 5));
          } else {
            EXPECT_TRUE(heap->free(me, gone.id));
          }
          if (step % 64 == 0) static_cast<void>(heap->retire(clock.load()));
          if (step % 512 == 0) static_cast<void>(heap->explain(me, {.size = 1_MiB}));
        }
        for (const auto& gone : live) {
          granules.give(gone.extent, t);
          EXPECT_TRUE(heap->free(me, gone.id));
        }
        EXPECT_TRUE(heap->close_owner(me));
      });
  }
  static_cast<void>(heap->retire(~std::uint64_t{0}));
  EXPECT_EQ(16_MiB, heap->statistics().free);
  EXPECT_EQ(0U, heap->statistics().owners);
  EXPECT_EQ(ByteCount(0), device->used());
  EXPECT_LE(user->usage().peak, 12_MiB);
  heap->validate();
}

TEST_F(DeviceHeapTest, AllocationsMoveWhileOthersComeAndGo) {
  make({.size = 16_MiB, .native_page = 64_KiB});
  std::atomic<bool> stop = false;
  std::jthread mover([&] {
    while (!stop.load()) {
      const auto plan = heap->plan_moves(1_MiB, {.size = 4_MiB});
      if (!plan) continue;
      for (const auto& move : *plan) {
        // The world has moved on since the plan: then there is nothing to end.
        if (!heap->begin_move(move)) continue;
        EXPECT_TRUE(heap->commit_move(move));
      }
    }
  });
  {
    std::vector<std::jthread> threads;
    for (int t = 1; t <= 3; ++t)
      threads.emplace_back([&, t] {
        std::mt19937_64 random(static_cast<unsigned>(t));
        const OwnerId me = heap->add_owner(account()).value();
        std::vector<AllocationId> live;
        for (int step = 0; step < 3000; ++step) {
          if (live.empty() || (live.size() < 40 && random() % 2 == 0)) {
            const auto got = heap->allocate(me, {.size = ByteCount(65536 * (1 + random() % 3))});
            if (got) live.push_back(got->id);
            continue;
          }
          std::swap(live[random() % live.size()], live.back());
          const auto freed = heap->free(me, live.back());
          if (freed) live.pop_back();
          EXPECT_EQ(freed ? Errc{} : Errc::busy, code(freed));
        }
      });
  }
  stop = true;
  mover.join();
  heap->validate();
}

}  // namespace
}  // namespace accelmm::test
