// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/check.hpp>
#include <accelmm/mmu/format.hpp>
#include <accelmm/mmu/table_memory.hpp>
#include <accelmm/mmu/walk.hpp>
#include <accelmm/units.hpp>

#include <algorithm>
#include <cstdint>

// An unmap reads its range first, so that it refuses before it changed anything. Then it clears
// leaves and, on the way up, the link of each table that died of it. A table that holds nothing but
// what goes is not cleared: it dies as it is, is unlinked, and counts as stale.

namespace accelmm::mmu::detail {

/// What a range meets in a tree.
enum class Coverage : std::uint8_t {
  whole,  ///< whole leaves, without a gap
  hole,   ///< something of it is not mapped
  cut,    ///< one of its ends lies inside a leaf
};

/// From so many words on, a table of the hop that dies is left stale: clearing it would cost more
/// than it saves. Few words are cleared: then the whole table is known to be zero.
template <PteFormat F>
[[nodiscard]] constexpr std::uint32_t stale_from(unsigned hop) {
  return Geometry<F>::entries(hop) / 4;
}

/// What a dead table of the hop holds. One that is smaller than its place was cleared only as far as
/// it reached.
template <PteFormat F, TableMemory Memory>
[[nodiscard]] Contents left_in(const Memory& memory, unsigned hop, Contents cleared) {
  return Geometry<F>::table_bytes(hop) == memory.table_bytes() ? cleared : Contents::stale;
}

template <PteFormat F, TableMemory Memory>
class LeafRemover {
  using G = Geometry<F>;
  using Word = typename F::Word;

 public:
  /// `coverage` is what the range to be removed is known to be: of a whole one nothing is looked for.
  LeafRemover(Memory& memory, TableList& gone, Coverage coverage = Coverage::hole)
      : memory_(memory), gone_(gone), coverage_(coverage) {}

  /// `cut` and `hole` both apply: cut is said.
  [[nodiscard]] Coverage look(Table root, std::uint64_t va, std::uint64_t end) {
    return look_in<0>(root, va, end);
  }

  /// Removes the leaves of [va, end), whatever gaps it has. Pre: it cuts none.
  void remove(Table root, std::uint64_t va, std::uint64_t end) {
    const Removal removal = remove_in<0>(root, va, end);
    ACCELMM_CHECK(removal.table == Alive::yes);
  }

  /// The hop nearest the root at which an entry was cleared; F::hops if none was.
  [[nodiscard]] unsigned first_hop() const { return first_hop_; }

  /// Removes everything, the root too.
  void remove_all(Table root) {
    note_cleared(0);
    remove_tables<0>(root);
  }

 private:
  static constexpr bool has_groups(unsigned hop) {
    return F::leaf_sizes(hop) != 0 && (F::leaf_sizes(hop) & (F::leaf_sizes(hop) - 1)) != 0;
  }

  // Of a dual entry, each table maps only a part.
  static constexpr bool is_alone(unsigned hop) { return hop == 0 || !G::is_dual(F::parent(hop)); }
  // Whether a range of so many entries is a table's own: what the table counts is what lies in it,
  // since nobody else writes there meanwhile.
  template <unsigned hop>
  static constexpr bool is_all_of(std::uint32_t count) {
    return is_alone(hop) && count == G::entries(hop);
  }

