// SPDX-License-Identifier: Apache-2.0
//
// Input: one byte for the options and one for how many chunks the source gives, then (operation,
// argument) byte pairs. Wrong frees are tried too: the heap must refuse them. What the bytes cannot
// name is skipped, so that every input runs to its end.
#include "property/mm/heap_model.hpp"

#include <cstddef>
#include <cstdint>
#include <span>

namespace {

using accelmm::ByteCount;
using accelmm::Heap;
using accelmm::Slab;
using accelmm::ZeroFill;
using accelmm::test::JudgedHeap;

/// A size from one byte: 1 B to 12 MiB, just below, at and above sizes where something changes.
std::uint64_t size_of(std::uint8_t argument) {
  const std::uint64_t size = (std::uint64_t{8} + argument % 8) << (argument / 8 % 21);
  return size + (argument >= 168 ? argument % 3 : 1) - 1;
}

Heap::Options options_of(std::uint8_t bits) {
  Heap::Options options;
  if ((bits & 1) != 0) options.spacing = Slab::Spacing::cache_lines;
  if ((bits & 2) != 0) options.order = Slab::Order::random;
  if ((bits & 4) != 0) options.quarantine.queue = bits / 8U;
  if ((bits & 8) != 0) options.canaries = Heap::Canaries::yes;
  if ((bits & 16) != 0) options.guard = ByteCount(4096);
  if ((bits & 32) != 0) options.dedicated_from = ByteCount(1 << 20);
  options.spare_chunks = bits / 64U;
  return options;
}

void step(JudgedHeap& heap, std::uint8_t operation, std::uint8_t argument) {
  const void* const live = heap.live_pointer(argument);
  const std::uint64_t many = operation / 8U;
  switch (operation % 8) {
    case 0:
      heap.allocate(size_of(argument), 0);
      return;
    case 1:
      heap.allocate(size_of(argument), static_cast<unsigned>(many % 24),
                    many % 2 == 0 ? ZeroFill::no : ZeroFill::yes);
      return;
    case 2:
      heap.reallocate(live, size_of(static_cast<std::uint8_t>(many * 8)));
      return;
    case 3:
    case 4:
      heap.free(live);
      return;
    case 5:
      heap.free(many % 2 == 0 ? heap.freed_pointer(argument)
                              : static_cast<const std::byte*>(live) + (many << (argument % 12)));
      return;
    case 6:
      if (many % 2 == 0)
        heap.free_sized(live, size_of(argument));
      else
        heap.damage(live);
      return;
    default:
      heap.trim();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::uint8_t> input(data, size);
  if (input.size() < 4) return 0;
  JudgedHeap heap(options_of(input[0]));
  heap.allow(1U + input[1] % 24U);
  // validate() runs after every operation, so that a long input says no more than two short ones.
  constexpr std::size_t longest = 400;
  for (std::size_t i = 2; i + 1 < input.size() && i < longest; i += 2)
    step(heap, input[i], input[i + 1]);
  heap.free_everything();
  return 0;
}
