// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/per_cpu_half.hpp"
#include "base/per_cpu_many.hpp"
#include "mm/slab_record.hpp"
#include "mm/slab_stack.hpp"
#include "mm/slab_word.hpp"

#include <accelmm/slab_recent.hpp>

#include <array>
#include <cstdint>

namespace accelmm::mm {

/// The words that one slot holds of one class.
///
/// The current word is the one that objects are taken from; the magazine is a stack of others. Each
/// step is a restartable section, which commits with one store:
///   take     a plain store to the current word's lower half, if it still is the current one
///   detach   current becomes none; the thread holds the word
///   install  current becomes a word that the thread held, if there was none
///   push/pop the header {version, depth} changes; the version tells it from all earlier ones
/// Any other thread empties a slot (ClosedCacheOf): it puts marks in place of the current word and
/// of the header by compare-and-swap, then interrupts the slot. A section that was past its
/// comparison by then may have overwritten a mark, which is not there any more afterwards: nothing
/// was won. A mark that is still there says that what it replaced was untouched.
///
/// `Sections` gives the words and the sections; another one lets a model checker run this.
template <class Sections>
struct alignas(cache_line) SlabCacheOf {
  using Word = typename Sections::Word;
  using Lock = typename Sections::Lock;
  static constexpr std::uint64_t depth_mask = 0xff;
  static constexpr std::uint64_t closed_depth = 0xff;
  static constexpr std::uint64_t version_step = 0x100;

  Word current{SlabWordRef::none};
  Word header{0};
  std::array<Word, Sections::cells> cells{};

  [[nodiscard]] static unsigned depth_of(std::uint64_t header) {
    return static_cast<unsigned>(header & depth_mask);
  }

  /// Takes the current word out. None if there is none, or the thread lost the slot.
  [[nodiscard]] SlabWordRef detach(unsigned slot, Lock& lock) {
    const SlabWordRef word(current.load(std::memory_order_acquire));
    if (!word.names_a_word() || !Sections::store_if(slot, lock, current, word.raw(), current,
                                                    word.raw(), SlabWordRef::none))
      return {};
    return word;
  }

  /// `recent` is the slot's (SlabRecent): the word may have been another slab's when it was noted.
  [[nodiscard]] bool install(unsigned slot, Lock& lock, SlabWordRef word, Word& recent) {
    return Sections::push_if(slot, lock, current, SlabWordRef::none, recent, SlabRecent::forgotten,
                             word.raw());
  }

  enum class Push { done, full, lost };
  [[nodiscard]] Push push(unsigned slot, Lock& lock, SlabWordRef word, unsigned capacity) {
    const std::uint64_t seen = header.load(std::memory_order_acquire);
    const unsigned depth = depth_of(seen);
    if (depth >= capacity) return Push::full;  // or closed
    return Sections::push_if(slot, lock, header, seen, cells[depth], word.raw(),
                             seen + version_step + 1)
               ? Push::done
               : Push::lost;
  }

  enum class Pop { done, empty, lost };
  [[nodiscard]] Pop pop(unsigned slot, Lock& lock, SlabWordRef& word) {
    const std::uint64_t seen = header.load(std::memory_order_acquire);
    const unsigned depth = depth_of(seen);
    if (depth == 0 || depth == closed_depth) return Pop::empty;
    word = SlabWordRef(cells[depth - 1].load(std::memory_order_relaxed));
    return Sections::store_if(slot, lock, header, seen, header, seen, seen + version_step - 1)
               ? Pop::done
               : Pop::lost;
  }
};

/// The restartable sections of processors.
struct PerCpuSections {
  using Word = per_cpu::Word;
  using Lock = per_cpu::SlotLock;
  static constexpr unsigned cells = magazine_cells;
  static constexpr std::size_t stack_cells = 62;