  template <unsigned hop>
  [[nodiscard]] Coverage look_in(Table table, std::uint64_t va, std::uint64_t end) {
    if constexpr (!G::has_child(hop)) {
      const std::uint32_t first = G::index(hop, va);
      const auto count = static_cast<std::uint32_t>((end - va) >> F::shift(hop));
      if (is_all_of<hop>(count))
        return memory_.live(table) == count ? Coverage::whole : Coverage::hole;
      if constexpr (has_groups(hop)) {
        if (cuts_group<hop>(table, first, va, end) ||
            cuts_group<hop>(table, first + count - 1, va, end))
          return Coverage::cut;
      }
      return memory_.template any_empty<Word>(table, first, count) ? Coverage::hole
                                                                   : Coverage::whole;
    } else {
      Coverage coverage = Coverage::whole;
      for (std::uint64_t at = va; at < end;) {
        const std::uint64_t next = (at | (G::span(hop) - 1)) + 1;
        const std::uint32_t index = G::word_index(hop, at);
        const Word word = memory_.template load<Word>(table, index);
        const EntryKind kind = F::classify(hop, word);
        Coverage here = Coverage::hole;
        if (kind == EntryKind::leaf) {
          const bool is_cut = (at & (G::span(hop) - 1)) != 0 || next > end ||
                              (has_groups(hop) && cuts_group<hop>(table, index, va, end));
          here = is_cut ? Coverage::cut : Coverage::whole;
        } else if constexpr (G::is_dual(hop)) {
          here = look_dual<hop>(table, at, std::min(next, end));
        } else if (kind == EntryKind::table) {
          here = look_in<hop + 1>(memory_.at(F::link_address(hop, word)), at, std::min(next, end));
        }
        if (here == Coverage::cut) return here;
        if (here == Coverage::hole) coverage = here;
        at = next;
      }
      return coverage;
    }
  }

  // Whether the leaf of this entry, which lies in the range, is a group that does not.
  template <unsigned hop>
  [[nodiscard]] bool cuts_group(Table table, std::uint32_t index, std::uint64_t va,
                                std::uint64_t end) {
    const Word word = memory_.template load<Word>(table, index);
    if (word == 0) return false;
    const std::uint64_t table_mask = (G::span(hop) << F::index_bits(hop)) - 1;
    const std::uint64_t within = (std::uint64_t{1} << F::leaf_lg2(hop, word)) - 1;
    const std::uint64_t at = (va & ~table_mask) + (std::uint64_t{index} << F::shift(hop));
    return (at & ~within) < va || (at | within) >= end;
  }

  // The large and the small table of one dual entry together.
  template <unsigned hop>
  [[nodiscard]] Coverage look_dual(Table table, std::uint64_t va, std::uint64_t end) {
    const std::uint32_t at = G::word_index(hop, va);
    const Word large = memory_.template load<Word>(table, at + F::link_word(hop + 1));
    const Word small = memory_.template load<Word>(table, at + F::link_word(hop + 2));
    Coverage coverage = Coverage::whole;
    for (std::uint64_t here = va; here < end;) {
      const std::uint64_t next = (here | (G::span(hop + 1) - 1)) + 1;
      const Word word = large == 0
                            ? 0
                            : memory_.template load<Word>(memory_.at(F::link_address(hop, large)),
                                                          G::index(hop + 1, here));
      const std::uint64_t stop = std::min(next, end);
      if (word != 0) {
        if ((here & (G::span(hop + 1) - 1)) != 0 || next > end) return Coverage::cut;
      } else if (small == 0 || look_in<hop + 2>(memory_.at(F::link_address(hop, small)), here,
                                                stop) == Coverage::hole) {
        coverage = Coverage::hole;
      }
      here = next;
    }
    return coverage;
  }

  enum class Alive : bool { no, yes };
  struct Removal {
    Alive table;
    Contents contents;  // of a dead one
  };

  template <unsigned hop>
  [[nodiscard]] Removal remove_in(Table table, std::uint64_t va, std::uint64_t end) {
    if constexpr (!G::has_child(hop))
      return remove_last<hop>(table, va, end);
    else
      return remove_between<hop>(table, va, end);
  }

  template <unsigned hop>
  [[nodiscard]] Removal remove_last(Table table, std::uint64_t va, std::uint64_t end) {
    const std::uint32_t first = G::index(hop, va);
    // The last entry counts even where large leaves of the entry beside end inside of it.
    const std::uint32_t count =
        static_cast<std::uint32_t>(((end - 1) >> F::shift(hop)) - (va >> F::shift(hop))) + 1;
    std::uint32_t live = count;
    if (is_all_of<hop>(count))
      live = memory_.live(table);
    else if ((coverage_ != Coverage::whole || !is_alone(hop)) &&
             memory_.template any_empty<Word>(table, first, count))
      live = count_live(table, first, count);
    if (live == 0) return {Alive::yes, Contents::zero};
    if (live >= stale_from<F>(hop) && memory_.retire(table, live))
      return {Alive::no, Contents::stale};
    note_cleared(hop);
    memory_.template clear<Word>(table, first, count, Reach::live);
    return {memory_.leave(table, live) ? Alive::no : Alive::yes, Contents::zero};
  }

