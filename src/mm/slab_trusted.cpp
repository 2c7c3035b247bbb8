// SPDX-License-Identifier: Apache-2.0
#include "mm/slab_state.hpp"

#include <accelmm/check.hpp>
#include <accelmm/slab.hpp>

#include <algorithm>
#include <vector>

namespace accelmm {

using mm::SlabStack;

void Slab::State::start_trusting() {
  stack_memory = mm::AlignedBlock(slot_count * sizeof(SlabStacks));
  stacks = reinterpret_cast<SlabStacks*>(stack_memory.data());
  for (unsigned slot = 0; slot < slot_count; ++slot) new (stacks + slot) SlabStacks;
}

// Frees what is in the stacks of all slots, as if it had been looked at.
void Slab::State::drain_stacks() {
  for (unsigned slot = 0; slot < slot_count; ++slot)
    for (unsigned number = 0; number < mm::slab_class_count; ++number) drain_stack(slot, number);
}

void Slab::State::drain_stack(unsigned slot, unsigned number) {
  SlabStack& stack = stacks[slot].stacks[number];
  std::array<std::uint64_t, SlabStack::capacity> offsets;
  std::size_t count = 0;
  {
    const MutexLock lock(drain_mutex);
    mm::ClosedStackOf<SlabStack> closed;
    bool all = false;
    while (!all && closed.begin(stack)) {
      per_cpu::interrupt(slot, locks[slot].lock);
      all = closed.finish(stack, [&](std::uint64_t offset) { offsets[count++] = offset; });
    }
  }
  // The source may be called now.
  for (std::size_t i = 0; i < count; ++i) static_cast<void>(free_one(offsets[i]));
}

std::uint64_t Slab::State::trusted_objects(unsigned number) const {
  if (!trusts()) return 0;
  std::uint64_t objects = 0;
  for (unsigned slot = 0; slot < slot_count; ++slot)
    if (const unsigned depth = SlabStack::depth_of(stacks[slot].stacks[number].header);
        depth <= SlabStack::capacity)
      objects += depth;
  return objects;
}

void Slab::State::validate_stacks() const {
  if (!trusts()) return;
  std::vector<std::uint64_t> all;
  for (unsigned slot = 0; slot < slot_count; ++slot)
    for (unsigned number = 0; number < mm::slab_class_count; ++number) {
      const SlabStack& stack = stacks[slot].stacks[number];
      const unsigned depth = SlabStack::depth_of(stack.header);
      ACCELMM_CHECK(depth <= SlabStack::capacity);
      for (unsigned i = 0; i < depth; ++i) {
        const Place place = find(stack.cells[i]);
        ACCELMM_CHECK(is_live(place) && place.number() == number);
        all.push_back(place.offset);
      }
    }
  std::ranges::sort(all);
  ACCELMM_CHECK(std::ranges::adjacent_find(all) == all.end());
}

}  // namespace accelmm