  // NOLINTBEGIN(readability-function-size): as in base/per_cpu.hpp
  [[nodiscard]] static bool store_if(unsigned slot, Lock& lock, const Word& check,
                                     std::uint64_t check_expected, Word& target,
                                     std::uint64_t expected, std::uint64_t desired) noexcept {
    return per_cpu::store_if(slot, lock, check, check_expected, target, expected, desired);
  }
  [[nodiscard]] static bool push_if(unsigned slot, Lock& lock, Word& header, std::uint64_t expected,
                                    Word& cell, std::uint64_t value,
                                    std::uint64_t desired) noexcept {
    return per_cpu::push_if(slot, lock, header, expected, cell, value, desired);
  }
  [[nodiscard]] static bool push_many_if(unsigned slot, Lock& lock, Word& header,
                                         std::uint64_t expected, Word* to,
                                         const std::uint64_t* values, std::size_t count,
                                         std::uint64_t desired) noexcept {
    return per_cpu::push_many_if(slot, lock, header, expected, to, values, count, desired);
  }
  // NOLINTEND(readability-function-size)
  static void load_many(const Word* from, std::uint64_t* values, std::size_t count) noexcept {
    per_cpu::load_many(from, values, count);
  }
};

using SlabCache = SlabCacheOf<PerCpuSections>;
static_assert(sizeof(SlabCache) == 4 * cache_line);
using SlabStack = SlabStackOf<PerCpuSections>;
static_assert(sizeof(SlabStack) == 8 * cache_line);

/// What was found in a stack of a slot, a magazine or a SlabStackOf, that is being emptied, and what
/// was put there.
template <class Stack>
struct ClosedStackOf {
  std::uint64_t header = 0;  ///< the header replaced; depth 0 if it was not
  std::uint64_t mark = 0;    ///< the header put there

  /// The first half, before the slot is interrupted. Returns whether there is anything to win.
  [[nodiscard]] bool begin(Stack& stack) {
    header = stack.header.load(std::memory_order_acquire);
    const unsigned depth = Stack::depth_of(header);
    mark = (header | Stack::closed_depth) + Stack::version_step;
    if (depth == 0 || depth == Stack::closed_depth ||
        !stack.header.compare_exchange_strong(header, mark, std::memory_order_acq_rel,
                                              std::memory_order_acquire))
      header = 0;
    return header != 0;
  }

  /// The second half, after the interrupt: calls won(cell) for each cell that is the caller's now,
  /// and opens the stack. Returns whether everything was won.
  template <class Won>
  [[nodiscard]] bool finish(Stack& stack, Won won) const {
    if (header == 0) return true;
    if (stack.header.load(std::memory_order_acquire) != mark) return false;
    for (unsigned i = 0; i < Stack::depth_of(header); ++i)
      won(stack.cells[i].load(std::memory_order_relaxed));
    stack.header.store((mark | Stack::depth_mask) + 1, std::memory_order_release);
    return true;
  }
};

/// The same of a cache: its current word, and its magazine.
template <class Cache>
struct ClosedCacheOf {
  std::uint64_t current = SlabWordRef::none;  ///< the word replaced by the mark
  ClosedStackOf<Cache> magazine;

  [[nodiscard]] bool begin(Cache& cache) {
    current = cache.current.load(std::memory_order_acquire);
    if (!SlabWordRef(current).names_a_word() ||
        !cache.current.compare_exchange_strong(
            current, SlabWordRef::closed, std::memory_order_acq_rel, std::memory_order_acquire))
      current = SlabWordRef::none;
    return magazine.begin(cache) || current != SlabWordRef::none;
  }

  template <class Won>
  [[nodiscard]] bool finish(Cache& cache, Won won) const {
    bool all = true;
    if (current != SlabWordRef::none) {
      if (cache.current.load(std::memory_order_acquire) == SlabWordRef::closed) {
        won(SlabWordRef(current));
        cache.current.store(SlabWordRef::none, std::memory_order_release);
      } else {
        all = false;
      }
    }
    return magazine.finish(cache, [&](std::uint64_t cell) { won(SlabWordRef(cell)); }) && all;
  }
};

using ClosedCache = ClosedCacheOf<SlabCache>;

}  // namespace accelmm::mm