  [[nodiscard]] std::uint32_t count_live(Table table, std::uint32_t first, std::uint32_t count) {
    std::uint32_t live = 0;
    for (std::uint32_t i = first; i < first + count; ++i)
      live += memory_.template load<Word>(table, i) != 0 ? 1U : 0U;
    return live;
  }

  template <unsigned hop>
  [[nodiscard]] Removal remove_between(Table table, std::uint64_t va, std::uint64_t end) {
    std::uint32_t removed = 0;
    for (std::uint64_t at = va; at < end;) {
      const std::uint64_t next = (at | (G::span(hop) - 1)) + 1;
      const std::uint32_t index = G::word_index(hop, at);
      const Word word = memory_.template load<Word>(table, index);
      if (F::classify(hop, word) == EntryKind::leaf) {
        const std::uint32_t leaves = clear_leaves<hop>(table, index, at, end);
        removed += leaves;
        at += std::uint64_t{leaves} << F::shift(hop);
        continue;
      }
      const std::uint64_t stop = std::min(next, end);
      removed += remove_child<hop, hop + 1>(table, at, stop);
      if constexpr (G::is_dual(hop)) removed += remove_child<hop, hop + 2>(table, at, stop);
      at = next;
    }
    if (removed == 0) return {Alive::yes, Contents::zero};
    return {memory_.leave(table, removed) ? Alive::no : Alive::yes, Contents::zero};
  }

  // Neighbouring leaves go in one sweep.
  template <unsigned hop>
  [[nodiscard]] std::uint32_t clear_leaves(Table table, std::uint32_t index, std::uint64_t va,
                                           std::uint64_t end) {
    const auto room = static_cast<std::uint32_t>(
        std::min<std::uint64_t>((end - va) >> F::shift(hop), G::entries(hop) - G::index(hop, va)));
    std::uint32_t leaves = 1;
    while (leaves < room &&
           F::classify(hop, memory_.template load<Word>(table, index + leaves * F::words(hop))) ==
               EntryKind::leaf)
      ++leaves;
    note_cleared(hop);
    memory_.template clear<Word>(table, index, leaves * F::words(hop), Reach::live);
    return leaves;
  }

  template <unsigned hop, unsigned child>
  [[nodiscard]] std::uint32_t remove_child(Table table, std::uint64_t va, std::uint64_t end) {
    const std::uint32_t at = G::word_index(hop, va) + F::link_word(child);
    const Word word = memory_.template load<Word>(table, at);
    if (F::classify(hop, word) != EntryKind::table) return 0;
    const Table below = memory_.at(F::link_address(hop, word));
    const Removal removal = remove_in<child>(below, va, end);
    if (removal.table == Alive::yes) return 0;
    note_cleared(hop);
    memory_.template clear<Word>(table, at, 1, Reach::live);
    memory_.push(gone_, below, left_in<F>(memory_, child, removal.contents));
    return 1;
  }

  template <unsigned hop>
  void remove_tables(Table table) {
    if constexpr (G::has_child(hop)) {
      for (std::uint32_t i = 0; i < G::table_words(hop); ++i) {
        const Word word = memory_.template load<Word>(table, i);
        if (F::classify(hop, word) != EntryKind::table) continue;
        const Table below = memory_.at(F::link_address(hop, word));
        if (!G::is_dual(hop) || i % 2 == F::link_word(hop + 1))
          remove_tables<hop + 1>(below);
        else if constexpr (G::is_dual(hop))
          remove_tables<hop + 2>(below);
      }
    }
    // The root stays what the device walks until it has been told: it must lead nowhere.
    if (hop == 0) memory_.template clear<Word>(table, 0, G::table_words(hop), Reach::live);
    memory_.push(gone_, table, hop == 0 ? left_in<F>(memory_, 0, Contents::zero) : Contents::stale);
  }

  void note_cleared(unsigned hop) { first_hop_ = std::min(first_hop_, hop); }

  Memory& memory_;
  TableList& gone_;
  Coverage coverage_;
  unsigned first_hop_ = F::hops;
};

}  // namespace accelmm::mmu::detail
