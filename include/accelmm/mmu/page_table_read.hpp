// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/check.hpp>
#include <accelmm/mmu/format.hpp>
#include <accelmm/mmu/table_memory.hpp>
#include <accelmm/mmu/walk.hpp>
#include <accelmm/units.hpp>

#include <algorithm>
#include <cstdint>
#include <optional>

namespace accelmm::mmu::detail {

/// Reads trees of one format: what a device address means, what is mapped, whether all is well.
template <PteFormat F, TableMemory Memory>
class TreeReader {
  using G = Geometry<F>;
  using Word = typename F::Word;

 public:
  explicit TreeReader(Memory& memory) : memory_(memory) {}

  /// The leaf that maps `va`.
  [[nodiscard]] std::optional<Leaf> find(Table root, std::uint64_t va) {
    return va < G::va_end ? find_in<0>(root, va) : std::nullopt;
  }

  /// Adds the entries on the way to `va`.
  void trace(Table root, std::uint64_t va, Walk& walk) {
    if (va < G::va_end) trace_in<0>(root, va, walk);
  }

  /// Calls f(leaf) for each leaf that begins in [va, end) or covers va, in ascending order.
  template <class Visit>
  void visit(Table root, std::uint64_t va, std::uint64_t end, Visit& f) {
    if (va < end) visit_in<0>(root, va, end, f);
  }

  [[nodiscard]] std::uint32_t count_tables(Table root) { return count_in<0>(root); }

  /// Returns the tables from `root` on. Aborts at the first thing that is wrong.
  [[nodiscard]] std::uint32_t validate(Table root) { return validate_in<0>(root); }

 private:
  [[nodiscard]] static Leaf leaf_at(unsigned hop, std::uint64_t va, Word word) {
    const unsigned lg2 = F::leaf_lg2(hop, word);
    const std::uint64_t within = (std::uint64_t{1} << lg2) - 1;
    return {DeviceAddr(va & ~within), BusAddr(F::leaf_address(hop, word).value() & ~within),
            ByteCount(within + 1), F::attributes(hop, word)};
  }

  template <unsigned hop>
  [[nodiscard]] std::optional<Leaf> find_in(Table table, std::uint64_t va) {
    const Word word = memory_.template load<Word>(table, G::word_index(hop, va));
    const EntryKind kind = F::classify(hop, word);
    if (kind == EntryKind::leaf) return leaf_at(hop, va, word);
    if constexpr (G::has_child(hop)) {
      if constexpr (G::is_dual(hop)) {
        if (auto found = find_below<hop, hop + 2>(table, va)) return found;
        return find_below<hop, hop + 1>(table, va);
      } else if (kind == EntryKind::table) {
        return find_in<hop + 1>(memory_.at(F::link_address(hop, word)), va);
      }
    }
    return std::nullopt;
  }
  template <unsigned hop, unsigned child>
  [[nodiscard]] std::optional<Leaf> find_below(Table table, std::uint64_t va) {
    const Word word =
        memory_.template load<Word>(table, G::word_index(hop, va) + F::link_word(child));
    if (F::classify(hop, word) != EntryKind::table) return std::nullopt;
    return find_in<child>(memory_.at(F::link_address(hop, word)), va);
  }

  template <unsigned hop>
  void trace_in(Table table, std::uint64_t va, Walk& walk) {
    for (unsigned i = 0; i < F::words(hop); ++i) {
      const std::uint32_t index = G::word_index(hop, va) + i;
      const Word word = memory_.template load<Word>(table, index);
      const EntryKind kind = F::classify(hop, word);
      walk.add({hop, table.address, index, word, kind});
      if constexpr (G::has_child(hop)) {
        if (kind != EntryKind::table) continue;
        const Table below = memory_.at(F::link_address(hop, word));
        if (!G::is_dual(hop) || i == F::link_word(hop + 1))
          trace_in<hop + 1>(below, va, walk);
        else if constexpr (G::is_dual(hop))
          trace_in<hop + 2>(below, va, walk);
      }
    }
  }

