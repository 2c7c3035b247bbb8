// SPDX-License-Identifier: Apache-2.0
//
// What small requests cost in native pages of 2 MiB, beside the rule "a native page a request", and
// what taking and giving one costs in time.
#include "rows.hpp"
#include "workloads.hpp"

#include <accelmm/device_heap.hpp>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

namespace accelmm::bench {
namespace {

constexpr ByteCount native{std::uint64_t{2} << 20};
constexpr std::size_t owners = 16;
constexpr std::size_t requests = 4096;

struct Heap {
  Heap()
      : heap(DeviceHeap::create({.size = ByteCount(std::uint64_t{16} << 30), .native_page = native})
                 .value()) {
    for (std::size_t i = 0; i < owners; ++i)
      ids.push_back(heap.add_owner(std::make_shared<Account>(Account::Options{})).value());
  }
  DeviceHeap heap;
  std::vector<OwnerId> ids;
};

// 1 byte to 64 KiB, each power of two as likely as the others, of 16 sessions.
enum class Rule : std::uint8_t { as_built, page_each };

void native_bytes(benchmark::State& state, Rule rule) {
  double ratio = 0;
  for (auto _ : state) {
    Heap with;
    Random random(64);
    std::uint64_t asked = 0;
    for (std::size_t i = 0; i < requests; ++i) {
      const std::uint64_t size = 1 + random.below(1U << random.below(17));
      const auto got = with.heap.allocate(with.ids[i % owners], {.size = ByteCount(size)});
      if (!got) return state.SkipWithError("refused");
      asked += size;
    }
    const std::uint64_t held =
        rule == Rule::page_each ? requests * native.value() : with.heap.statistics().held.value();
    ratio = static_cast<double>(held) / static_cast<double>(asked);
  }
  state.counters["native bytes for a byte asked"] = ratio;
}

void pair(benchmark::State& state, ByteCount size) {
  Heap with;
  // A neighbour, so that the native page stays.
  if (!with.heap.allocate(with.ids[0], {.size = size})) return state.SkipWithError("refused");
  for (auto _ : state) {
    const auto got = with.heap.allocate(with.ids[0], {.size = size});
    if (!got || !with.heap.free(with.ids[0], got->id)) return state.SkipWithError("refused");
  }
}

const bool registered = [] {
  add_row("device-heap-small", "ours",
          [](benchmark::State& state) { native_bytes(state, Rule::as_built); })
      ->Iterations(1)
      ->Repetitions(1);
  add_row("device-heap-small-page-each", "ours",
          [](benchmark::State& state) { native_bytes(state, Rule::page_each); })
      ->Iterations(1)
      ->Repetitions(1);
  add_row("device-heap-pair-64", "ours",
          [](benchmark::State& state) { pair(state, ByteCount(64)); });
  add_row("device-heap-pair-64k", "ours",
          [](benchmark::State& state) { pair(state, ByteCount(65536)); });
  add_row("device-heap-pair-4m", "ours",
          [](benchmark::State& state) { pair(state, ByteCount(std::uint64_t{4} << 20)); });
  return true;
}();

}  // namespace
}  // namespace accelmm::bench
