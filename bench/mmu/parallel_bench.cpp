// SPDX-License-Identifier: Apache-2.0
//
// Two threads map and unmap 64 MiB of pages each, in one tree, beside two that store as many entries,
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
#include <thread>
#include <vector>

#include <benchmark/benchmark.h>

namespace accelmm::bench {
namespace {

constexpr std::uint64_t length = 32 * large;
constexpr int rounds = 512;  // long beside the time in which a thread begins

// Runs body(thread) so many times on so many threads at once. Returns the seconds from the first that
// began to the last that ended.
template <class Body>
double in_parallel(unsigned threads, Body body) {
  std::barrier start(threads);
  std::vector<Clock::time_point> begins(threads);
  std::vector<Clock::time_point> ends(threads);
  std::vector<std::thread> workers;
  for (unsigned i = 0; i < threads; ++i)
    workers.emplace_back([&, i] {
      start.arrive_and_wait();
      begins[i] = Clock::now();
      for (int round = 0; round < rounds; ++round) body(i);
      ends[i] = Clock::now();
    });
  for (std::thread& worker : workers) worker.join();
  const auto first = *std::min_element(begins.begin(), begins.end());
  const auto last = *std::max_element(ends.begin(), ends.end());
  return std::chrono::duration<double>(last - first).count();
}

// The shares lie side by side: in one tree, their tables above the last hop are the same.
void map_in_parallel(benchmark::State& state, unsigned threads, unsigned trees) {
  std::deque<Tree> all;
  for (unsigned i = 0; i < trees; ++i) all.emplace_back(200);
  std::atomic<bool> ok{true};
  for (auto _ : state) {
    state.SetIterationTime(in_parallel(threads, [&](unsigned thread) {
      Tree& tree = all[thread % trees];
      const std::uint64_t va =
          (std::uint64_t{1} << 40) + static_cast<std::uint64_t>(thread) * length;
      if (!tree.map(va, (std::uint64_t{1} << 33) + page, length) || !tree.unmap(va, length))
        ok = false;
    }));
  }
  if (!ok) return state.SkipWithError("refused");
  state.counters["items"] = rounds;
}

void store_in_parallel(benchmark::State& state, unsigned threads) {
  const Memory memory = zeroed(large);
  for (auto _ : state) {
    state.SetIterationTime(in_parallel(threads, [&](unsigned thread) {
      auto* const words = reinterpret_cast<std::uint64_t*>(memory.get()) + thread * 32 * 512;
      store_entries(words, length / page, 0x1'0000'0819, page);
      benchmark::ClobberMemory();
    }));
  }
  state.counters["items"] = rounds;
}

BENCHMARK_CAPTURE(map_in_parallel, two, 2, 1)->Name("mmu/map-parallel-2/ours")->UseManualTime();
BENCHMARK_CAPTURE(map_in_parallel, apart, 2, 2)
    ->Name("mmu/map-parallel-2/ours-two-trees")
    ->UseManualTime();
BENCHMARK_CAPTURE(map_in_parallel, one, 1, 1)
    ->Name("mmu/map-parallel-2/ours-one-thread")
    ->UseManualTime();
BENCHMARK_CAPTURE(store_in_parallel, two, 2)
    ->Name("mmu/map-parallel-2/store-loop")
    ->UseManualTime();
BENCHMARK_CAPTURE(store_in_parallel, one, 1)
    ->Name("mmu/map-parallel-2/store-loop-one-thread")
    ->UseManualTime();

}  // namespace
}  // namespace accelmm::bench
