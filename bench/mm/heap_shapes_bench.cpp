// SPDX-License-Identifier: Apache-2.0
//
// Objects of many sizes on one thread: the shapes of the Vulkan Memory Allocator's tests of virtual
// blocks, of UMF's benchmarks, and of those that mimalloc-bench gathers. Written anew from what each is
// said to do.
#include "models/tlsf.hpp"
#include "rows.hpp"
#include "script.hpp"
#include "slab_subject.hpp"
#include "subjects.hpp"
#include "workloads.hpp"

#include <accelmm/va_allocator.hpp>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>

namespace accelmm::bench {
namespace {

// Our allocator of addresses, as one of offsets: multiples of 16 bytes.
template <VaAllocator::Placement How>
class VaOffsets {
 public:
  using Piece = std::uint64_t;
  explicit VaOffsets(std::uint64_t bytes) : addresses_(make(bytes)) {}

  [[nodiscard]] bool take(std::uint64_t size, Piece& piece) { return take(size, granule, piece); }
  [[nodiscard]] bool take(std::uint64_t size, std::uint64_t alignment, Piece& piece) {
    const auto got = addresses_.allocate({.size = ByteCount(size),
                                          .alignment = Alignment(std::max(alignment, granule)),
                                          .placement = How});
    if (!got) return false;
    piece = got->begin.value();
    return true;
  }
  [[nodiscard]] bool give(Piece piece) { return addresses_.free(DeviceAddr(piece)).has_value(); }
  [[nodiscard]] static std::uint64_t address(Piece piece) { return piece - begin; }
  [[nodiscard]] bool whole() const {
    addresses_.validate();
    return addresses_.holes() == 1;
  }

