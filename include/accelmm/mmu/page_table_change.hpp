// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/check.hpp>
#include <accelmm/error.hpp>
#include <accelmm/extent.hpp>
#include <accelmm/mmu/format.hpp>
#include <accelmm/mmu/page_table_map.hpp>
#include <accelmm/mmu/page_table_read.hpp>
#include <accelmm/mmu/run_cursor.hpp>
#include <accelmm/mmu/table_memory.hpp>
#include <accelmm/units.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>

// Changes of what is mapped: leaves into smaller ones, other attributes, dirty marks. The memory
// behind a device address stays the same all the time. Where the format breaks before it makes, an
// entry whose size changes is cleared first, and `break_now(range)` has the device forget it.

namespace accelmm::mmu::detail {

template <PteFormat F, TableMemory Memory, class BreakNow>
class LeafSplitter {
  using G = Geometry<F>;
  using Word = typename F::Word;

 public:
  LeafSplitter(Memory& memory, TableList& fresh, BreakNow& break_now)
      : memory_(memory), fresh_(fresh), break_now_(break_now) {}

  /// Replaces leaves by smaller ones until none crosses `at`.
  /// Errors  not_supported: a large leaf of a dual entry would have to move to the table beside.
  [[nodiscard]] Result<void> split(Table root, std::uint64_t at) { return split_in<0>(root, at); }

 private:
  template <unsigned hop>
  [[nodiscard]] Result<void> split_in(Table table, std::uint64_t at) {
    const std::uint32_t index = G::word_index(hop, at);
    Word word = memory_.template load<Word>(table, index);
    if (F::classify(hop, word) == EntryKind::leaf) {
      const std::uint64_t within = (std::uint64_t{1} << F::leaf_lg2(hop, word)) - 1;
      if ((at & within) == 0) return {};
      if (within >= G::span(hop)) split_group<hop>(table, at, word);
      if ((at & (G::span(hop) - 1)) == 0) return {};
      word = memory_.template load<Word>(table, index);
      if constexpr (G::has_child(hop))
        return split_entry<hop>(table, at, word);
      else
        return fail(Errc::not_supported, "a large leaf beside small ones cannot be cut");
    }
    if constexpr (G::is_dual(hop)) {
      if (auto done = split_below<hop, hop + 1>(table, at); !done) return done;
      return split_below<hop, hop + 2>(table, at);
    } else if constexpr (G::has_child(hop)) {
      return split_below<hop, hop + 1>(table, at);
    }
    return {};
  }
  template <unsigned hop, unsigned child>
  [[nodiscard]] Result<void> split_below(Table table, std::uint64_t at) {
    const Word word =
        memory_.template load<Word>(table, G::word_index(hop, at) + F::link_word(child));
    if (F::classify(hop, word) != EntryKind::table) return {};
    return split_in<child>(memory_.at(F::link_address(hop, word)), at);
  }

  // A group of entries: its words stay in this table.
  template <unsigned hop>
  void split_group(Table table, std::uint64_t at, Word word) {
    const std::uint64_t size = std::uint64_t{1} << F::leaf_lg2(hop, word);
    const std::uint64_t begin = at & ~(size - 1);
    const std::uint64_t bus = F::leaf_address(hop, word).value() & ~(size - 1);
    const Word bits = bits_of(hop, word);
    if constexpr (F::breaks_before_make) {
      memory_.template clear<Word>(table, G::word_index(hop, begin),
                                   static_cast<std::uint32_t>(size >> F::shift(hop)), Reach::live);
      memory_.sync();
      break_now_(Range<DeviceAddr>{DeviceAddr(begin), DeviceAddr(begin + size)});
    }
    put_around<hop>(table, {begin, bus, size, 0}, at, bits, Reach::live);
  }

  // One entry: a table of smaller leaves takes its place.
  template <unsigned hop>
  [[nodiscard]] Result<void> split_entry(Table table, std::uint64_t at, Word word) {
    if constexpr (G::is_dual(hop)) {
      const bool large_will_do = (at & (G::span(hop + 1) - 1)) == 0;
      return large_will_do ? split_into<hop, hop + 1>(table, at, word)
                           : split_into<hop, hop + 2>(table, at, word);
    } else {
      return split_into<hop, hop + 1>(table, at, word);
    }
  }
  template <unsigned hop, unsigned child>
  [[nodiscard]] Result<void> split_into(Table table, std::uint64_t at, Word word) {
    static_assert(F::leaf_sizes(hop) == 0 || F::leaf_sizes(child) != 0,
                  "leaves of a hop can be split into those of the next");
    const std::uint64_t begin = at & ~(G::span(hop) - 1);
    const std::uint32_t index = G::word_index(hop, at);
    const Stretch whole{begin, F::leaf_address(hop, word).value(), G::span(hop), 0};
    const Table below = memory_.pop(fresh_);
    clear_stale<Word>(memory_, below);
    put_around<child>(below, whole, at, bits_of(hop, word), Reach::hidden);
    memory_.begin_count(below, G::entries(child));
    if constexpr (F::breaks_before_make) {
      memory_.store(table, index, Word{0});
      memory_.sync();
      break_now_(Range<DeviceAddr>{DeviceAddr(begin), DeviceAddr(begin + G::span(hop))});
    }
    memory_.store(table, index + F::link_word(child), F::make_link(hop, below.address));
    if constexpr (F::link_word(child) != 0) memory_.store(table, index, Word{0});
    return split_in<child>(below, at);
  }

