// SPDX-License-Identifier: Apache-2.0
//
// Input: a byte for the native page, one for how many there are and what is kept, then (operation,
// argument) byte pairs. The model judges each answer, refusals too; what the bytes cannot name is
// skipped, so that every input runs to its end.
#include "property/mm/device_heap_model.hpp"

#include <cstddef>
#include <cstdint>
#include <span>

namespace {

using namespace accelmm;
using test::JudgedHeap;

/// A size from one byte: small ones in steps of a sixteenth of a native page, then whole pages.
std::uint64_t size_of(const JudgedHeap& heap, std::uint8_t argument) {
  const std::uint64_t step = argument % 16 + 1U;
  switch (argument / 64) {
    case 0:
      return step * 100;
    case 1:
      return step * heap.native() / 16;
    default:
      return step * heap.native() / 2;
  }
}

void step(JudgedHeap& heap, std::uint8_t operation, std::uint8_t argument) {
  const std::size_t owner = operation / 16 % JudgedHeap::owners;
  const std::size_t n = heap.live() == 0 ? 0 : argument % heap.live();
  switch (operation % 16) {
    case 0:
    case 1:
    case 2:
      heap.allocate(owner, {.size = ByteCount(size_of(heap, argument))});
      return;
    case 3:
      heap.allocate(owner, {.size = ByteCount(size_of(heap, argument)),
                            .alignment = Alignment(std::uint64_t{1} << (operation / 16 + 8)),
                            .placement = Placement::top_down});
      return;
    case 4:
      heap.allocate(owner, {.size = ByteCount(size_of(heap, argument)),
                            .layout = DeviceHeap::Layout::scattered});
      return;
    case 5:
      heap.allocate(owner, {.size = ByteCount(size_of(heap, argument)),
                            .lifetime = Lifetime::pinned,
                            .within = {RegionOffset(argument * heap.total() / 512),
                                       RegionOffset(heap.total())}});
      return;
    case 6:
      heap.retire(argument);
      return;
    case 7:
      heap.trim();
      return;
    case 8:
      heap.reopen(owner);
      return;
    case 9:
      heap.move(ByteCount(heap.total()),
                {.kind = DeviceHeap::Goal::Kind::run,
                 .size = ByteCount((argument % 16U + 1U) * heap.native())},
                operation / 64);
      return;
    case 10:
      heap.move(ByteCount(size_of(heap, argument)),
                {.kind = DeviceHeap::Goal::Kind::pages, .size = {}}, operation / 64);
      return;
    default:
      break;
  }
  if (heap.live() == 0) return;
  if (operation % 16 == 11) {
    heap.free_after(n, argument);
  } else {
    heap.free(n, operation % 16 == 12 ? JudgedHeap::Part::last_extent : JudgedHeap::Part::all);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::uint8_t> input(data, size);
  if (input.size() < 4) return 0;
  JudgedHeap heap(std::uint64_t{4096} << (input[0] % 6), 4 + input[1] % 60U, input[1] / 64U);
  for (std::size_t i = 2; i + 1 < input.size(); i += 2) step(heap, input[i], input[i + 1]);
  heap.free_everything();
  return 0;
}