 private:
  static constexpr std::uint64_t granule = 16;
  static constexpr std::uint64_t begin = 4096;  // address 0 is never given out
  static VaAllocator make(std::uint64_t bytes) {
    auto made = VaAllocator::create({DeviceAddr(begin), DeviceAddr(begin + bytes)},
                                    Alignment(granule), {.large = Alignment(256)});
    if (!made) std::abort();
    return std::move(*made);
  }
  VaAllocator addresses_;
};
using BestFit = VaOffsets<VaAllocator::Placement::best_fit>;
using BottomUp = VaOffsets<VaAllocator::Placement::bottom_up>;
using TopDown = VaOffsets<VaAllocator::Placement::top_down>;

constexpr std::uint64_t mib = std::uint64_t{1} << 20;

std::uint32_t random_of(std::vector<std::uint32_t>& slots, Random& random) {
  std::swap(slots[random.below(static_cast<std::uint32_t>(slots.size()))], slots.back());
  const std::uint32_t slot = slots.back();
  slots.pop_back();
  return slot;
}

// --- vma ---

// 7 200 allocations of at most 2 056 bytes, then 14 400 steps that each allocate or free at random.
Script vma_virt(std::uint64_t alignment) {
  Script script(16 * mib);
  Random random(7200);
  std::vector<std::uint32_t> live;
  const auto size = [&] { return 8 + std::uint64_t{random.below(2049)}; };
  for (unsigned i = 0; i < 7200; ++i) live.push_back(script.take(size(), alignment));
  for (unsigned i = 0; i < 14'400; ++i) {
    if (live.size() < 6000 || (random.below(2) == 0 && live.size() < 8000))
      live.push_back(script.take(size(), alignment));
    else
      script.give(random_of(live, random));
  }
  script.end();
  script.give_all();
  return script;
}
template <std::uint64_t Alignment>
const Script& vma_virt() {
  static const Script script = vma_virt(Alignment);
  return script;
}

enum class Freed { forward, backward, random };

// Ten times 3 333 allocations of 32 to 1 024 bytes and their frees, where nothing or a third is full.
Script vma_alg(Freed order, std::size_t full) {
  Script script(16 * mib);
  Random random(3333);
  const auto size = [&] { return 32 + std::uint64_t{random.below(993)}; };
  for (std::size_t i = 0; i < full; ++i) static_cast<void>(script.take(size()));
  script.begin();
  for (unsigned round = 0; round < 10; ++round) {
    std::vector<std::uint32_t> slots(3333);
    for (std::uint32_t& slot : slots) slot = script.take(size());
    if (order == Freed::backward) std::ranges::reverse(slots);
    if (order != Freed::random)
      for (const std::uint32_t slot : slots) script.give(slot);
    while (order == Freed::random && !slots.empty()) script.give(random_of(slots, random));
  }
  script.end();
  script.give_all();
  return script;
}
template <Freed Order, std::size_t Full>
const Script& vma_alg() {
  static const Script script = vma_alg(Order, Full);
  return script;
}

// --- UMF ---

enum class Sizes { fixed_4096, to_4096, to_128 };

std::uint64_t draw(Sizes sizes, Random& random) {
  switch (sizes) {
    case Sizes::fixed_4096:
      return 4096;
    case Sizes::to_4096:
      return 8 + std::uint64_t{random.below(4089)};
    case Sizes::to_128:
      return 8 + std::uint64_t{random.below(121)};
  }
  return 0;
}

// 10 000 objects live; a random one is freed and another allocated.
template <Sizes How>
const Script& umf_multi() {
  static const Script script = [] {
    Script made;
    Random random(10'000);
    std::vector<std::uint32_t> live(10'000);
    for (std::uint32_t& slot : live) slot = made.take(draw(How, random));
    made.begin();
    for (unsigned i = 0; i < 15'000; ++i) {
      made.give(random_of(live, random));
      live.push_back(made.take(draw(How, random)));
    }
    made.end();
    made.give_all();
    return made;
  }();
  return script;
}

// From nothing to 10 000 objects and back, allocations and frees mixed on the way.
template <Sizes How>
const Script& umf_peak() {
  static const Script script = [] {
    Script made;
    Random random(4);
    std::vector<std::uint32_t> live;
    while (live.size() < 10'000)
      if (live.empty() || random.below(100) < 75)
        live.push_back(made.take(draw(How, random)));
      else
        made.give(random_of(live, random));
    while (!live.empty())
      if (random.below(100) < 25)
        live.push_back(made.take(draw(How, random)));
      else
        made.give(random_of(live, random));
    return made;
  }();
  return script;
}

// --- of mimalloc-bench ---

// Batches of one size after the other, of which each leaves some behind for a while, freed first in
// first out and last in first out by turns. `largest` is 1 000 bytes for sh6bench, 8 000 for sh8bench.
Script smart_heap(std::uint64_t largest) {
  Script script;
  Random random(6);
  std::vector<std::uint32_t> kept;
  for (unsigned round = 0; round < 6; ++round) {
    for (std::uint64_t size = 16; size <= largest; size += largest / 50) {
      std::vector<std::uint32_t> batch(100);
      for (std::uint32_t& slot : batch) slot = script.take(size);
      if (random.below(2) == 0) std::ranges::reverse(batch);
      for (std::size_t i = 0; i < batch.size(); ++i) {
        if (i % 4 != 3) {
          script.give(batch[i]);
          continue;
        }
        kept.push_back(batch[i]);
        if (kept.size() > 2000) script.give(random_of(kept, random));
      }
    }
  }
  script.end();
  script.give_all();
  return script;
}
template <std::uint64_t Largest>
const Script& smart_heap() {
  static const Script script = smart_heap(Largest);
  return script;
}

// So many live blocks, taken and freed together: 25, 100, 400 and 1 600 of 16 to 1 024 bytes.
const Script& glibc_simple() {
  static const Script script = [] {
    Script made;
    for (const std::size_t count : {25U, 100U, 400U, 1600U}) {
      for (std::uint64_t size = 16; size <= 1024; size *= 2) {
        std::vector<std::uint32_t> slots(count);
        for (std::size_t round = 0; round < 1600 / count; ++round) {
          for (std::uint32_t& slot : slots) slot = made.take(size);
          for (const std::uint32_t slot : slots) made.give(slot);
        }
      }
    }
    return made;
  }();
  return script;
}

// A slot, mostly of a favoured fifth, is freed if it is taken and else filled, with sizes of which each
// doubling is half as likely as the one before, to 8 KiB.
const Script& alloc_test() {
  static const Script script = [] {
    constexpr std::uint32_t slots = 10'000;
    constexpr std::uint32_t empty = ~std::uint32_t{0};
    Script made;
    Random random(1999);
    std::vector<std::uint32_t> taken(slots, empty);
    for (unsigned i = 0; i < 100'000; ++i) {
      if (i == 20'000) made.begin();
      std::uint32_t& slot = taken[random.below(random.below(5) == 0 ? slots : slots / 5)];
      if (slot != empty) {
        made.give(std::exchange(slot, empty));
      } else {
        const std::uint64_t least = std::uint64_t{8} << std::countr_zero(random() | 1U << 9);
        slot = made.take(least + random.below(static_cast<std::uint32_t>(least)));
      }
    }
    made.end();
    made.give_all();
    return made;
  }();
  return script;
}

// 20 blocks of 5 to 25 MiB; a random one is freed and another allocated.
const Script& malloc_large() {
  static const Script script = [] {
    Script made(std::uint64_t{1} << 30);
    Random random(25);
    const auto size = [&] { return 5 * mib + random.below(20 * mib + 1); };
    std::vector<std::uint32_t> live(20);
    for (std::uint32_t& slot : live) slot = made.take(size());
    made.begin();
    for (unsigned i = 0; i < 2000; ++i) {
      made.give(random_of(live, random));
      live.push_back(made.take(size()));
    }
    made.end();
    made.give_all();
    return made;
  }();
  return script;
}

void add_vma_rows(const std::string& work, const Script& (*script)()) {
  add_script_row<BestFit>(work, "ours", script);
  add_script_row<BottomUp>(work, "ours-bottom-up", script);
  add_script_row<TopDown>(work, "ours-top-down", script);
  add_script_row<TlsfModel>(work, "model-tlsf", script);
}

void add_heap_rows(const std::string& work, const Script& (*script)()) {
  add_script_row<SlabSubject>(work, "ours", script);
  add_malloc_script_rows(work, script);
}

const bool registered = [] {
  add_vma_rows("vma-virt-a1", vma_virt<1>);
  add_vma_rows("vma-virt-a16", vma_virt<16>);
  add_vma_rows("vma-virt-a64", vma_virt<64>);
  add_vma_rows("vma-virt-a256", vma_virt<256>);
  add_vma_rows("vma-alg-forward", vma_alg<Freed::forward, 0>);
  add_vma_rows("vma-alg-backward", vma_alg<Freed::backward, 0>);
  add_vma_rows("vma-alg-random", vma_alg<Freed::random, 0>);
  add_vma_rows("vma-alg-random-third", vma_alg<Freed::random, 1667>);
  add_heap_rows("umf-multi-4096", umf_multi<Sizes::fixed_4096>);
  add_heap_rows("umf-multi-8-4096", umf_multi<Sizes::to_4096>);
  add_heap_rows("umf-multi-8-128", umf_multi<Sizes::to_128>);
  add_heap_rows("umf-peak-4096", umf_peak<Sizes::fixed_4096>);
  add_heap_rows("umf-peak-8-4096", umf_peak<Sizes::to_4096>);
  add_heap_rows("umf-peak-8-128", umf_peak<Sizes::to_128>);
  add_heap_rows("sh6bench", smart_heap<1000>);
  add_heap_rows("sh8bench", smart_heap<8000>);
  add_heap_rows("glibc-simple", glibc_simple);
  add_heap_rows("alloc-test", alloc_test);
  add_script_row<PageSubject>("malloc-large", "ours", malloc_large);
  add_script_row<TlsfModel>("malloc-large", "model-tlsf", malloc_large);
  add_malloc_script_rows("malloc-large", malloc_large, Room::over_256_mib);
  return true;
}();

}  // namespace
}  // namespace accelmm::bench