  // Maps the leaf `whole` with leaves of this hop, none larger than one entry across `at`.
  template <unsigned hop>
  void put_around(Table table, const Stretch& whole, std::uint64_t at, Word bits, Reach reach) {
    const std::uint64_t low = at & ~(G::span(hop) - 1);
    const std::uint64_t high = low == at ? at : low + G::span(hop);
    const std::uint64_t end = whole.va + whole.bytes;
    const std::array<std::uint64_t, 4> borders{whole.va, low, high, end};
    for (std::size_t i = 0; i + 1 < borders.size(); ++i) {
      std::uint64_t va = borders[i];
      while (va < borders[i + 1]) {
        const std::array<Run, 1> rest{
            Run{BusAddr(whole.bus + (va - whole.va)), ByteCount(borders[i + 1] - va)}};
        const RunCursor<F> cursor(DeviceAddr(va), rest);
        const std::uint64_t fitting =
            F::leaf_sizes(hop) & ((std::uint64_t{2} << cursor.largest_leaf()) - 1);
        const auto lg2 = static_cast<unsigned>(std::bit_width(fitting)) - 1;
        const Stretch leaves = cursor.stretch(hop, lg2);
        put_leaves<F>(memory_, table, hop, leaves, bits, reach);
        va += leaves.bytes;
      }
    }
  }

  // What leaf_bits() gave for the leaf, and whether it is dirty.
  [[nodiscard]] static Word bits_of(unsigned hop, Word word) {
    const auto bits = F::leaf_bits(F::attributes(hop, word));
    ACCELMM_CHECK(bits.has_value());
    if constexpr (F::has_dirty)
      return F::dirty(word) ? F::soil(*bits) : F::clean(*bits);
    else
      return *bits;
  }

  Memory& memory_;
  TableList& fresh_;
  BreakNow& break_now_;
};

/// Rewrites leaves in place. Ranges cut no leaf.
template <PteFormat F, TableMemory Memory>
class LeafChanger {
  using G = Geometry<F>;
  using Word = typename F::Word;

 public:
  explicit LeafChanger(Memory& memory) : memory_(memory) {}

  /// Gives the leaves of the range the bits of other attributes; what is dirty stays dirty.
  void protect(Table root, std::uint64_t va, std::uint64_t end, Word bits) {
    auto change = [&](Table table, unsigned hop, std::uint32_t index, Word old) {
      const unsigned lg2 = F::leaf_lg2(hop, old);
      const std::uint64_t within = (std::uint64_t{1} << lg2) - 1;
      const std::uint32_t item =
          (index / F::words(hop)) & static_cast<std::uint32_t>(within >> F::shift(hop));
      Word word =
          F::make_leaf(hop, lg2, BusAddr(F::leaf_address(hop, old).value() & ~within), bits);
      if (!F::repeats_group) word += item * static_cast<Word>(F::step(G::span(hop)));
      for (;;) {
        Word wanted = word;
        if constexpr (F::has_dirty) wanted = F::dirty(old) ? F::soil(word) : word;
        if (wanted == old || memory_.replace(table, index, old, wanted)) return;
        old = memory_.template load<Word>(table, index);  // the device marked it meanwhile
      }
    };
    each_word_in<0>(root, va, end, change);
  }

  /// Clears the dirty marks of the range; calls f(begin, end) for each leaf that had one.
  template <class Visit>
  void clean(Table root, std::uint64_t va, std::uint64_t end, Visit& f) {
    std::uint64_t reported = 0;  // up to here
    auto change = [&](Table table, unsigned hop, std::uint32_t index, Word old) {
      bool dirty = false;
      while (F::dirty(old)) {
        dirty = true;
        if (memory_.replace(table, index, old, F::clean(old))) break;
        old = memory_.template load<Word>(table, index);
      }
      if (!dirty || va_ < reported) return;
      const std::uint64_t within = (std::uint64_t{1} << F::leaf_lg2(hop, old)) - 1;
      reported = (va_ | within) + 1;
      f(DeviceAddr(va_ & ~within), DeviceAddr(reported));
    };
    each_word_in<0>(root, va, end, change);
  }

 private:
  template <unsigned hop, class Change>
  void each_word_in(Table table, std::uint64_t va, std::uint64_t end, Change& change) {
    while (va < end) {
      const std::uint64_t next = (va | (G::span(hop) - 1)) + 1;
      const std::uint32_t index = G::word_index(hop, va);
      const Word word = memory_.template load<Word>(table, index);
      const EntryKind kind = F::classify(hop, word);
      const std::uint64_t stop = std::min(next, end);
      if (kind == EntryKind::leaf) {
        va_ = va;
        change(table, hop, index, word);
      } else if constexpr (G::has_child(hop)) {
        if (kind == EntryKind::table && !G::is_dual(hop))
          each_word_in<hop + 1>(memory_.at(F::link_address(hop, word)), va, stop, change);
        if constexpr (G::is_dual(hop)) {
          each_word_below<hop, hop + 1>(table, va, stop, change);
          each_word_below<hop, hop + 2>(table, va, stop, change);
        }
      }
      va = next;
    }
  }
  template <unsigned hop, unsigned child, class Change>
  void each_word_below(Table table, std::uint64_t va, std::uint64_t end, Change& change) {
    const Word word =
        memory_.template load<Word>(table, G::word_index(hop, va) + F::link_word(child));
    if (F::classify(hop, word) == EntryKind::table)
      each_word_in<child>(memory_.at(F::link_address(hop, word)), va, end, change);
  }

  Memory& memory_;
  std::uint64_t va_ = 0;  // of the word that is being changed
};

}  // namespace accelmm::mmu::detail
