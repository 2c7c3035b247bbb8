// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/per_cpu_half.hpp"
#include "mm/slab_record.hpp"
#include "mm/slab_word.hpp"

#include <array>
#include <cstdint>

/// The words that one slot holds of one class.
///
/// The current word is the one that objects are taken from; the magazine is a stack of others. Each
/// step is a restartable section, which commits with one store:
///   take     a plain store to the current word's lower half, if it still is the current one
///   detach   current becomes none; the thread holds the word
///   install  current becomes a word that the thread held, if there was none
///   push/pop the header {version, depth} changes; the version tells it from all earlier ones
/// close() empties a slot from any other thread. It puts marks in place of the current word and the
/// header by compare-and-swap, then interrupts the slot. A section that was past its comparison by
/// then may have overwritten a mark; it is not there any more afterwards, and close() reports that
/// nothing was won. A mark that is still there says that the word it replaced was untouched.
namespace accelmm::mm {

struct alignas(cache_line) SlabCache {
  static constexpr std::uint64_t depth_mask = 0xff;
  static constexpr std::uint64_t closed_depth = 0xff;
  static constexpr std::uint64_t version_step = 0x100;

  per_cpu::Word current = SlabWordRef::none;
  per_cpu::Word header = 0;
  std::array<per_cpu::Word, magazine_cells> cells = {};

  [[nodiscard]] static unsigned depth_of(std::uint64_t header) {
    return static_cast<unsigned>(header & depth_mask);
  }

  /// Takes the current word out. None if there is none, or the thread lost the slot.
  [[nodiscard]] SlabWordRef detach(unsigned slot, per_cpu::SlotLock& lock) {
    const SlabWordRef word(current.load(std::memory_order_acquire));
    if (!word.names_a_word() ||
        !per_cpu::store_if(slot, lock, current, word.raw(), current, word.raw(), SlabWordRef::none))
      return {};
    return word;
  }

  [[nodiscard]] bool install(unsigned slot, per_cpu::SlotLock& lock, SlabWordRef word) {
    return per_cpu::store_if(slot, lock, current, SlabWordRef::none, current, SlabWordRef::none,
                             word.raw());
  }

  enum class Push { done, full, lost };
  [[nodiscard]] Push push(unsigned slot, per_cpu::SlotLock& lock, SlabWordRef word,
                          unsigned capacity) {
    const std::uint64_t seen = header.load(std::memory_order_acquire);
    const unsigned depth = depth_of(seen);
    if (depth >= capacity) return Push::full;  // or closed
    return per_cpu::push_if(slot, lock, header, seen, cells[depth], word.raw(),
                            seen + version_step + 1)
               ? Push::done
               : Push::lost;
  }

  enum class Pop { done, empty, lost };
  [[nodiscard]] Pop pop(unsigned slot, per_cpu::SlotLock& lock, SlabWordRef& word) {
    const std::uint64_t seen = header.load(std::memory_order_acquire);
    const unsigned depth = depth_of(seen);
    if (depth == 0 || depth == closed_depth) return Pop::empty;
    word = SlabWordRef(cells[depth - 1].load(std::memory_order_relaxed));
    return per_cpu::store_if(slot, lock, header, seen, header, seen, seen + version_step - 1)
               ? Pop::done
               : Pop::lost;
  }
};
static_assert(sizeof(SlabCache) == 4 * cache_line);

/// What close() found in one cache, and what it put there.
struct ClosedCache {
  std::uint64_t current = SlabWordRef::none;  ///< the word replaced by the mark
  std::uint64_t header = 0;                   ///< the header replaced; depth 0 if it was not
  std::uint64_t mark = 0;                     ///< the header put there

  /// The first half, before the slot is interrupted. Returns whether there is anything to win.
  [[nodiscard]] bool begin(SlabCache& cache) {
    current = cache.current.load(std::memory_order_acquire);
    if (!SlabWordRef(current).names_a_word() ||
        !cache.current.compare_exchange_strong(current, SlabWordRef::closed))
      current = SlabWordRef::none;
    header = cache.header.load(std::memory_order_acquire);
    const unsigned depth = SlabCache::depth_of(header);
    mark = (header | SlabCache::closed_depth) + SlabCache::version_step;
    if (depth == 0 || depth == SlabCache::closed_depth ||
        !cache.header.compare_exchange_strong(header, mark))
      header = 0;
    return current != SlabWordRef::none || header != 0;
  }

  /// The second half, after the interrupt: calls won(SlabWordRef) for each word that is the
  /// caller's now, and opens the cache. Returns whether everything was won.
  template <class Won>
  [[nodiscard]] bool finish(SlabCache& cache, Won won) const {
    bool all = true;
    if (current != SlabWordRef::none) {
      if (cache.current.load(std::memory_order_acquire) == SlabWordRef::closed) {
        won(SlabWordRef(current));
        cache.current.store(SlabWordRef::none, std::memory_order_release);
      } else {
        all = false;
      }
    }
    if (header != 0) {
      if (cache.header.load(std::memory_order_acquire) == mark) {
        for (unsigned i = 0; i < SlabCache::depth_of(header); ++i)
          won(SlabWordRef(cache.cells[i].load(std::memory_order_relaxed)));
        cache.header.store((mark | SlabCache::depth_mask) + 1, std::memory_order_release);
      } else {
        all = false;
      }
    }
    return all;
  }
};

}  // namespace accelmm::mm
