// SPDX-License-Identifier: Apache-2.0
#include <accelmm/mmu/npu1.hpp>
#include <accelmm/mmu/page_table.hpp>
#include <accelmm/mmu/table_pool.hpp>

#include <array>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>

#include <benchmark/benchmark.h>

namespace accelmm::bench {
namespace {

using Clock = std::chrono::steady_clock;
constexpr ByteCount mapped = 1_GiB;
constexpr DeviceAddr va(std::uint64_t{1} << 32);

struct Freed {
  void operator()(void* memory) const { std::free(memory); }
};
using Memory = std::unique_ptr<std::byte, Freed>;

Memory zeroed(std::size_t bytes) {
  Memory memory(static_cast<std::byte*>(std::aligned_alloc(4096, bytes)));
  std::memset(memory.get(), 0, bytes);
  return memory;
}

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Maps 1 GiB that lies at `bus` into a tree that has only its root, and takes it away again
// untimed: the tables are zeroed and their lines are in whatever cache 2 MiB of stores leave them
// in, as the store loop's are.
void map_1g(benchmark::State& state, BusAddr bus) {
  constexpr std::size_t pool_bytes = 4 << 20;
  const Memory memory = zeroed(pool_bytes);
  auto pool = mmu::TablePool::create(
      {.begin = BusAddr(4096), .size = ByteCount(pool_bytes), .cpu_view = memory.get()});
  if (!pool) return state.SkipWithError("no pool");
  auto table = mmu::PageTable<mmu::Npu1, mmu::TablePool>::create(*pool);
  if (!table) return state.SkipWithError("no table");
  const std::array<Run, 1> runs{Run{bus, mapped}};
  const Range<DeviceAddr> range{va, va + mapped};
  for (auto _ : state) {
    const auto start = Clock::now();
    const auto result = table->map(va, runs, Access::read_write);
    state.SetIterationTime(seconds_since(start));
    if (!result) return state.SkipWithError(result.error().what);
    const auto last = table->translate(range.end - ByteCount(1));
    if (!last || last->address != bus + mapped - ByteCount(1))
      return state.SkipWithError("wrong translation");
    auto gone = table->unmap(range);
    if (!gone) return state.SkipWithError("cannot unmap");
    std::move(*gone).release(mmu::InvalidationDone::never_shown());
  }
  table->detach_all().release(mmu::InvalidationDone::never_shown());
}

// The limit of any page table: the same entries, stored one after the other into an array.
void store_loop(benchmark::State& state, std::uint64_t page) {
  const std::size_t count = mapped.value() / page;
  const std::size_t bytes = count * sizeof(std::uint64_t);
  const Memory memory = zeroed(std::max<std::size_t>(bytes, 4096));
  auto* const entries = reinterpret_cast<std::uint64_t*>(memory.get());
  for (auto _ : state) {
    const auto start = Clock::now();
    std::uint64_t entry = 0x100000819;
    for (std::size_t i = 0; i < count; ++i, entry += page) entries[i] = entry;
    benchmark::DoNotOptimize(entries);
    benchmark::ClobberMemory();
    state.SetIterationTime(seconds_since(start));
    std::memset(entries, 0, bytes);
    benchmark::ClobberMemory();
  }
}

// One page off a 2 MiB boundary, so that nothing but 4 KiB leaves fit.
BENCHMARK_CAPTURE(map_1g, pages, BusAddr((std::uint64_t{1} << 33) + 4096))
    ->Name("mmu/map-1g-4k/ours")
    ->UseManualTime();
BENCHMARK_CAPTURE(store_loop, pages, 4096)->Name("mmu/map-1g-4k/store-loop")->UseManualTime();
BENCHMARK_CAPTURE(map_1g, large, BusAddr(std::uint64_t{1} << 33))
    ->Name("mmu/map-1g-2m/ours")
    ->UseManualTime();
BENCHMARK_CAPTURE(store_loop, large, std::uint64_t{2} << 20)
    ->Name("mmu/map-1g-2m/store-loop")
    ->UseManualTime();

}  // namespace
}  // namespace accelmm::bench
