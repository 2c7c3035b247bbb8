// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "mm/slab_state.hpp"

namespace accelmm {

// Takes as many as there is room for, or none.
[[gnu::always_inline]] inline bool Slab::State::take_trusted(
    unsigned number, std::span<RegionOffset> offsets) const {
  while (true) {
    const Slot slot = slot_of_thread();
    if (slot.words == nullptr || offsets.empty()) return false;
    const auto outcome = stacks[slot.number].stacks[number].pop(
        slot.number, *slot.lock, reinterpret_cast<std::uint64_t*>(offsets.data()), offsets.size());
    if (outcome != mm::SlabStack::Outcome::lost) return outcome == mm::SlabStack::Outcome::done;
  }
}

// Frees them as they are, or returns false if there is no room for them or no slab.
[[gnu::always_inline]] inline bool Slab::State::free_trusted(
    std::span<const RegionOffset> offsets) const {
  const std::uint64_t entry = table.entry_at(offsets[0].value());
  if (entry == 0) return false;
  while (true) {
    const Slot slot = slot_of_thread();
    if (slot.words == nullptr) return false;
    SlabStacks& mine = stacks[slot.number];
    // Nearly always the class of the last time: where that is believed until it was looked at, the
    // next steps need not wait for the table.
    unsigned number = mine.recent_class.load(std::memory_order_relaxed);
    unsigned guessed = number;
    asm("" : "+r"(guessed));  // or the compiler goes on with the other one, which is equal
    if (guessed != mm::SlabTable::class_of(entry)) [[unlikely]] {
      number = mm::SlabTable::class_of(entry);
      mine.recent_class.store(number, std::memory_order_relaxed);
    }
    const auto outcome = mine.stacks[number].push(
        slot.number, *slot.lock, reinterpret_cast<const std::uint64_t*>(offsets.data()),
        offsets.size());
    if (outcome != mm::SlabStack::Outcome::lost) return outcome == mm::SlabStack::Outcome::done;
  }
}

// The sections copy offsets as the numbers that they are.
static_assert(sizeof(RegionOffset) == sizeof(std::uint64_t));

}  // namespace accelmm
