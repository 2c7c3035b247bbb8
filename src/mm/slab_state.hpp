// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/mutex.hpp"
#include "base/per_cpu.hpp"
#include "mm/slab_central.hpp"
#include "mm/slab_classes.hpp"
#include "mm/slab_magazine.hpp"
#include "mm/slab_quarantine.hpp"
#include "mm/slab_table.hpp"
#include "mm/slab_word.hpp"

#include <accelmm/slab.hpp>

#include <array>
#include <bit>
#include <cstdint>
#include <optional>
#include <span>

namespace accelmm {

static_assert(Slab::class_count == mm::slab_class_count);
static_assert(Slab::largest.value() == mm::slab_largest);

/// What a slot has: a lock that stands in for restartable sections, and its words of each class.
struct alignas(mm::cache_line) SlabSlot {
  per_cpu::SlotLock lock;
  std::array<mm::SlabCache, mm::slab_class_count> caches;
};

/// Objects of one word that a thread has taken.
struct SlabPiece {
  mm::SlabWordRef word;
  std::uint32_t objects = 0;
  /// Of the lowest. The slab cannot go away any more, since one of its objects is live.
  [[nodiscard]] std::uint64_t offset(std::uint64_t size) const {
    return word.record().base +
           (word.word() * mm::objects_per_word + static_cast<unsigned>(std::countr_zero(objects))) *
               size;
  }
};

/// Theory. An object's marks are two bits, in a word with those of 31 neighbours (slab_word.hpp).
/// Words, not objects, are what processors have at hand (slab_magazine.hpp) and what the central
/// store of a class keeps (slab_central.hpp): 32 objects change hands at once, and a free that does
/// not make a full word a word with a free object has nothing to do but to flip a bit.
struct Slab::State {
  // Where an offset points.
  struct Place {
    std::uint64_t entry = 0;  // of the table; 0 if no object of ours can begin there
    std::uint64_t offset = 0;
    std::uint32_t word = 0;
    std::uint32_t bit = 0;
    [[nodiscard]] unsigned number() const { return mm::SlabTable::class_of(entry); }
    [[nodiscard]] mm::SlabRecord& record() const { return *mm::SlabTable::record_of(entry); }
    [[nodiscard]] per_cpu::Word& marks() const { return record().words()[word]; }
  };

  // Neighbours in one word, freed together.
  struct Group {
    Place place;  // of the first
    std::uint32_t objects = 0;
    std::size_t count = 1;
  };

  explicit State(const Options& options);
  ~State();
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  [[nodiscard]] SlabSlot* slot_at(unsigned slot) const {
    return slot < slot_count ? slots + slot : nullptr;
  }

  // slab.cpp: taking
  [[nodiscard]] unsigned class_for(ByteCount size) const {
    return class_table[(size.value() + mm::slab_smallest - 1) / mm::slab_smallest];
  }
  [[nodiscard]] std::uint32_t choose(std::uint32_t free, std::uint32_t count) const {
    if (order_key != 0) [[unlikely]]
      return choose_secretly(free, count);
    return count == 1 ? free & (~free + 1) : mm::lowest_bits(free, count);
  }
  [[nodiscard]] std::uint32_t choose_secretly(std::uint32_t free, std::uint32_t count) const;
  [[nodiscard]] SlabPiece take_from_current(unsigned number, std::uint32_t count) const;
  [[nodiscard]] Result<SlabPiece> take_piece(unsigned number, std::uint32_t count);
  [[nodiscard]] mm::SlabWordRef hold_local_word(unsigned number) const;
  [[nodiscard]] Result<mm::SlabWordRef> hold_word(unsigned number);
  void keep(unsigned number, mm::SlabWordRef word, std::uint32_t left);
  void shelve(unsigned number, mm::SlabWordRef word);
  [[nodiscard]] Result<void> grow(unsigned number);
  void give_back(unsigned number, const mm::SlabsReleased& released);

  // slab_free.cpp: freeing
  [[nodiscard]] Place find(std::uint64_t offset) const;
  [[nodiscard]] bool is_live(const Place& place) const;
  [[nodiscard]] bool give_to_current(const Place& place, std::uint32_t objects) const;
  [[nodiscard]] bool give(const Place& place, std::uint32_t objects);
  [[nodiscard]] Result<void> free_one(std::uint64_t offset);
  [[nodiscard]] Result<void> free_quarantined(std::uint64_t offset);
  void empty_quarantine();
  [[nodiscard]] Group next_group(std::span<const RegionOffset> offsets) const;
  [[nodiscard]] bool is_live(const Group& group) const;
  [[nodiscard]] bool is_outside_quarantine(const Group& group) const;
  [[nodiscard]] bool free_group(const Group& group);

  // slab_upkeep.cpp
  void drain() ACCELMM_EXCLUDES(drain_mutex);
  void drain_slot(unsigned slot) ACCELMM_REQUIRES(drain_mutex);
  [[nodiscard]] std::uint64_t release_empty(std::uint64_t kept);

  Options options;
  std::uint64_t order_key = 0;  // 0: lowest first
  unsigned slot_count = 0;
  mm::AlignedBlock slot_memory;
  SlabSlot* slots = nullptr;
  mm::SlabTable table;
  std::array<std::uint8_t, mm::slab_largest / mm::slab_smallest + 1> class_table;
  std::array<mm::SlabCentral, mm::slab_class_count> centrals;
  mm::SlabQuarantine quarantine;
  Mutex drain_mutex;  // one drain at a time; the locks of the classes are taken inside
};

// Takes up to `count` objects of the slot's current word, all but its last, without an atomic
// read-modify-write. Nothing if the slot has none, or the thread was interrupted.
[[gnu::always_inline]] inline SlabPiece Slab::State::take_from_current(unsigned number,
                                                                       std::uint32_t count) const {
  const unsigned number_of_slot = per_cpu::current();
  if (number_of_slot >= slot_count) [[unlikely]]
    return {};
  SlabSlot& slot = slots[number_of_slot];
  mm::SlabCache& cache = slot.caches[number];
  const mm::SlabWordRef word(cache.current.load(std::memory_order_acquire));
  if (!word.names_a_word()) [[unlikely]]
    return {};
  per_cpu::Word& marks = word.marks();
  const mm::Halves seen = per_cpu::load_halves(marks);
  const std::uint32_t free = mm::free_objects(seen);
  const bool keeps_one = count == 1 ? (free & (free - 1)) != 0
                                    : static_cast<std::uint32_t>(std::popcount(free)) > count;
  if (!keeps_one) [[unlikely]]
    return {};
  const std::uint32_t objects = choose(free, count);
  if (!per_cpu::store_low_if(number_of_slot, slot.lock, cache.current, word.raw(), marks, seen,
                             seen.low ^ objects)) [[unlikely]]
    return {};
  return {.word = word, .objects = objects};
}

}  // namespace accelmm
