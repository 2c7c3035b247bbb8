// SPDX-License-Identifier: Apache-2.0
#include <accelmm/page_allocator.hpp>

#include <cstdlib>

#include <benchmark/benchmark.h>

namespace accelmm::bench {
namespace {

constexpr ByteCount region = 64_GiB;

PageAllocator make_allocator() {
  auto pages = PageAllocator::create({.size = region, .page = Alignment(4096)});
  if (!pages) std::abort();
  return std::move(*pages);
}

// One 4 KiB page taken and given back, over and over, from an otherwise whole region.
void page_hot_4k(benchmark::State& state) {
  PageAllocator pages = make_allocator();
  for (auto _ : state) {
    const auto page = pages.allocate(4096_B);
    benchmark::DoNotOptimize(page);
    if (!page || !pages.free(*page)) return state.SkipWithError("allocator refused");
  }
  pages.validate();
}
BENCHMARK(page_hot_4k)->Name("mm/page-hot-4k/ours");

// What malloc takes for a page of the same size. It is the program's own: glibc's, unless something
// was preloaded.
void page_hot_4k_malloc(benchmark::State& state) {
  for (auto _ : state) {
    void* page = std::malloc(4096);
    benchmark::DoNotOptimize(page);
    std::free(page);
  }
}
BENCHMARK(page_hot_4k_malloc)->Name("mm/page-hot-4k/malloc");

void metadata(benchmark::State& state) {
  const PageAllocator pages = make_allocator();
  for (auto _ : state) benchmark::ClobberMemory();
  state.counters["%"] = 100.0 * static_cast<double>(pages.statistics().metadata.value()) /
                        static_cast<double>(region.value());
}
BENCHMARK(metadata)->Name("mm/metadata-per-cent/ours")->Iterations(1);

}  // namespace
}  // namespace accelmm::bench
