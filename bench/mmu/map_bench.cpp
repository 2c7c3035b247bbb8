// SPDX-License-Identifier: Apache-2.0
//
// One call of map or unmap, in the shapes that the kernel's generic page tables are published with: 1
// and 256 entries of 4 KiB. Device and bus addresses differ by one page, so that nothing larger fits.
// 64 calls are timed together: a single one is shorter than the clock can tell.
#include "mmu/tree.hpp"

#include <atomic>
#include <cstdint>
#include <vector>

#include <benchmark/benchmark.h>

namespace accelmm::bench {
namespace {

constexpr std::uint64_t calls = 64;
constexpr std::uint64_t base = std::uint64_t{1} << 40;
constexpr std::uint64_t bus_base = (std::uint64_t{1} << 33) + page;

// Where one call of a batch goes.
struct Shape {
  std::uint64_t pages;
  std::uint64_t stride;  // from call to call
  bool keeps_tables;     // another page stays mapped in each table
};
constexpr Shape one_page{1, page, true};
constexpr Shape new_table{256, large, false};
constexpr Shape old_table{256, large, true};

struct Batch {
  explicit Batch(Shape of) : shape(of), tree(calls + 16) {
    for (std::uint64_t i = 0; shape.keeps_tables && i < calls; ++i) {
      const std::uint64_t va = (base + i * shape.stride) / large * large + large - page;
      if (!tree.table().translate(DeviceAddr(va))) ok = ok && tree.map(va, bus_base, page);
    }
    // What lies above the tables of a batch stays: only the last hop comes and goes.
    ok = ok && tree.map(base + 300 * large, bus_base, page);
  }
  void map() {
    for (std::uint64_t i = 0; i < calls; ++i)
      ok = tree.map(base + i * shape.stride, bus_base + i * shape.pages * page,
                    shape.pages * page) &&
           ok;
  }
  void unmap() {
    for (std::uint64_t i = 0; i < calls; ++i)
      ok = tree.unmap(base + i * shape.stride, shape.pages * page) && ok;
  }
  [[nodiscard]] bool is_right() const {
    const std::uint64_t last = calls - 1;
    return tree.leads_to(base + last * shape.stride, bus_base + last * shape.pages * page);
  }

  Shape shape;
  Tree tree;
  bool ok = true;
};

enum class Timed { map, unmap };

void calls_of(benchmark::State& state, Shape shape, Timed timed) {
  Batch batch(shape);
  batch.map();
  if (!batch.ok || !batch.is_right()) return state.SkipWithError("wrong tables");
  batch.unmap();
  for (auto _ : state) {
    const auto start = Clock::now();
    batch.map();
    const auto mapped = Clock::now();
    batch.unmap();
    const std::chrono::duration<double> spent =
        timed == Timed::map ? mapped - start : Clock::now() - mapped;
    state.SetIterationTime(spent.count());
  }
  if (!batch.ok) return state.SkipWithError("refused");
  state.counters["items"] = calls;
}

// One store, and one compare-and-swap: the least with which a page can be entered in a shared table.
void store_and_swap(benchmark::State& state) {
  const Memory memory = zeroed(large);
  auto* const words = reinterpret_cast<std::uint64_t*>(memory.get());
  std::atomic<std::uint32_t> live{0};
  for (auto _ : state) {
    const auto start = Clock::now();
    for (std::uint64_t i = 0; i < calls; ++i) {
      std::uint32_t seen = live.load(std::memory_order_relaxed);
      live.compare_exchange_strong(seen, seen + 1, std::memory_order_acq_rel);
      std::atomic_ref(words[i]).store(i << 12 | 0x819, std::memory_order_relaxed);
    }
    state.SetIterationTime(seconds_since(start));
  }
  state.counters["items"] = calls;
}

// 256 entries into each of 64 tables.
void fill_256(benchmark::State& state) {
  const Memory memory = zeroed(large);
  auto* const words = reinterpret_cast<std::uint64_t*>(memory.get());
  for (auto _ : state) {
    const auto start = Clock::now();
    for (std::uint64_t i = 0; i < calls; ++i)
      store_entries(words + i * 512, 256, i << 20 | 0x819, page);
    benchmark::ClobberMemory();
    state.SetIterationTime(seconds_since(start));
  }
  state.counters["items"] = calls;
}

BENCHMARK_CAPTURE(calls_of, map1, one_page, Timed::map)->Name("mmu/map-1x4k/ours")->UseManualTime();
BENCHMARK(store_and_swap)->Name("mmu/map-1x4k/store-loop")->UseManualTime();
BENCHMARK_CAPTURE(calls_of, unmap1, one_page, Timed::unmap)
    ->Name("mmu/unmap-1x4k/ours")
    ->UseManualTime();
BENCHMARK(store_and_swap)->Name("mmu/unmap-1x4k/store-loop")->UseManualTime();
BENCHMARK_CAPTURE(calls_of, map256new, new_table, Timed::map)
    ->Name("mmu/map-256x4k-new/ours")
    ->UseManualTime();
BENCHMARK(fill_256)->Name("mmu/map-256x4k-new/store-loop")->UseManualTime();
BENCHMARK_CAPTURE(calls_of, map256old, old_table, Timed::map)
    ->Name("mmu/map-256x4k-checked/ours")
    ->UseManualTime();
BENCHMARK(fill_256)->Name("mmu/map-256x4k-checked/store-loop")->UseManualTime();
BENCHMARK_CAPTURE(calls_of, unmap256, new_table, Timed::unmap)
    ->Name("mmu/unmap-256x4k/ours")
    ->UseManualTime();
BENCHMARK(fill_256)->Name("mmu/unmap-256x4k/store-loop")->UseManualTime();

}  // namespace
}  // namespace accelmm::bench
