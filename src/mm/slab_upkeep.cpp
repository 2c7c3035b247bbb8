// SPDX-License-Identifier: Apache-2.0
#include "mm/slab_state.hpp"

#include <accelmm/check.hpp>
#include <accelmm/slab.hpp>

#include <algorithm>
#include <vector>

namespace accelmm {

using mm::SlabCache;
using mm::SlabsReleased;
using mm::SlabWordRef;

// Takes the words of all classes from a slot, with one interrupt for all of them. Where a section
// of the slot was faster, once more.
void Slab::State::drain_slot(unsigned number_of_slot) {
  SlabSlot& slot = slots[number_of_slot];
  while (true) {
    std::array<mm::ClosedCache, mm::slab_class_count> closed;
    bool any = false;
    for (unsigned number = 0; number < mm::slab_class_count; ++number)
      any = closed[number].begin(slot.caches[number]) || any;
    if (!any) return;
    per_cpu::interrupt(number_of_slot, locks[number_of_slot].lock);
    bool all = true;
    for (unsigned number = 0; number < mm::slab_class_count; ++number) {
      std::array<SlabWordRef, mm::magazine_cells + 1> words;
      std::size_t count = 0;
      all = closed[number].finish(slot.caches[number], [&](SlabWordRef word) {
        words[count++] = word;
      }) && all;
      if (count == 0) continue;
      SlabsReleased none;
      none.room = 0;  // the source is not called under the lock of the drain
      centrals[number].put(std::span(words).first(count), table, none);
    }
    if (all) return;
  }
}

void Slab::State::drain() {
  if (trusts()) drain_stacks();
  const MutexLock lock(drain_mutex);
  for (unsigned slot = 0; slot < slot_count; ++slot) drain_slot(slot);
}

// Gives back the empty slabs that a class has beyond `kept`.
std::uint64_t Slab::State::release_empty(std::uint64_t kept) {
  std::uint64_t bytes = 0;
  for (unsigned number = 0; number < mm::slab_class_count; ++number)
    while (true) {
      SlabsReleased released;
      centrals[number].release_empty(kept, table, released);
      give_back(number, released);
      bytes += released.count * mm::slab_shapes[number].slab_bytes();
      if (released.has_room()) break;
    }
  return bytes;
}

void Slab::drain() {
  state_->drain();
  static_cast<void>(state_->release_empty(state_->options.spare_slabs));
}

ByteCount Slab::trim() {
  state_->empty_quarantine();
  state_->drain();
  return ByteCount(state_->release_empty(0));
}

Slab::Statistics Slab::statistics() const {
  Statistics all;
  std::uint64_t metadata =
      sizeof(State) +
      state_->slot_count * (sizeof(SlabSlot) + sizeof(mm::SlabRecent) + sizeof(SlabSlotLock)) +
      state_->table.bytes() + state_->quarantine.bytes();
  if (state_->trusts()) metadata += state_->slot_count * sizeof(SlabStacks);
  for (unsigned number = 0; number < mm::slab_class_count; ++number) {
    const mm::SlabClassShape& shape = mm::slab_shapes[number];
    auto count = state_->centrals[number].count();
    // Live by their marks. Others may take them while this looks.
    const std::uint64_t trusted = std::min(state_->trusted_objects(number), count.live);
    count.live -= trusted;
    count.cached += trusted;
    all.classes[number] = {.object_size = ByteCount(shape.size),
                           .live = count.live,
                           .cached = count.cached,
                           .slabs = count.slabs,
                           .slab_bytes = ByteCount(count.slabs * shape.slab_bytes())};
    all.live += ByteCount(count.live * shape.size);
    all.live_objects += count.live;
    all.from_source += all.classes[number].slab_bytes;
    metadata += count.metadata;
  }
  all.quarantined = state_->quarantine.waiting();
  all.metadata = ByteCount(metadata);
  return all;
}

std::uint64_t Slab::recount() {
  state_->drain();
  std::uint64_t wrong = 0;
  for (auto& central : state_->centrals) wrong += central.recount();
  return wrong;
}

void Slab::validate() const {
  state_->validate_stacks();
  std::vector<std::uint64_t> held;
  for (unsigned number = 0; number < mm::slab_class_count; ++number) {
    held.clear();
    for (unsigned slot = 0; slot < state_->slot_count; ++slot) {
      const SlabCache& cache = state_->slots[slot].caches[number];
      if (const std::uint64_t current = cache.current; current != SlabWordRef::none) {
        ACCELMM_CHECK(SlabWordRef(current).names_a_word());
        held.push_back(current);
      }
      const unsigned depth = SlabCache::depth_of(cache.header);
      ACCELMM_CHECK(depth <= mm::slab_shapes[number].cached_words);
      for (unsigned i = 0; i < depth; ++i) held.push_back(cache.cells[i]);
    }
    std::ranges::sort(held);
    ACCELMM_CHECK(std::ranges::all_of(
        held, [&](std::uint64_t raw) { return SlabWordRef(raw).record().number == number; }));
    state_->centrals[number].validate(held, state_->table);
  }
}

}  // namespace accelmm
