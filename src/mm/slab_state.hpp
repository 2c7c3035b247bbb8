// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/mutex.hpp"
#include "base/per_cpu.hpp"
#include "mm/slab_central.hpp"
#include "mm/slab_classes.hpp"
#include "mm/slab_magazine.hpp"
#include "mm/slab_quarantine.hpp"
#include "mm/slab_quick.hpp"
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

/// A slot's words of each class.
struct SlabSlot {
  std::array<mm::SlabCache, mm::slab_class_count> caches;
};
static_assert(sizeof(SlabSlot) == std::size_t{1} << mm::slot_log2);

/// A slot's objects of each class that it was told are free.
struct SlabStacks {
  std::array<mm::SlabStack, mm::slab_class_count> stacks;
  /// Of the objects freed last.
  std::atomic<unsigned> recent_class = 0;
};

/// What stands in for restartable sections.
struct alignas(mm::cache_line) SlabSlotLock {
  per_cpu::SlotLock lock;
};

/// Objects of one word that a thread has taken.
struct SlabPiece {
  mm::SlabWordRef word{};
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
    const std::uint64_t* unit = nullptr;  // of the table
    std::uint64_t entry = 0;              // that stood there; 0: no object of ours can begin there
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

  // The slot that the thread is in; null on a processor that was added since.
  struct Slot {
    unsigned number = 0;
    SlabSlot* words = nullptr;
    mm::SlabRecent* recent = nullptr;
    per_cpu::SlotLock* lock = nullptr;
  };
  [[nodiscard]] Slot slot_of_thread() const {
    const unsigned number = per_cpu::current();
    if (number >= slot_count) return {};
    return {.number = number,
            .words = slots + number,
            .recent = recents + number,
            .lock = &locks[number].lock};
  }

  [[nodiscard]] mm::SlabRecents recents_of_callers() const;

  // slab.cpp: taking
  [[nodiscard]] unsigned class_for(ByteCount size) const {
    return class_table[(size.value() + mm::slab_smallest - 1) / mm::slab_smallest];
  }
  [[nodiscard]] std::uint32_t choose(std::uint32_t free, std::uint32_t count) const {
    if (order_key != 0) [[unlikely]]
      return choose_secretly(free, count);
    return mm::lowest_bits(free, count);
  }
  [[nodiscard]] std::uint32_t choose_secretly(std::uint32_t free, std::uint32_t count) const;
  [[nodiscard]] SlabPiece take_from_current(unsigned number, std::uint32_t count) const;
  [[nodiscard]] SlabPiece take_word(unsigned number) const;
  [[nodiscard]] Result<SlabPiece> take_piece(unsigned number, std::uint32_t count);
  [[nodiscard]] mm::SlabWordRef hold_local_word(unsigned number) const;
  [[nodiscard]] Result<mm::SlabWordRef> hold_word(unsigned number);
  [[nodiscard]] Result<mm::SlabWordRef> hold_central_word(unsigned number);
  void keep(unsigned number, mm::SlabWordRef word, std::uint32_t left);
  void shelve(unsigned number, mm::SlabWordRef word);
  void shelve_centrally(unsigned number, mm::SlabWordRef word);
  [[nodiscard]] Result<void> grow(unsigned number);
  void give_back(unsigned number, const mm::SlabsReleased& released);

  // slab_free.cpp: freeing
  [[nodiscard]] Place find(std::uint64_t offset) const;
  [[nodiscard]] bool is_live(const Place& place) const;
  [[nodiscard]] bool give_quickly(const Place& place) const;
  [[nodiscard]] bool give_to_current(const Place& place, std::uint32_t objects) const;
  [[nodiscard]] bool give(const Place& place, std::uint32_t objects);
  [[nodiscard]] bool free_elsewhere(std::uint64_t offset);
  [[nodiscard]] bool free_one(std::uint64_t offset);
  [[nodiscard]] bool free_quarantined(std::uint64_t offset);
  void empty_quarantine();
  [[nodiscard]] Group next_group(std::span<const RegionOffset> offsets) const;
  [[nodiscard]] bool is_live(const Group& group) const;
  [[nodiscard]] bool is_outside_quarantine(const Group& group) const;
  [[nodiscard]] bool free_groups(std::span<const RegionOffset> offsets);
  [[nodiscard]] bool free_group(const Group& group);

  // slab_trusted.cpp: what is not looked at
  void start_trusting();
  [[nodiscard]] bool trusts() const { return stacks != nullptr; }
  [[nodiscard]] bool take_trusted(unsigned number, std::span<RegionOffset> offsets) const;
  [[nodiscard]] bool free_trusted(std::span<const RegionOffset> offsets) const;
  void drain_stacks() ACCELMM_EXCLUDES(drain_mutex);
  void drain_stack(unsigned slot, unsigned number) ACCELMM_EXCLUDES(drain_mutex);
  [[nodiscard]] std::uint64_t trusted_objects(unsigned number) const;
  void validate_stacks() const;

  // slab_upkeep.cpp
  void drain() ACCELMM_EXCLUDES(drain_mutex);
  void drain_slot(unsigned slot) ACCELMM_REQUIRES(drain_mutex);
  [[nodiscard]] std::uint64_t release_empty(std::uint64_t kept);

  mm::QuickSlots quick_to_take;
  mm::QuickSlots quick_to_free;
  Options options;
  std::uint64_t order_key = 0;  // 0: lowest first
  unsigned slot_count = 0;
  mm::AlignedBlock slot_memory;
  SlabSlot* slots = nullptr;
  mm::SlabRecent* recents = nullptr;
  SlabSlotLock* locks = nullptr;
  mm::AlignedBlock stack_memory;
  SlabStacks* stacks = nullptr;  // a slot's each; null: free_bulk() looks
  mm::SlabTable table;
  std::array<std::uint8_t, mm::slab_largest / mm::slab_smallest + 1> class_table;
  std::array<mm::SlabCentral, mm::slab_class_count> centrals;
  mm::SlabQuarantine quarantine;
  Mutex drain_mutex;  // one drain at a time; the locks of the classes are taken inside
};

[[gnu::always_inline]] inline Slab::State::Place Slab::State::find(std::uint64_t offset) const {
  const auto [unit, entry] = table.find(offset);
  if (entry == 0) [[unlikely]]
    return {};
  const mm::SlabClassShape& shape = mm::slab_shapes[mm::SlabTable::class_of(entry)];
  const std::uint32_t inside = static_cast<std::uint32_t>(offset) & shape.offset_mask;
  const std::uint32_t object = shape.object_at(inside);
  if (object * shape.size != inside || object >= shape.objects) [[unlikely]]
    return {};
  return {.unit = unit,
          .entry = entry,
          .offset = offset,
          .word = object / mm::objects_per_word,
          .bit = std::uint32_t{1} << (object % mm::objects_per_word)};
}

// Frees an object of the slot's current word without an atomic read-modify-write. Returns false if
// it is not of that word, or not live, or the thread was interrupted.
//
// If another processor frees it between the comparison and the store, both frees succeed and the
// object stays live by its marks: lost, until it is freed once more, but never had by two.
[[gnu::always_inline]] inline bool Slab::State::give_quickly(const Place& place) const {
  return mm::give_to_current(quick_to_free, {.unit = place.unit,
                                             .entry = place.entry,
                                             .offset = place.offset,
                                             .word = place.word,
                                             .bit = place.bit});
}

}  // namespace accelmm
