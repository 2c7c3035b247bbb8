// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/check.hpp>
#include <accelmm/mmu/format.hpp>
#include <accelmm/mmu/page_table_missing.hpp>
#include <accelmm/mmu/run_cursor.hpp>
#include <accelmm/mmu/table_memory.hpp>
#include <accelmm/units.hpp>

#include <algorithm>
#include <cstdint>
#include <utility>

// A map makes two passes over the same runs. The first only reads: it refuses what is mapped already
// and counts the tables that are missing. They are taken at once, so the second pass cannot fail. It
// goes down the tree once, keeping its place: a table is looked up once, however many entries are
// written in it. A new table is filled before it is linked, the deepest first, so that one store
// makes a whole subtree visible, and a table that is filled from end to end is never cleared before.
//
// Others may map and unmap disjoint ranges at the same time, and share the tables at both ends of a
// range. A table in which words are to be written is joined first: it counts them from then on, and
// cannot die under the writer. Where two link a table at the same place, one wins, and the other
// writes its leaves into the winner's table.

// The short ways are one function each once the compiler is done: what they call is small, and where it
// stays a call, its arguments go through memory. Without optimisation that would only cost stack.
#ifdef __OPTIMIZE__
#define ACCELMM_MMU_FLATTEN [[gnu::flatten]]
#else
#define ACCELMM_MMU_FLATTEN
#endif

namespace accelmm::mmu::detail {

/// Goes on only when the other thread has come one step further.
inline void wait_a_moment() {
#ifdef __x86_64__
  __builtin_ia32_pause();
#endif
}

/// Makes a table that was just taken all zero, its whole place.
template <class Word, TableMemory Memory>
void clear_stale(Memory& memory, Table table) {
  if (table.contents == Contents::stale)
    memory.template clear<Word>(
        table, 0, static_cast<std::uint32_t>(memory.table_bytes() / sizeof(Word)), Reach::hidden);
}

/// Stores the leaves of a stretch. Returns the words it wrote.
template <PteFormat F, TableMemory Memory>
std::uint32_t put_leaves(Memory& memory, Table table, unsigned hop, const Stretch& leaves,
                         typename F::Word bits, Reach reach) {
  using Word = typename F::Word;
  using G = Geometry<F>;
  const std::uint32_t first = G::word_index(hop, leaves.va);
  const auto items = static_cast<std::uint32_t>(leaves.bytes >> F::shift(hop));
  Word entry = F::make_leaf(hop, leaves.lg2, BusAddr(leaves.bus), bits);
  const auto step = static_cast<Word>(F::step(G::span(hop)));
  if (G::is_dual(hop)) {  // the other word of a leaf stays empty
    for (std::uint32_t i = 0; i < items; ++i, entry += step)
      memory.fill(table, first + 2 * i, 1, entry, step, reach);
  } else if (!F::repeats_group || leaves.lg2 == F::shift(hop)) {
    memory.fill(table, first, items, entry, step, reach);
  } else {
    const std::uint32_t group = std::uint32_t{1} << (leaves.lg2 - F::shift(hop));
    const auto group_step = static_cast<Word>(F::step(std::uint64_t{1} << leaves.lg2));
    for (std::uint32_t i = 0; i < items; i += group, entry += group_step)
      memory.fill(table, first + i, group, entry, Word{0}, reach);
  }
  return items;
}

/// The second pass: writes the leaves. `fresh` has as many tables as may be needed.
template <PteFormat F, TableMemory Memory>
class LeafWriter {
  using G = Geometry<F>;
  using Word = typename F::Word;

 public:
  LeafWriter(Memory& memory, RunCursor<F> cursor, Word bits, TableList& fresh)
      : memory_(memory), cursor_(cursor), bits_(bits), fresh_(fresh) {}

  /// `end` is where the runs end.
  void write(Table root, std::uint64_t end) {
    const bool written = write_live<0>(root, end);
    ACCELMM_CHECK(written && cursor_.done());
  }

 private:
  // Writes into a table that others can reach. Answers no, with nothing of this table counted, if it
  // died before the first word of ours held it.
  template <unsigned hop>
  [[nodiscard]] bool write_live(Table table, std::uint64_t end) {
    if constexpr (G::is_dual(hop) || (hop > 0 && G::is_dual(F::parent(hop))))
      return write_counting_each<hop>(table, end);
    else if constexpr (!G::has_child(hop))
      return write_last<hop>(table, end);
    else
      return write_between<hop>(table, end);
  }

  template <unsigned hop>
  [[nodiscard]] bool write_last(Table table, std::uint64_t end) {
    if (!memory_.join(table, words_until<hop>(end))) return false;
    while (!cursor_.done() && cursor_.va() < end) write_leaves<hop>(table, Reach::live);
    return true;
  }

