// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/mutex.hpp"
#include "mm/slab_record.hpp"
#include "mm/slab_table.hpp"

#include <accelmm/error.hpp>

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace accelmm::mm {

/// Slabs in a list, linked through their records.
class SlabList {
 public:
  [[nodiscard]] SlabRecord* first() const { return first_; }
  [[nodiscard]] SlabRecord* last() const { return last_; }
  void push_front(SlabRecord& record);
  void push_back(SlabRecord& record);
  void remove(SlabRecord& record);

 private:
  SlabRecord* first_ = nullptr;
  SlabRecord* last_ = nullptr;
};

/// Offsets of slabs that have left a class, on their way back to the source, which is called when
/// no lock is held any more.
struct SlabsReleased {
  static constexpr std::size_t capacity = magazine_cells + 2;
  std::array<std::uint64_t, capacity> bases;  ///< the first `count` of them
  std::size_t count = 0;
  std::size_t room = capacity;
  [[nodiscard]] bool has_room() const { return count < room; }
};

/// The slabs of one class, and their words that no slot and no thread has.
///
/// An empty slab is one of whose words all are here and all objects are free. There are two ways to
/// become one, and each looks for the other: who puts a word here marks it, then looks at its
/// objects; who frees the last object of a word then looks for the mark. Nobody else can take an
/// object of such a slab while its class is locked, so that it can be returned.
/// Threads  any; one lock, a leaf.
class SlabCentral {
 public:
  void start(unsigned number, std::uint32_t spare_slabs) {
    number_ = number;
    spare_slabs_ = spare_slabs;
  }

  /// A record without a slab, from slabs that were returned or from the heap.
  /// Errors  no_memory.
  [[nodiscard]] Result<SlabRecord*> take_record();

  /// Adds a slab, all free, whose offset is `base`.
  void add(SlabRecord& record, std::uint64_t base, SlabTable& table);

  /// Takes words of one slab, at least one if there are any. Returns how many.
  [[nodiscard]] unsigned take(std::span<SlabWordRef> words);

  /// Puts words here, each with a free object. Lets go of slabs that become empty, if too many are,
  /// as far as there is room for them.
  void put(std::span<const SlabWordRef> words, SlabTable& table, SlabsReleased& released);

  /// Looks whether the slab at `base` is empty, if it is still that of `entry`.
  void look(std::uint64_t base, std::uint64_t entry, SlabTable& table, SlabsReleased& released);

  /// Lets go of empty slabs beyond `kept`, as many as there is room for.
  void release_empty(std::uint64_t kept, SlabTable& table, SlabsReleased& released);

  struct Count {
    std::uint64_t live = 0;
    std::uint64_t cached = 0;  ///< free objects of words that are not here
    std::uint64_t slabs = 0;
    std::uint64_t metadata = 0;
  };
  [[nodiscard]] Count count() const;

  /// Makes lists and counts anew from the marks. Returns how many were wrong.
  /// Pre  nobody else uses the Slab, and no slot has words.
  [[nodiscard]] std::uint64_t recount();

  /// Aborts if a list or count is wrong, or a word with a free object is not in exactly one place.
  /// Pre  nobody else uses the Slab; `held`, sorted, are the words that slots have.
  void validate(std::span<const std::uint64_t> held, const SlabTable& table) const;

  /// Calls f(base) for each slab.
  template <class F>
  void for_each_slab(F f) const {
    const MutexLock lock(mutex_);
    for (const SlabList* list : {&partial_, &full_})
      for (const SlabRecord* record = list->first(); record != nullptr; record = record->next)
        f(record->base);
  }

 private:
  [[nodiscard]] const SlabClassShape& shape() const { return slab_shapes[number_]; }
  [[nodiscard]] bool is_empty(const SlabRecord& record) const;
  void note_if_empty(SlabRecord& record, SlabTable& table, SlabsReleased& released)
      ACCELMM_REQUIRES(mutex_);
  void release(SlabRecord& record, SlabTable& table, SlabsReleased& released)
      ACCELMM_REQUIRES(mutex_);
  [[nodiscard]] std::uint64_t recount_slab(SlabRecord& record) ACCELMM_REQUIRES(mutex_);
  void validate_slab(const SlabRecord& record, std::span<const std::uint64_t> held) const;

  unsigned number_ = 0;
  std::uint32_t spare_slabs_ = 0;
  mutable Mutex mutex_;
  SlabList partial_ ACCELMM_GUARDED_BY(mutex_);  // with words here; the empty ones last
  SlabList full_ ACCELMM_GUARDED_BY(mutex_);
  SlabRecord* records_ ACCELMM_GUARDED_BY(mutex_) = nullptr;  // without a slab, linked by next
  std::vector<AlignedBlock> blocks_ ACCELMM_GUARDED_BY(mutex_);
  std::uint64_t slabs_ ACCELMM_GUARDED_BY(mutex_) = 0;
  std::uint64_t empty_ ACCELMM_GUARDED_BY(mutex_) = 0;
};

}  // namespace accelmm::mm
