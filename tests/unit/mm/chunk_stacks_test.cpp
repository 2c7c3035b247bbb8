// SPDX-License-Identifier: Apache-2.0
//
// Whole chunks that go round between the processors, the buddies and threads that free the same.
#include "mm/chunk_stacks.hpp"

#include <accelmm/page_allocator.hpp>

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/time.h>

namespace accelmm {
namespace {

using mm::ChunkStacks;
constexpr ByteCount chunk_bytes = 2_MiB;
constexpr Alignment chunk_alignment(std::uint64_t{2} << 20);

void migrate(std::size_t step) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(step % std::thread::hardware_concurrency(), &one);
  static_cast<void>(sched_setaffinity(0, sizeof one, &one));
}

// On one processor, so that the stacks are one.
class OneProcessor {
 public:
  OneProcessor() {
    sched_getaffinity(0, sizeof before_, &before_);
    migrate(0);
  }
  ~OneProcessor() { sched_setaffinity(0, sizeof before_, &before_); }
  OneProcessor(const OneProcessor&) = delete;
  OneProcessor& operator=(const OneProcessor&) = delete;

 private:
  cpu_set_t before_{};
};

TEST(ChunkStacks, GivesTheNewestFirstAndRefusesMoreThanALineHolds) {
  const OneProcessor here;
  ChunkStacks stacks;
  EXPECT_EQ(ChunkStacks::none, stacks.pop());
  for (std::uint64_t c = 0; c < 6; ++c) EXPECT_TRUE(stacks.push(100 + c));
  EXPECT_FALSE(stacks.push(99));
  for (std::uint64_t c = 6; c-- > 0;) EXPECT_EQ(100 + c, stacks.pop());
  EXPECT_EQ(ChunkStacks::none, stacks.pop());
}

TEST(ChunkStacks, DrainingTakesEachChunkOnceAndLeavesTheStackUsable) {
  const OneProcessor here;
  ChunkStacks stacks;
  for (std::uint64_t c = 0; c < 4; ++c) ASSERT_TRUE(stacks.push(c));
  std::vector<std::uint64_t> drained;
  stacks.drain([&](std::uint64_t c) { drained.push_back(c); });
  std::ranges::sort(drained);
  EXPECT_EQ((std::vector<std::uint64_t>{0, 1, 2, 3}), drained);
  EXPECT_EQ(ChunkStacks::none, stacks.pop());
  EXPECT_TRUE(stacks.push(7));
  EXPECT_EQ(7U, stacks.pop());
}

TEST(ChunkStacks, ABlockThatWasFreedGoesOutAgainAndMergesUnderPressure) {
  auto allocator = PageAllocator::create({.size = 16_MiB}).value();
  const auto first = allocator.allocate(chunk_bytes, chunk_alignment).value();
  ASSERT_TRUE(allocator.free(first).has_value());
  EXPECT_EQ(16_MiB, allocator.statistics().free);
  EXPECT_EQ(16_MiB, allocator.statistics().whole_chunks);
  EXPECT_EQ(16_MiB, allocator.statistics().largest_free);
  EXPECT_EQ(Errc::invalid_argument, allocator.free(first).error().code);
  EXPECT_EQ(0U, allocator.allocate(16_MiB).value().offset.value());
  allocator.validate();
}

TEST(ChunkStacks, ABlockThatIsCachedCanBeReservedAndPoisoned) {
  auto allocator = PageAllocator::create({.size = 16_MiB}).value();
  const auto block = allocator.allocate(chunk_bytes, chunk_alignment).value();
  ASSERT_TRUE(allocator.free(block).has_value());
  ASSERT_TRUE(allocator.reserve(block).has_value());
  ASSERT_TRUE(allocator.free(block).has_value());
  ASSERT_TRUE(allocator.poison(block).has_value());
  EXPECT_EQ(14_MiB, allocator.statistics().free);
  EXPECT_EQ(Errc::invalid_argument, allocator.free(block).error().code);
  allocator.validate();
}

TEST(ChunkStacks, ABlockThatIsPoisonedWhileInUseNeverGoesOutAgain) {
  auto allocator = PageAllocator::create({.size = 16_MiB}).value();
  const auto block = allocator.allocate(chunk_bytes, chunk_alignment).value();
  const auto large = allocator.allocate(4_MiB).value();
  ASSERT_TRUE(allocator.poison(block).has_value());
  ASSERT_TRUE(allocator.poison({large.offset, chunk_bytes}).has_value());
  ASSERT_TRUE(allocator.free(block).has_value());
  ASSERT_TRUE(allocator.free(large).has_value());
  EXPECT_EQ(Errc::invalid_argument, allocator.free(block).error().code);
  EXPECT_EQ(12_MiB, allocator.statistics().free);
  allocator.validate();
}

TEST(ChunkStacks, ABlockThatWasTakenAloneCanBeFreedInPartsAndWithItsNeighbours) {
  auto allocator = PageAllocator::create({.size = 16_MiB}).value();
  const auto first = allocator.allocate(chunk_bytes, chunk_alignment).value();
  const auto second = allocator.allocate(chunk_bytes, chunk_alignment).value();
  ASSERT_EQ(first.end(), second.offset);
  ASSERT_EQ(Errc::invalid_argument, allocator.free({first.offset, 6_MiB}).error().code);
  ASSERT_TRUE(allocator.free({first.offset, 4_MiB}).has_value());
  const auto third = allocator.allocate(chunk_bytes, chunk_alignment).value();
  ASSERT_TRUE(allocator.free({third.offset, 1_MiB}).has_value());
  EXPECT_EQ(Errc::invalid_argument, allocator.free(third).error().code);
  ASSERT_TRUE(allocator.free({third.offset + 1_MiB, 1_MiB}).has_value());
  EXPECT_EQ(16_MiB, allocator.statistics().free);
  allocator.validate();
}

TEST(ChunkStacks, ABlockRemembersThatItHoldsZeros) {
  const OneProcessor here;
  auto allocator = PageAllocator::create({.size = 16_MiB}).value();
  const auto block = allocator.allocate(chunk_bytes, chunk_alignment).value();
  ASSERT_TRUE(allocator.free(block, Contents::zeros).has_value());
  ASSERT_EQ(block, allocator.allocate(chunk_bytes, chunk_alignment).value());
  EXPECT_EQ(0_B, allocator.first_dirty(block).value().length);
  ASSERT_TRUE(allocator.free(block).has_value());
  ASSERT_EQ(block, allocator.allocate(chunk_bytes, chunk_alignment).value());
  EXPECT_EQ(block, allocator.first_dirty(block).value());
}

// Blocks of one chunk, of several, and parts of chunks, while a signal arrives every 50 us and
// threads change their processor.
TEST(ChunkStacksThreads, NoBlockHasTwoOwnersWhileSignalsAndMigrationsStorm) {
  struct sigaction action{};
  action.sa_handler = [](int) {};
  action.sa_flags = SA_RESTART;
  struct sigaction before{};
  ASSERT_EQ(0, sigaction(SIGALRM, &action, &before));
  const itimerval storm{{0, 50}, {0, 50}};
  ASSERT_EQ(0, setitimer(ITIMER_REAL, &storm, nullptr));

  constexpr std::size_t chunks = 24;
  auto allocator = PageAllocator::create({.size = ByteCount(chunks << 21)}).value();
  std::vector<std::atomic<int>> owners(chunks);
  {
    std::vector<std::jthread> threads;
    for (int t = 1; t <= 3; ++t)
      threads.emplace_back([&, t] {
        std::vector<Extent> live;
        for (std::size_t step = 0; step < 20'000; ++step) {
          if (step % 512 == 0) migrate(step / 512 + static_cast<std::size_t>(t));
          if (live.size() < 4 && step % 3 != 2) {
            const std::uint64_t size = step % 7 == 0 ? 3 : 1;
            const auto extent = allocator.allocate(ByteCount(size << 21), chunk_alignment);
            if (!extent) continue;
            for (std::uint64_t c = 0; c < size; ++c)
              ASSERT_EQ(0, owners[(extent->offset.value() >> 21) + c].exchange(t));
            live.push_back(*extent);
          } else if (!live.empty()) {
            const Extent extent = live.back();
            live.pop_back();
            for (std::uint64_t c = 0; c < extent.length.value() >> 21; ++c)
              ASSERT_EQ(t, owners[(extent.offset.value() >> 21) + c].exchange(0));
            ASSERT_TRUE(allocator.free(extent).has_value());
          }
        }
        for (const Extent& extent : live) {
          for (std::uint64_t c = 0; c < extent.length.value() >> 21; ++c)
            owners[(extent.offset.value() >> 21) + c].store(0);
          ASSERT_TRUE(allocator.free(extent).has_value());
        }
      });
  }
  const itimerval calm{};
  ASSERT_EQ(0, setitimer(ITIMER_REAL, &calm, nullptr));
  ASSERT_EQ(0, sigaction(SIGALRM, &before, nullptr));
  EXPECT_EQ(ByteCount(chunks << 21), allocator.statistics().largest_free);
  allocator.validate();
  EXPECT_EQ(0U, allocator.allocate(ByteCount(chunks << 21)).value().offset.value());
}

TEST(ChunkStacksThreads, OfManyFreesOfABlockExactlyOneSucceeds) {
  constexpr std::size_t chunks = 16;
  auto allocator = PageAllocator::create({.size = ByteCount(chunks << 21)}).value();
  std::atomic<std::uint64_t> succeeded = 0;
  std::vector<Extent> blocks(chunks);
  for (int round = 0; round < 300; ++round) {
    for (Extent& block : blocks) block = allocator.allocate(chunk_bytes, chunk_alignment).value();
    std::vector<std::jthread> threads;
    for (std::uint64_t t = 0; t < 3; ++t)
      threads.emplace_back([&, t] {
        std::uint64_t mine = 0;
        for (const Extent& block : blocks) {
          // One thread frees a page first, under the lock: the block is no whole chunk any more.
          const Extent head{block.offset, t == 0 && round % 2 == 1 ? 4_KiB : chunk_bytes};
          if (!allocator.free(head)) continue;
          mine += head.length.value() / 4096;
          if (head.length == chunk_bytes) continue;
          const Extent rest{head.end(), chunk_bytes - head.length};
          mine += allocator.free(rest) ? rest.length.value() / 4096 : 0;
        }
        succeeded += mine;
      });
    threads.clear();
    ASSERT_EQ(512 * chunks * static_cast<std::uint64_t>(round + 1), succeeded);
    ASSERT_EQ(ByteCount(chunks << 21), allocator.statistics().free);
  }
  allocator.validate();
}

}  // namespace
}  // namespace accelmm
