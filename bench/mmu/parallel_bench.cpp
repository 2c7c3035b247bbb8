// SPDX-License-Identifier: Apache-2.0
//
// Two threads map and unmap 64 MiB or 1 GiB of pages each, in one tree, beside two that store as many entries,
// and two with a tree each, which share nothing but the processor. What one thread needs for its share
// is the time of a row; two rows beside each other say how either scales on this machine at this
// moment.
#include "mmu/tree.hpp"

#include <algorithm>
#include <atomic>
#include <barrier>
#include <chrono>
#include <cstdint>
#include <deque>
#include <string>
#include <thread>
#include <vector>

#include <benchmark/benchmark.h>
#include <sched.h>

namespace accelmm::bench {
namespace {

// Work of a run: long beside the time in which a thread begins.
constexpr std::uint64_t work = 16384 * large;

// Two that begin on one processor would share it for longer than a row takes, until the kernel parts
// them. Where there are too few processors, it parts them as it can.
void stay_on_processor(unsigned number) {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  for (unsigned i = 0; i < CPU_SETSIZE; ++i) {
    if (!CPU_ISSET(i, &allowed) || number-- > 0) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(i, &one);
    sched_setaffinity(0, sizeof one, &one);
    return;
  }
}

// Runs body(thread) so many times on so many threads at once, each on a processor of its own.
// Returns the seconds from the first that began to the last that ended.
template <class Body>
double in_parallel(unsigned threads, std::uint64_t rounds, Body body) {
  std::barrier start(threads);
  std::vector<Clock::time_point> begins(threads);
  std::vector<Clock::time_point> ends(threads);
  std::vector<std::thread> workers;
  for (unsigned i = 0; i < threads; ++i)
    workers.emplace_back([&, i] {
      stay_on_processor(i);
      start.arrive_and_wait();
      begins[i] = Clock::now();
      for (std::uint64_t round = 0; round < rounds; ++round) body(i);
      ends[i] = Clock::now();
    });
  for (std::thread& worker : workers) worker.join();
  const auto first = *std::min_element(begins.begin(), begins.end());
  const auto last = *std::max_element(ends.begin(), ends.end());
  return std::chrono::duration<double>(last - first).count();
}

// The shares lie side by side: in one tree, their tables above the last hop are the same.
void map_in_parallel(benchmark::State& state, std::uint64_t length, unsigned threads,
                     unsigned trees) {
  std::deque<Tree> all;
  for (unsigned i = 0; i < trees; ++i) all.emplace_back(2 * length / large + 128);
  std::atomic<bool> ok{true};
  for (auto _ : state) {
    state.SetIterationTime(in_parallel(threads, work / length, [&](unsigned thread) {
      Tree& tree = all[thread % trees];
      const std::uint64_t va =
          (std::uint64_t{1} << 40) + static_cast<std::uint64_t>(thread) * length;
      if (!tree.map(va, (std::uint64_t{1} << 33) + page, length) || !tree.unmap(va, length))
        ok = false;
    }));
  }
  if (!ok) return state.SkipWithError("refused");
  state.counters["items"] = static_cast<double>(work / length);
}

void store_in_parallel(benchmark::State& state, std::uint64_t length, unsigned threads) {
  const std::uint64_t share = length / page;
  const Memory memory = zeroed(std::max(large, 2 * share * sizeof(std::uint64_t)));
  for (auto _ : state) {
    state.SetIterationTime(in_parallel(threads, work / length, [&](unsigned thread) {
      auto* const words = reinterpret_cast<std::uint64_t*>(memory.get()) + thread * share;
      store_entries(words, share, 0x1'0000'0819, page);
      benchmark::ClobberMemory();
    }));
  }
  state.counters["items"] = static_cast<double>(work / length);
}

void add_rows(const std::string& row, std::uint64_t length) {
  const auto add = [&](const char* who, auto body) {
    benchmark::RegisterBenchmark((row + who).c_str(), body)->UseManualTime();
  };
  add("ours", [=](auto& state) { map_in_parallel(state, length, 2, 1); });
  add("ours-two-trees", [=](auto& state) { map_in_parallel(state, length, 2, 2); });
  add("ours-one-thread", [=](auto& state) { map_in_parallel(state, length, 1, 1); });
  add("store-loop", [=](auto& state) { store_in_parallel(state, length, 2); });
  add("store-loop-one-thread", [=](auto& state) { store_in_parallel(state, length, 1); });
}

const bool registered = [] {
  add_rows("mmu/map-parallel-2/", 32 * large);
  add_rows("mmu/map-parallel-2-1g/", 512 * large);
  return true;
}();

}  // namespace
}  // namespace accelmm::bench
