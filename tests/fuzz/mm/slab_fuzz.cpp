// SPDX-License-Identifier: Apache-2.0
//
// Input: one byte for the options and one for how many slabs the source gives, whose top bit says that
// bulk is trusted, then (operation, argument) byte pairs. Wrong frees are tried too: the allocator must
// refuse them. What the bytes cannot name is skipped, so that every input runs to its end.
#include "property/mm/slab_model.hpp"

#include <cstddef>
#include <cstdint>
#include <span>

namespace {

using accelmm::Slab;
using accelmm::test::JudgedSlab;

/// A size from one byte: multiples of 16, then of 256, a little less than the multiple or just it.
std::uint64_t size_of(std::uint8_t argument) {
  const std::uint64_t step = argument / 4U + 1U;
  const std::uint64_t size = argument % 2 == 0 ? step * 16 : step * 256;
  return size - (argument % 4 >= 2 ? 1 : 0);
}

Slab::Options options_of(std::uint8_t bits, Slab::Bulk bulk) {
  Slab::Options options{.bulk = bulk};
  if ((bits & 1) != 0) options.spacing = Slab::Spacing::cache_lines;
  if ((bits & 2) != 0) options.order = Slab::Order::random;
  if ((bits & 4) != 0) options.quarantine.random = bits / 16U;
  if ((bits & 8) != 0) options.quarantine.queue = bits / 8U;
  options.spare_slabs = bits / 64U;
  return options;
}

void step(JudgedSlab& slab, std::uint8_t operation, std::uint8_t argument) {
  const std::size_t many = 1U + operation / 8U;
  switch (operation % 8) {
    case 0:
    case 1:
      slab.allocate(size_of(argument));
      return;
    case 2:
      slab.allocate_bulk(size_of(argument), many * 4);
      return;
    case 3:
      slab.free(slab.live_offset(argument));
      return;
    case 4:
      slab.free_some(argument, many * 4);
      return;
    case 5:
      slab.free(slab.freed_offset(argument));
      return;
    case 6:
      if (many % 2 == 0)
        slab.free(slab.live_offset(argument) + many);
      else
        slab.free_some(argument, many, slab.freed_offset(argument));
      return;
    default:
      if (argument % 3 == 0)
        slab.drain();
      else if (argument % 3 == 1)
        slab.trim();
      else
        slab.recount();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::uint8_t> input(data, size);
  if (input.size() < 4) return 0;
  JudgedSlab slab(options_of(input[0], input[1] < 128 ? Slab::Bulk::checked : Slab::Bulk::trusted));
  slab.allow(1U + input[1] % 128U % 40U);
  // validate() runs after every operation, so that a long input says no more than two short ones.
  constexpr std::size_t longest = 600;
  for (std::size_t i = 2; i + 1 < input.size() && i < longest; i += 2)
    step(slab, input[i], input[i + 1]);
  slab.free_everything();
  return 0;
}