  template <unsigned hop, class Visit>
  void visit_in(Table table, std::uint64_t va, std::uint64_t end, Visit& f) {
    while (va < end) {
      std::uint64_t next = (va | (G::span(hop) - 1)) + 1;
      const Word word = memory_.template load<Word>(table, G::word_index(hop, va));
      const EntryKind kind = F::classify(hop, word);
      if (kind == EntryKind::leaf) {
        const Leaf leaf = leaf_at(hop, va, word);
        f(leaf);
        next = (leaf.va + leaf.size).value();
      } else if constexpr (G::is_dual(hop)) {
        visit_dual<hop>(table, va, std::min(next, end), f);
      } else if constexpr (G::has_child(hop)) {
        if (kind == EntryKind::table)
          visit_in<hop + 1>(memory_.at(F::link_address(hop, word)), va, std::min(next, end), f);
      }
      va = next;
    }
  }

  // One entry of a dual hop: large pieces in one table, small ones in the other, never both at one
  // place.
  template <unsigned hop, class Visit>
  void visit_dual(Table table, std::uint64_t va, std::uint64_t end, Visit& f) {
    while (va < end) {
      auto leaf = find_below<hop, hop + 1>(table, va);
      if (!leaf) leaf = find_below<hop, hop + 2>(table, va);
      if (leaf) f(*leaf);
      va = leaf ? (leaf->va + leaf->size).value() : (va | (G::page_size - 1)) + 1;
    }
  }

  template <unsigned hop>
  [[nodiscard]] std::uint32_t count_in(Table table) {
    std::uint32_t tables = 1;
    if constexpr (G::has_child(hop)) {
      for (std::uint32_t i = 0; i < G::table_words(hop); ++i) {
        const Word word = memory_.template load<Word>(table, i);
        if (F::classify(hop, word) != EntryKind::table) continue;
        const Table below = memory_.at(F::link_address(hop, word));
        if constexpr (!G::is_dual(hop))
          tables += count_in<hop + 1>(below);
        else
          tables +=
              i % 2 == F::link_word(hop + 1) ? count_in<hop + 1>(below) : count_in<hop + 2>(below);
      }
    }
    return tables;
  }

  template <unsigned hop>
  [[nodiscard]] std::uint32_t validate_in(Table table) {
    std::uint32_t tables = 1;
    std::uint32_t live = hop == 0 ? 1 : 0;  // a root is held by its tree
    for (std::uint32_t i = 0; i < G::table_words(hop); ++i) {
      const Word word = memory_.template load<Word>(table, i);
      if (word == 0) continue;
      ++live;
      const EntryKind kind = F::classify(hop, word);
      ACCELMM_CHECK(kind == EntryKind::table || kind == EntryKind::leaf);
      if (kind == EntryKind::leaf) {
        validate_leaf<hop>(table, i, word);
      } else if constexpr (G::is_dual(hop)) {
        const Table below = memory_.at(F::link_address(hop, word));
        tables += i % 2 == F::link_word(hop + 1) ? validate_in<hop + 1>(below)
                                                 : validate_in<hop + 2>(below);
      } else if constexpr (G::has_child(hop)) {
        tables += validate_in<hop + 1>(memory_.at(F::link_address(hop, word)));
      }
    }
    if constexpr (hop ==
                  0) {  // what a smaller table leaves of its place may be stale; not of a root
      const auto room = static_cast<std::uint32_t>(memory_.table_bytes() / sizeof(Word));
      const std::uint32_t used = G::table_words(0);
      ACCELMM_CHECK(memory_.template all_empty<Word>(table, used, room - used));
    }
    ACCELMM_CHECK(live == memory_.live(table));
    ACCELMM_CHECK(live > 0);
    return tables;
  }

  // Every entry of a group is there and says the same.
  template <unsigned hop>
  void validate_leaf(Table table, std::uint32_t index, Word word) {
    const unsigned lg2 = F::leaf_lg2(hop, word);
    ACCELMM_CHECK(G::is_leaf_here(hop, lg2));
    const std::uint32_t group = std::uint32_t{1} << (lg2 - F::shift(hop));
    const std::uint32_t within = index & (group - 1);
    const auto step = F::repeats_group ? Word{0} : static_cast<Word>(F::step(G::span(hop)));
    if (group == 1 || within == 0) return;
    ACCELMM_CHECK(memory_.template load<Word>(table, index - 1) == word - step);
    if (within + 1 < group) ACCELMM_CHECK(memory_.template load<Word>(table, index + 1) != 0);
  }

  Memory& memory_;
};

}  // namespace accelmm::mmu::detail
