// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/mmu/format.hpp>
#include <accelmm/mmu/run_cursor.hpp>
#include <accelmm/mmu/table_memory.hpp>

#include <algorithm>
#include <cstdint>
#include <expected>

// What a map does before it changes anything; the second pass is in page_table_map.hpp.

namespace accelmm::mmu::detail {

/// The first pass: counts the tables that the runs need and that are not there.
template <PteFormat F, TableMemory Memory>
class MissingTables {
  using G = Geometry<F>;
  using Word = typename F::Word;

 public:
  MissingTables(Memory& memory, RunCursor<F> cursor) : memory_(memory), cursor_(cursor) {}

  /// `end` is where the runs end: a table is shared that they do not cover up to its own end.
  /// Errors  address_in_use: something is mapped there.
  [[nodiscard]] Result<void> count(Table root, std::uint64_t end) { return count_in<0>(root, end); }

  /// Counts what an empty tree would need: the most that any may.
  void count_all() { count_new<0>(G::va_end); }

  [[nodiscard]] std::uint32_t missing() const { return missing_; }
  /// Tables that exist, but only as long as others leave something in them.
  [[nodiscard]] std::uint32_t shared() const { return shared_; }

 private:
  template <unsigned hop>
  Result<void> count_in(Table table, std::uint64_t end) {
    while (!cursor_.done() && cursor_.va() < end) {
      const unsigned lg2 = cursor_.largest_leaf();
      if (G::is_leaf_here(hop, lg2)) {
        const Stretch leaves = cursor_.stretch(hop, lg2);
        const auto words =
            static_cast<std::uint32_t>(leaves.bytes >> F::shift(hop)) * F::words(hop);
        if (!memory_.template all_empty<Word>(table, G::word_index(hop, leaves.va), words))
          return in_use();
        cursor_.advance(leaves.bytes);
      } else if constexpr (G::is_dual(hop)) {
        const auto counted = G::is_leaf_here(hop + 1, lg2)
                                 ? count_child<hop, hop + 1, hop + 2>(table, end)
                                 : count_child<hop, hop + 2, hop + 1>(table, end);
        if (!counted) return counted;
      } else if constexpr (G::has_child(hop)) {
        const auto counted = count_child<hop, hop + 1, hop + 1>(table, end);
        if (!counted) return counted;
      } else {
        break;  // leaves of the other table of a dual entry
      }
    }
    return {};
  }

  template <unsigned hop, unsigned child, unsigned other>
  Result<void> count_child(Table table, std::uint64_t end) {
    const std::uint64_t begin = cursor_.va();
    const std::uint64_t next = std::min(end, (begin | (G::span(hop) - 1)) + 1);
    const std::uint32_t at = G::word_index(hop, begin);
    const Word word = memory_.template load<Word>(table, at + F::link_word(child));
    if constexpr (other != child) {
      const Word beside = memory_.template load<Word>(table, at + F::link_word(other));
      if (beside != 0 && !is_clear_beside<child, other>(beside, hop, next)) return in_use();
    }
    if (word == 0) {
      ++missing_;
      count_new<child>(next);
      return {};
    }
    if (F::classify(hop, word) != EntryKind::table) return in_use();
    if (next - begin != G::span(hop)) ++shared_;
    return count_in<child>(memory_.at(F::link_address(hop, word)), next);
  }

  // The other table of a dual entry must not map where the next leaves of this one go, up to where it
  // has its turn again.
  template <unsigned child, unsigned other>
  bool is_clear_beside(Word word, unsigned hop, std::uint64_t next) {
    if (F::classify(hop, word) != EntryKind::table) return false;
    const Table table = memory_.at(F::link_address(hop, word));
    RunCursor<F> ahead = cursor_;
    while (!ahead.done() && ahead.va() < next) {
      const unsigned lg2 = ahead.largest_leaf();
      if (!G::is_leaf_here(child, lg2)) break;
      ahead.advance(ahead.stretch(child, lg2).bytes);
    }
    const std::uint32_t first = G::index(other, cursor_.va());
    const std::uint32_t last = G::index(other, ahead.va() - 1);
    return memory_.template all_empty<Word>(table, first, last - first + 1);
  }

  // Where there are small leaves of one run all the way: their tables, at once.
  template <unsigned hop>
  [[nodiscard]] bool count_last(std::uint64_t end) {
    if constexpr (G::has_child(hop) && !G::is_dual(hop)) {
      if (G::has_child(hop + 1) || cursor_.is_congruent(hop) || !cursor_.reaches(end)) return false;
      const std::uint64_t first = cursor_.va() >> F::shift(hop);
      missing_ += static_cast<std::uint32_t>(((end - 1) >> F::shift(hop)) - first) + 1;
      cursor_.skip_to(end);
      return true;
    }
    return false;
  }

  template <unsigned hop>
  void count_new(std::uint64_t end) {
    if constexpr (!G::has_child(hop) && !G::is_dual(F::parent(hop))) {
      cursor_.skip_to(end);
    } else {
      while (!cursor_.done() && cursor_.va() < end) {
        if (count_last<hop>(end)) return;
        const unsigned lg2 = cursor_.largest_leaf();
        if (G::is_leaf_here(hop, lg2)) {
          cursor_.advance(cursor_.stretch(hop, lg2).bytes);
          continue;
        }
        const std::uint64_t next = std::min(end, (cursor_.va() | (G::span(hop) - 1)) + 1);
        if constexpr (G::is_dual(hop)) {
          ++missing_;
          if (G::is_leaf_here(hop + 1, lg2))
            count_new<hop + 1>(next);
          else
            count_new<hop + 2>(next);
        } else if constexpr (G::has_child(hop)) {
          ++missing_;
          count_new<hop + 1>(next);
        } else {
          break;
        }
      }
    }
  }

  static std::unexpected<Error> in_use() {
    return fail(Errc::address_in_use, "device addresses are mapped already");
  }

  Memory& memory_;
  RunCursor<F> cursor_;
  std::uint32_t missing_ = 0;
  std::uint32_t shared_ = 0;
};

}  // namespace accelmm::mmu::detail
