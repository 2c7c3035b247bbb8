// SPDX-License-Identifier: Apache-2.0
#include "base/per_cpu.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <memory>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/time.h>

namespace accelmm::test {
namespace {

using per_cpu::SlotLock;
using per_cpu::Word;

struct alignas(64) Counter {
  SlotLock lock;
  Word check = 1;
  Word count = 0;
};

std::unique_ptr<Counter[]> counters;
std::atomic<std::uint64_t> lost;

// One committed increment of the counter of whatever slot this thread is in.
void count_once() {
  while (true) {
    const unsigned slot = per_cpu::current();
    ASSERT_LT(slot, per_cpu::slots());
    Counter& counter = counters[slot];
    const std::uint64_t seen = counter.count.load(std::memory_order_relaxed);
    if (per_cpu::store_if(slot, counter.lock, counter.check, 1, counter.count, seen, seen + 1))
      return;
    lost.fetch_add(1, std::memory_order_relaxed);
  }
}

std::uint64_t total() {
  std::uint64_t sum = 0;
  for (unsigned slot = 0; slot < per_cpu::slots(); ++slot) sum += counters[slot].count;
  return sum;
}

// Moves the thread from processor to processor.
void migrate(unsigned step) {
  const auto processors = static_cast<unsigned>(std::thread::hardware_concurrency());
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(step % processors, &one);
  static_cast<void>(sched_setaffinity(0, sizeof one, &one));  // some are forbidden in a container
}

TEST(PerCpu, SectionsOfManyThreadsThatMigrateLoseNoStore) {
  counters = std::make_unique<Counter[]>(per_cpu::slots());
  constexpr unsigned threads = 4;
  constexpr unsigned rounds = 50'000;
  {
    std::vector<std::jthread> all;
    for (unsigned t = 0; t < threads; ++t)
      all.emplace_back([t] {
        for (unsigned i = 0; i < rounds; ++i) {
          if (i % 512 == 0) migrate(t + i / 512);
          count_once();
        }
      });
  }
  EXPECT_EQ(std::uint64_t{threads} * rounds, total());
}

std::atomic<std::uint64_t> signals;

// A handler that runs sections of its own, as one that interrupts an allocator's may.
void on_signal(int) {
  if (per_cpu::restartable()) count_once();
  signals.fetch_add(1, std::memory_order_relaxed);
}

TEST(PerCpu, AStormOfSignalsInsideSectionsLosesNoStore) {
  counters = std::make_unique<Counter[]>(per_cpu::slots());
  signals = 0;
  struct sigaction action = {};
  struct sigaction before = {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  ASSERT_EQ(0, sigaction(SIGALRM, &action, &before));
  const itimerval storm{.it_interval = {.tv_sec = 0, .tv_usec = 50},
                        .it_value = {.tv_sec = 0, .tv_usec = 50}};
  ASSERT_EQ(0, setitimer(ITIMER_REAL, &storm, nullptr));
  std::uint64_t rounds = 0;
  while (signals.load(std::memory_order_relaxed) < 2000) {
    count_once();
    ++rounds;
  }
  const itimerval calm = {};
  ASSERT_EQ(0, setitimer(ITIMER_REAL, &calm, nullptr));
  ASSERT_EQ(0, sigaction(SIGALRM, &before, nullptr));
  EXPECT_EQ(rounds + (per_cpu::restartable() ? signals.load() : 0), total());
}

TEST(PerCpu, NothingIsStoredWhenTheCheckTheTargetOrTheSlotIsAnother) {
  counters = std::make_unique<Counter[]>(per_cpu::slots());
  migrate(0);
  const unsigned slot = per_cpu::current();
  Counter& counter = counters[slot];
  EXPECT_FALSE(per_cpu::store_if(slot, counter.lock, counter.check, 2, counter.count, 0, 5));
  EXPECT_FALSE(per_cpu::store_if(slot, counter.lock, counter.check, 1, counter.count, 3, 5));
  if (per_cpu::restartable()) {
    EXPECT_FALSE(per_cpu::store_if(slot + 1, counter.lock, counter.check, 1, counter.count, 0, 5));
  }
  EXPECT_EQ(0U, counter.count);
  EXPECT_TRUE(per_cpu::store_if(slot, counter.lock, counter.check, 1, counter.count, 0, 5));
  EXPECT_EQ(5U, counter.count);
  Word cell = 0;
  EXPECT_FALSE(per_cpu::push_if(slot, counter.lock, counter.count, 4, cell, 9, 6));
  EXPECT_EQ(5U, counter.count);
  EXPECT_TRUE(per_cpu::push_if(slot, counter.lock, counter.count, 5, cell, 9, 6));
  EXPECT_EQ(6U, counter.count);
  EXPECT_EQ(9U, cell);
}

// A stack a slot of {version, depth} and cells, as allocators keep.
struct alignas(64) Stack {
  SlotLock lock;
  Word header = 0;
  std::array<Word, 8> cells = {};
};
constexpr std::uint64_t depth_mask = 0xff;
constexpr std::uint64_t version_step = 0x100;

bool push(std::vector<Stack>& stacks, std::uint64_t value) {
  while (true) {
    const unsigned slot = per_cpu::current();
    Stack& stack = stacks[slot];
    const std::uint64_t header = stack.header.load(std::memory_order_acquire);
    const std::uint64_t depth = header & depth_mask;
    if (depth == stack.cells.size()) return false;
    if (per_cpu::push_if(slot, stack.lock, stack.header, header, stack.cells[depth], value,
                         header + version_step + 1))
      return true;
  }
}

std::uint64_t pop(std::vector<Stack>& stacks) {
  while (true) {
    const unsigned slot = per_cpu::current();
    Stack& stack = stacks[slot];
    const std::uint64_t header = stack.header.load(std::memory_order_acquire);
    const std::uint64_t depth = header & depth_mask;
    if (depth == 0) return 0;
    const std::uint64_t value = stack.cells[depth - 1].load(std::memory_order_relaxed);
    if (per_cpu::store_if(slot, stack.lock, stack.header, header, stack.header, header,
                          header + version_step - 1))
      return value;
  }
}

TEST(PerCpu, WhatManyThreadsPushIsPoppedOnce) {
  std::vector<Stack> stacks(per_cpu::slots());
  constexpr unsigned threads = 4;
  constexpr std::uint64_t values = 40'000;
  std::vector<std::atomic<int>> seen(threads * values + 1);
  {
    std::vector<std::jthread> all;
    for (unsigned t = 0; t < threads; ++t)
      all.emplace_back([&, t] {
        for (std::uint64_t i = 1; i <= values; ++i) {
          if (i % 512 == 0) migrate(static_cast<unsigned>(t + i / 512));
          const std::uint64_t value = t * values + i;
          if (!push(stacks, value)) ++seen[value];
          if (i % 2 == 0) ++seen[pop(stacks)];
        }
      });
  }
  for (Stack& stack : stacks)
    for (std::uint64_t i = 0; i < (stack.header & depth_mask); ++i) ++seen[stack.cells[i]];
  for (std::size_t value = 1; value < seen.size(); ++value) ASSERT_EQ(1, seen[value]) << value;
}

// Owners add to their slot's counter while the check is 1; whoever changes the check and interrupts
// may add to any of them with no lock.
TEST(PerCpu, AfterAnInterruptNoSectionThatBeganBeforeCommits) {
  counters = std::make_unique<Counter[]>(per_cpu::slots());
  std::atomic<bool> stop = false;
  std::atomic<std::uint64_t> counted = 0;
  std::vector<std::jthread> owners;
  for (unsigned t = 0; t < 3; ++t)
    owners.emplace_back([&] {
      std::uint64_t mine = 0;
      while (!stop.load(std::memory_order_relaxed)) {
        const unsigned slot = per_cpu::current();
        Counter& counter = counters[slot];
        const std::uint64_t seen = counter.count.load(std::memory_order_relaxed);
        if (per_cpu::store_if(slot, counter.lock, counter.check, 1, counter.count, seen, seen + 1))
          ++mine;
      }
      counted += mine;
    });
  std::uint64_t added = 0;
  while (total() - added < 100'000) {
    for (unsigned slot = 0; slot < per_cpu::slots(); ++slot) {
      Counter& counter = counters[slot];
      counter.check.store(0, std::memory_order_relaxed);
      per_cpu::interrupt(slot, counter.lock);
      counter.count.store(counter.count.load() + 1000);
      added += 1000;
      counter.check.store(1, std::memory_order_release);
    }
  }
  stop = true;
  owners.clear();
  EXPECT_EQ(added + counted, total());
}

}  // namespace
}  // namespace accelmm::test