  // Every entry of the range gets one word of ours, but the first and the last if they are links.
  template <unsigned hop>
  [[nodiscard]] bool write_between(Table table, std::uint64_t end) {
    const std::uint32_t first = G::index(hop, cursor_.va());
    const std::uint32_t count = words_until<hop>(end);
    const bool first_linked = is_linked(table, first);
    const bool last_linked = count > 1 && is_linked(table, first + count - 1);
    const std::uint32_t ours = count - (first_linked ? 1 : 0) - (last_linked ? 1 : 0);
    if (ours > 0 && !memory_.join(table, ours)) return false;
    std::uint32_t used = 0;
    while (!cursor_.done() && cursor_.va() < end) {
      if constexpr (is_simple_above_last(hop)) {
        const std::uint32_t whole = write_whole_tables<hop>(table, end, Reach::live);
        used += whole;
        if (whole > 0) continue;
      }
      const unsigned lg2 = cursor_.largest_leaf();
      if (G::is_leaf_here(hop, lg2)) {
        used += write_leaves<hop>(table, Reach::live);
        continue;
      }
      const std::uint32_t index = G::index(hop, cursor_.va());
      const bool linked = index == first ? first_linked : last_linked && index == first + count - 1;
      if (!linked) ++used;
      if (!write_child<hop, hop + 1>(table, end, linked ? Counted::no : Counted::yes)) return false;
    }
    if (used < ours) leave(table, ours - used);
    return true;
  }

  // Where an entry has two words, or a table holds only a part of what its range maps.
  template <unsigned hop>
  [[nodiscard]] bool write_counting_each(Table table, std::uint64_t end) {
    bool holds = false;  // a word of ours keeps the table alive
    while (!cursor_.done() && cursor_.va() < end) {
      const unsigned lg2 = cursor_.largest_leaf();
      if (G::is_leaf_here(hop, lg2)) {
        const Stretch leaves = cursor_.stretch(hop, lg2);
        if (!memory_.join(table, static_cast<std::uint32_t>(leaves.bytes >> F::shift(hop)))) {
          ACCELMM_CHECK(!holds);
          return false;
        }
        write_leaves<hop>(table, Reach::live);
      } else if constexpr (G::is_dual(hop)) {
        const bool written = G::is_leaf_here(hop + 1, lg2)
                                 ? write_child<hop, hop + 1>(table, end, Counted::no)
                                 : write_child<hop, hop + 2>(table, end, Counted::no);
        if (!written) {
          ACCELMM_CHECK(!holds);
          return false;
        }
      } else {
        return true;
      }
      holds = true;
    }
    return true;
  }

  enum class Counted : bool { no, yes };  // whether the table counts the link already

  template <unsigned hop, unsigned child>
  [[nodiscard]] bool write_child(Table table, std::uint64_t end, Counted counted) {
    const std::uint64_t next = std::min(end, (cursor_.va() | (G::span(hop) - 1)) + 1);
    const std::uint32_t at = G::word_index(hop, cursor_.va()) + F::link_word(child);
    for (;; wait_a_moment()) {
      const Word word = memory_.template load<Word>(table, at);
      if (word != 0) {
        if (!write_live<child>(memory_.at(F::link_address(hop, word)), next))
          continue;  // it is dead: whoever took its last word away clears the link
        if (counted == Counted::yes) leave(table, 1);  // somebody else's link, counted by them
        return true;
      }
      if (counted == Counted::no && !memory_.join(table, 1)) return false;
      counted = Counted::yes;
      const RunCursor<F> before = cursor_;
      const Table fresh = memory_.pop(fresh_);
      memory_.begin_count(fresh, write_hidden<child>(fresh, next));
      if (memory_.link(table, at, F::make_link(hop, fresh.address))) return true;
      discard<child>(fresh, before.va(), cursor_.va());
      cursor_ = before;
    }
  }

  // Fills a table that nobody can reach yet. Returns its live words.
  template <unsigned hop>
  std::uint32_t write_hidden(Table table, std::uint64_t end) {
    std::uint32_t written = G::word_index(hop, cursor_.va());  // words below are written
    if (table.contents == Contents::stale) {
      if (G::is_dual(hop)) written = G::table_words(hop);
      if (written > 0) memory_.template clear<Word>(table, 0, written, Reach::hidden);
    }
    std::uint32_t live = 0;
    while (!cursor_.done() && cursor_.va() < end) {
      if constexpr (is_simple_above_last(hop))
        live += write_whole_tables<hop>(table, end, Reach::hidden);
      if (cursor_.done() || cursor_.va() >= end) break;
      const unsigned lg2 = cursor_.largest_leaf();
      if (G::is_leaf_here(hop, lg2)) {
        live += write_leaves<hop>(table, Reach::hidden);
      } else if constexpr (G::is_dual(hop)) {
        if (G::is_leaf_here(hop + 1, lg2))
          live += write_hidden_child<hop, hop + 1>(table, end);
        else
          live += write_hidden_child<hop, hop + 2>(table, end);
      } else if constexpr (G::has_child(hop)) {
        live += write_hidden_child<hop, hop + 1>(table, end);
      } else {
        break;
      }
    }
    if (table.contents == Contents::stale && !G::is_dual(hop)) {
      const std::uint32_t after = written + live;
      if (after < G::table_words(hop))
        memory_.template clear<Word>(table, after, G::table_words(hop) - after, Reach::hidden);
    }
    return live;
  }

