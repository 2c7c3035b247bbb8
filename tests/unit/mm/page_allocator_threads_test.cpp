// SPDX-License-Identifier: Apache-2.0
#include <accelmm/page_allocator.hpp>

#include <atomic>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <sched.h>

namespace accelmm {
namespace {

constexpr std::uint64_t page_bytes = 4096;

// Who has each page, told by the threads themselves: two owners of a page are seen at once.
class Owners {
 public:
  explicit Owners(std::uint64_t pages) : owners_(pages) {}
  void take(const Extent& extent, int owner) {
    each(extent, [&](std::atomic<int>& page) { EXPECT_EQ(0, page.exchange(owner)); });
  }
  void give(const Extent& extent, int owner) {
    each(extent, [&](std::atomic<int>& page) { EXPECT_EQ(owner, page.exchange(0)); });
  }

 private:
  template <class F>
  void each(const Extent& extent, F f) {
    for (std::uint64_t page = extent.offset.value() / page_bytes;
         page < extent.end().value() / page_bytes; ++page)
      f(owners_[page]);
  }
  std::vector<std::atomic<int>> owners_;
};

void migrate(std::size_t step) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(step % std::thread::hardware_concurrency(), &one);
  static_cast<void>(sched_setaffinity(0, sizeof one, &one));
}

TEST(PageAllocatorThreads, NoPageHasTwoOwnersWhileThreadsMigrate) {
  constexpr std::uint64_t pages = 16'384;
  auto allocator = PageAllocator::create({.size = ByteCount(pages * page_bytes)}).value();
  Owners owners(pages);
  {
    std::vector<std::jthread> threads;
    for (int t = 1; t <= 4; ++t)
      threads.emplace_back([&, t] {
        std::mt19937_64 random(static_cast<unsigned>(t));
        std::vector<Extent> live;
        for (std::size_t step = 0; step < 30'000; ++step) {
          if (step % 256 == 0) migrate(step / 256 + static_cast<std::size_t>(t));
          const bool take = live.size() < 20 || (live.size() < 900 && random() % 2 == 0);
          if (take) {
            const std::uint64_t count = random() % 8 != 0 ? 1 : 1 + random() % 40;
            const auto extent = allocator.allocate(ByteCount(count * page_bytes), Alignment(1));
            if (!extent) continue;
            owners.take(*extent, t);
            live.push_back(*extent);
          } else {
            std::swap(live[random() % live.size()], live.back());
            owners.give(live.back(), t);
            ASSERT_TRUE(allocator.free(live.back()).has_value());
            live.pop_back();
          }
        }
        for (const Extent& extent : live) {
          owners.give(extent, t);
          ASSERT_TRUE(allocator.free(extent).has_value());
        }
      });
  }
  EXPECT_EQ(ByteCount(pages * page_bytes), allocator.statistics().free);
  allocator.validate();
  EXPECT_EQ(0U, allocator.allocate(ByteCount(pages * page_bytes)).value().offset.value());
}

// What one thread allocates another frees.
TEST(PageAllocatorThreads, PagesFreedByOtherThreadsComeBack) {
  auto allocator = PageAllocator::create({.size = 4_MiB}).value();
  std::mutex lock;
  std::vector<Extent> handed;
  std::atomic<bool> done = false;
  std::atomic<std::uint64_t> freed = 0;
  std::jthread consumer([&] {
    while (true) {
      std::vector<Extent> batch;
      const bool last = done.load();
      {
        const std::scoped_lock held(lock);
        batch.swap(handed);
      }
      for (const Extent& extent : batch) ASSERT_TRUE(allocator.free(extent).has_value());
      freed += batch.size();
      if (last && batch.empty()) return;
      if (batch.empty()) std::this_thread::yield();
    }
  });
  std::uint64_t taken = 0;
  while (taken < 100'000) {
    const auto extent = allocator.allocate(ByteCount(page_bytes));
    if (!extent) {
      std::this_thread::yield();
      continue;
    }
    ++taken;
    const std::scoped_lock held(lock);
    handed.push_back(*extent);
  }
  done = true;
  consumer.join();
  EXPECT_EQ(taken, freed);
  EXPECT_EQ(4_MiB, allocator.statistics().largest_free);
  allocator.validate();
}

// Every thread frees the same pages: each page is freed once, unless two frees met on it.
TEST(PageAllocatorThreads, OfManyFreesOfAPageInOtherChunksExactlyOneSucceeds) {
  auto allocator = PageAllocator::create({.size = 64_MiB}).value();
  std::vector<Extent> pages;
  for (int i = 0; i < 8192; ++i) pages.push_back(allocator.allocate(ByteCount(4096)).value());
  // Nobody leases the chunks of these pages any more.
  ASSERT_EQ(Errc::no_memory, allocator.allocate(65_MiB).error().code);
  ASSERT_EQ(Errc::no_memory, allocator.allocate(64_MiB).error().code);
  std::atomic<std::uint64_t> succeeded = 0;
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t)
      threads.emplace_back([&] {
        std::uint64_t mine = 0;
        for (const Extent& page : pages)
          if (allocator.free(page)) ++mine;
        succeeded += mine;
      });
  }
  EXPECT_EQ(pages.size(), succeeded);
  EXPECT_EQ(64_MiB, allocator.statistics().free);
  allocator.validate();
}

TEST(PageAllocatorThreads, GatheringLeasesNeverLosesOrDoublesAPage) {
  constexpr std::uint64_t pages = 2048;
  auto allocator = PageAllocator::create({.size = ByteCount(pages * page_bytes)}).value();
  Owners owners(pages);
  std::atomic<bool> stop = false;
  {
    std::vector<std::jthread> threads;
    for (int t = 1; t <= 3; ++t)
      threads.emplace_back([&, t] {
        std::vector<Extent> live;
        while (!stop.load(std::memory_order_relaxed)) {
          while (live.size() < 200) {
            const auto extent = allocator.allocate(ByteCount(page_bytes));
            if (!extent) break;
            owners.take(*extent, t);
            live.push_back(*extent);
          }
          for (const Extent& extent : live) {
            owners.give(extent, t);
            ASSERT_TRUE(allocator.free(extent).has_value());
          }
          live.clear();
        }
      });
    // Refused for want of room, after all leases were taken back.
    for (int i = 0; i < 2000; ++i) {
      const auto all = allocator.allocate(ByteCount(pages * page_bytes));
      if (all) {
        ASSERT_TRUE(allocator.free(*all).has_value());
      }
    }
    stop = true;
  }
  EXPECT_EQ(ByteCount(pages * page_bytes), allocator.statistics().largest_free);
  allocator.validate();
}

}  // namespace
}  // namespace accelmm
