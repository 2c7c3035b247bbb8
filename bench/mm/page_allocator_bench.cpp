// SPDX-License-Identifier: Apache-2.0
//
// Pages and 2 MiB blocks over and over, and a random mix of orders.
#include "models/tlsf.hpp"
#include "rows.hpp"
#include "subjects.hpp"
#include "workloads.hpp"

#include <benchmark/benchmark.h>

namespace accelmm::bench {
namespace {

constexpr std::uint64_t region = std::uint64_t{64} << 30;
constexpr std::uint64_t page = 4096;
constexpr std::uint64_t large = std::uint64_t{2} << 20;

template <class Subject>
void hot(benchmark::State& state, Request request) {
  Subject subject(region);
  hot_pair(state, subject, request);
  if (!subject.whole()) state.SkipWithError("not whole at the end");
}

void add_hot_rows(const std::string& work, Request request) {
  add_row(work, "ours", [=](auto& state) { hot<PageSubject>(state, request); });
  add_malloc_rows(work, [=](benchmark::State& state, MallocSubject&& subject) {
    hot_pair(state, std::move(subject), request);
  });
  add_row(work, "model-tlsf", [=](auto& state) { hot<TlsfModel>(state, request); });
}

// 4 KiB to 64 MiB, with half of the region live.
constexpr Mix orders{Mix::Kind::log_uniform_orders, 0, 14};
constexpr Fill half{.bytes = region / 2};

template <class Subject>
void random_orders(benchmark::State& state, std::uint64_t alignment) {
  Subject subject(region);
  random_replace(state, subject, orders, half, alignment);
  if (!subject.whole()) state.SkipWithError("not whole at the end");
}

void metadata_per_cent(benchmark::State& state) {
  const PageSubject subject(region);
  for (auto _ : state) benchmark::ClobberMemory();
  state.counters["%"] = 100.0 *
                        static_cast<double>(subject.allocator().statistics().metadata.value()) /
                        static_cast<double>(region);
}

const bool registered = [] {
  add_hot_rows("page-hot-4k", {.size = page});
  add_hot_rows("page-hot-2m", {.size = large, .alignment = large});
  add_row("page-random-4k-64m", "ours", [](auto& state) { random_orders<PageSubject>(state, 0); });
  add_row("page-random-4k-64m", "model-tlsf",
          [](auto& state) { random_orders<TlsfModel>(state, 0); });
  const std::string aligned = "page-random-4k-64m-aligned-2m";
  add_row(aligned, "ours", [](auto& state) { random_orders<PageSubject>(state, large); });
  add_row(aligned, "ours-unaligned", [](auto& state) { random_orders<PageSubject>(state, 0); });
  add_row(aligned, "model-tlsf", [](auto& state) { random_orders<TlsfModel>(state, large); });
  add_row("metadata-per-cent", "ours", metadata_per_cent)->Iterations(1);
  return true;
}();

}  // namespace
}  // namespace accelmm::bench