  // Whether tables of one size of leaf, and nothing else, stand below the hop.
  static constexpr bool is_simple_above_last(unsigned hop) {
    return G::has_child(hop) && !G::is_dual(hop) && !G::has_child(hop + 1) &&
           F::leaf_sizes(hop + 1) == G::span(hop + 1) && F::step_bits == 64;
  }

  // Tables that one run fills from end to end with leaves of the last hop: most of what a large map
  // stores, so nothing is asked for each of them. Nobody else maps where they go: their links are
  // plain stores, in a table that others reach too. Returns how many.
  template <unsigned hop>
  std::uint32_t write_whole_tables(Table table, std::uint64_t end, Reach reach) {
    constexpr unsigned last = hop + 1;
    if ((cursor_.va() & (G::span(hop) - 1)) != 0 || cursor_.is_congruent(hop)) return 0;
    const std::uint64_t bytes = std::min(end - cursor_.va(), cursor_.left());
    const auto count = static_cast<std::uint32_t>(bytes >> F::shift(hop));
    const auto step = static_cast<Word>(F::step(G::span(last)));
    const std::uint32_t first = G::index(hop, cursor_.va());
    ACCELMM_DCHECK(reach == Reach::hidden || !count || !is_linked(table, first));
    Word entry = F::make_leaf(last, F::shift(last), BusAddr(cursor_.bus()), bits_);
    for (std::uint32_t i = 0; i < count; ++i) {
      const Table fresh = memory_.pop(fresh_);
      memory_.begin_count(fresh, G::entries(last));
      memory_.fill(fresh, 0, G::entries(last), entry, step, Reach::hidden);
      memory_.fill(table, first + i, 1, F::make_link(hop, fresh.address), Word{0}, reach);
      entry += static_cast<Word>(G::entries(last) * step);
    }
    if (count > 0) cursor_.advance(std::uint64_t{count} << F::shift(hop));
    return count;
  }

  // A dual entry may have the table already: another stretch of it came before.
  template <unsigned hop, unsigned child>
  std::uint32_t write_hidden_child(Table table, std::uint64_t end) {
    const std::uint64_t next = std::min(end, (cursor_.va() | (G::span(hop) - 1)) + 1);
    const std::uint32_t at = G::word_index(hop, cursor_.va()) + F::link_word(child);
    if constexpr (G::is_dual(hop)) {
      const Word word = memory_.template load<Word>(table, at);
      if (word != 0) {
        const bool written = write_live<child>(memory_.at(F::link_address(hop, word)), next);
        ACCELMM_CHECK(written);
        return 0;
      }
    }
    const Table fresh = memory_.pop(fresh_);
    memory_.begin_count(fresh, write_hidden<child>(fresh, next));
    memory_.fill(table, at, 1, F::make_link(hop, fresh.address), Word{0}, Reach::hidden);
    return 1;
  }

  // Takes a hidden table, and those below it, apart again.
  template <unsigned hop>
  void discard(Table table, std::uint64_t begin, std::uint64_t end) {
    if constexpr (G::has_child(hop)) {
      for (std::uint64_t va = begin; va < end;) {
        const std::uint64_t next = std::min(end, (va | (G::span(hop) - 1)) + 1);
        discard_child<hop, hop + 1>(table, va, next);
        if constexpr (G::is_dual(hop)) discard_child<hop, hop + 2>(table, va, next);
        va = next;
      }
    }
    memory_.push(fresh_, table, Contents::stale);
  }
  template <unsigned hop, unsigned child>
  void discard_child(Table table, std::uint64_t begin, std::uint64_t end) {
    const std::uint32_t at = G::word_index(hop, begin) + F::link_word(child);
    const Word word = memory_.template load<Word>(table, at);
    if (F::classify(hop, word) == EntryKind::table)
      discard<child>(memory_.at(F::link_address(hop, word)), begin, end);
  }

  template <unsigned hop>
  std::uint32_t write_leaves(Table table, Reach reach) {
    const Stretch leaves = cursor_.stretch(hop, cursor_.largest_leaf());
    const std::uint32_t words = put_leaves<F>(memory_, table, hop, leaves, bits_, reach);
    cursor_.advance(leaves.bytes);
    return words;
  }
  // What is counted here is held by other words of ours: the table does not die.
  void leave(Table table, std::uint32_t words) {
    const bool died = memory_.leave(table, words);
    ACCELMM_CHECK(!died);
  }
  [[nodiscard]] bool is_linked(Table table, std::uint32_t index) const {
    return memory_.template load<Word>(table, index) != 0;
  }
  // Entries from the cursor on. Pre: `end` lies in this table's range.
  template <unsigned hop>
  [[nodiscard]] std::uint32_t words_until(std::uint64_t end) const {
    return static_cast<std::uint32_t>(((end - 1) >> F::shift(hop)) -
                                      (cursor_.va() >> F::shift(hop))) +
           1;
  }

  Memory& memory_;
  RunCursor<F> cursor_;
  Word bits_;
  TableList& fresh_;
};

}  // namespace accelmm::mmu::detail
