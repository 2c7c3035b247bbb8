// SPDX-License-Identifier: Apache-2.0
//
// Shapes of the Linux kernel's tests of its GPU buddy allocator (drivers/gpu/tests), beside the two in
// trace_bench.cpp; written anew from what they do.
#include "models/tlsf.hpp"
#include "rows.hpp"
#include "script.hpp"
#include "subjects.hpp"
#include "workloads.hpp"

#include <accelmm/page_allocator.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>

namespace accelmm::bench {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::uint64_t gib = std::uint64_t{1} << 30;
constexpr std::uint64_t page = 4096;
constexpr std::uint64_t pool = 4 * gib;

// One block of each order, largest first, until a page is left; then the largest goes and makes room
// for one of each smaller order, and so on down: a pool of which half is free, a page at a time.
const Script& pathological() {
  static const Script script = [] {
    constexpr unsigned orders = 17;
    Script made(page << orders);
    for (unsigned round = 0; round < 8; ++round) {
      std::vector<std::uint32_t> live;
      std::vector<std::uint32_t> largest;
      for (unsigned top = orders; top-- > 0;) {
        if (!largest.empty()) {
          made.give(largest.back());
          largest.pop_back();
        }
        for (unsigned order = top + 1; order-- > 0;) {
          const std::uint32_t slot = made.take(page << order);
          (order == top ? largest : live).push_back(slot);
          if (order == top && top + 1 < orders) break;
        }
        if (largest.size() > 1) largest.erase(largest.begin());
      }
      made.give_all();
    }
    return made;
  }();
  return script;
}

// One block of each order until a page is left, freed smallest first: all must merge again.
const Script& pessimistic() {
  static const Script script = [] {
    constexpr unsigned orders = 20;
    Script made(page << orders);
    for (unsigned round = 0; round < 1000; ++round) {
      std::vector<std::uint32_t> slots;
      for (unsigned order = orders; order-- > 0;) slots.push_back(made.take(page << order));
      slots.push_back(made.take(page));
      for (std::size_t i = slots.size(); i-- > 0;) made.give(slots[i]);
    }
    return made;
  }();
  return script;
}

PageAllocator made(std::uint64_t bytes) {
  auto pages = PageAllocator::create({.size = ByteCount(bytes)});
  if (!pages) std::abort();
  return std::move(*pages);
}

// The pool filled with pages, of which the even ones are freed as zeros and the odd ones as anything.
[[nodiscard]] bool fill_and_free(PageAllocator& pages) {
  std::vector<Extent> extents(pool / page);
  for (Extent& extent : extents) {
    const auto got = pages.allocate(ByteCount(page));
    if (!got) return false;
    extent = *got;
  }
  for (const Extent& extent : extents) {
    const bool even = extent.offset.value() / page % 2 == 0;
    if (!pages.free(extent, even ? Contents::zeros : Contents::unknown)) return false;
  }
  return true;
}

/// How many bytes of an extent are known to be zeros, asked piece by piece.
[[nodiscard]] std::uint64_t zeros_of(const PageAllocator& pages, Extent rest) {
  std::uint64_t zeros = rest.length.value();
  while (rest.length > ByteCount(0)) {
    const Extent dirty = pages.first_dirty(rest).value();
    zeros -= dirty.length.value();
    if (dirty.length == ByteCount(0)) break;
    rest = {dirty.end(), rest.end() - dirty.end()};
  }
  return zeros;
}

// After that, all of the pool in one, or in 16 384 blocks, and what of it need not be cleared.
void clear(benchmark::State& state, std::uint64_t size) {
  auto pages = made(pool);
  for (auto _ : state) {
    state.PauseTiming();
    if (!fill_and_free(pages)) return state.SkipWithError("refused to fill");
    state.ResumeTiming();
    std::vector<Extent> extents(pool / size);
    const auto start = Clock::now();
    std::uint64_t zeros = 0;
    for (Extent& extent : extents) {
      const auto got = pages.allocate(ByteCount(size), Alignment(size));
      if (!got) return state.SkipWithError("refused");
      extent = *got;
      zeros += zeros_of(pages, extent);
    }
    state.counters["ms"] = std::chrono::duration<double>(Clock::now() - start).count() * 1e3;
    if (zeros != pool / 2) return state.SkipWithError("forgot which pages are zeros");
    for (const Extent& extent : extents)
      if (!pages.free(extent)) return state.SkipWithError("refused to free");
  }
}

// Blocks of random orders inside windows that get narrower from both ends; each wholly inside.
void range_bias(benchmark::State& state) {
  auto pages = made(pool);
  constexpr unsigned windows = 64;
  constexpr unsigned each = 200;
  struct Wish {
    Range<RegionOffset> within;
    std::uint64_t size;
  };
  Random random(64);
  std::vector<Wish> wishes;
  for (std::uint64_t w = 0; w < windows; ++w)
    for (unsigned i = 0; i < each; ++i)
      wishes.push_back(
          {{RegionOffset(w * (pool / windows / 2)), RegionOffset(pool - w * (pool / windows / 2))},
           page << random.below(8)});
  for (auto _ : state) {
    std::vector<Extent> extents;
    extents.reserve(wishes.size());
    const auto start = Clock::now();
    for (const Wish& wish : wishes) {
      const auto got = pages.allocate({.size = ByteCount(wish.size), .within = wish.within});
      if (!got) return state.SkipWithError("refused");
      extents.push_back(*got);
    }
    for (const Extent& extent : extents)
      if (!pages.free(extent)) return state.SkipWithError("refused to free");
    state.SetIterationTime(std::chrono::duration<double>(Clock::now() - start).count());
    for (std::size_t i = 0; i < wishes.size(); ++i)
      if (extents[i].offset < wishes[i].within.begin || wishes[i].within.end < extents[i].end())
        return state.SkipWithError("outside its range");
  }
  state.counters["items"] = static_cast<double>(2 * wishes.size());
}

// The pool in pages, of which every other is freed, and every 16th 64 KiB as a whole: then pages at
// multiples of 64 KiB, which only those have.
const Script& offset_align() {
  static const Script script = [] {
    Script made(pool / 4);
    std::vector<std::uint32_t> slots(made.region() / page);
    for (std::uint32_t& slot : slots) slot = made.take(page);
    for (std::size_t i = 0; i < slots.size(); ++i)
      if (i % 2 == 1 || i / 16 % 16 == 0) made.give(slots[i]);
    made.begin();
    std::vector<std::uint32_t> aligned;
    for (std::size_t i = 0; i < slots.size() / 16 / 16; ++i)
      aligned.push_back(made.take(page, 16 * page));
    for (const std::uint32_t slot : aligned) made.give(slot);
    made.end();
    made.give_all();
    return made;
  }();
  return script;
}

const bool registered = [] {
  add_script_row<PageSubject>("gb-pathological", "ours", pathological);
  add_script_row<TlsfModel>("gb-pathological", "model-tlsf", pathological);
  add_script_row<PageSubject>("gb-pessimistic", "ours", pessimistic);
  add_script_row<TlsfModel>("gb-pessimistic", "model-tlsf", pessimistic);
  add_script_row<PageSubject>("gb-offset-align", "ours", offset_align);
  add_row("gb-clear1", "ours", [](auto& state) { clear(state, pool); })->Iterations(1);
  add_row("gb-clear2", "ours", [](auto& state) { clear(state, pool / 16'384); })->Iterations(1);
  add_row("gb-range-bias", "ours", range_bias)->UseManualTime();
  return true;
}();

}  // namespace
}  // namespace accelmm::bench
