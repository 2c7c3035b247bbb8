// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/check.hpp>
#include <accelmm/error.hpp>
#include <accelmm/units.hpp>

#include <concepts>
#include <cstdint>
#include <limits>
#include <utility>

namespace accelmm::mmu {

/// What a table that belongs to no tree holds.
enum class Contents : std::uint8_t {
  zero,
  stale,  ///< entries of its last use: whoever links it writes every word first
};

/// One table: where the device finds it, where the CPU reads it, and its number in its memory.
struct Table {
  BusAddr address;
  void* words = nullptr;
  std::uint32_t slot = 0;
  Contents contents = Contents::zero;  ///< as it was taken; means nothing once it is linked

  template <class Word>
  [[nodiscard]] Word* as() const {
    return static_cast<Word*>(words);
  }
};

/// A chain of tables that belong to no tree: taken for a map, or detached by an unmap.
///
/// The links lie in the metadata of the TableMemory, so a chain of any length needs no allocation.
/// Lifetime  move-only; must be empty when destroyed (checked): dropping it would leak its tables.
struct TableList {
  static constexpr std::uint32_t none = std::numeric_limits<std::uint32_t>::max();

  TableList() = default;
  TableList(TableList&& other) noexcept
      : head(std::exchange(other.head, none)),
        tail(std::exchange(other.tail, none)),
        count(std::exchange(other.count, 0)) {}
  TableList& operator=(TableList&& other) noexcept {
    ACCELMM_CHECK(count == 0);
    head = std::exchange(other.head, none);
    tail = std::exchange(other.tail, none);
    count = std::exchange(other.count, 0);
    return *this;
  }
  TableList(const TableList&) = delete;
  TableList& operator=(const TableList&) = delete;
  ~TableList() { ACCELMM_CHECK(count == 0); }

  std::uint32_t head = none;
  std::uint32_t tail = none;
  std::uint32_t count = 0;
};

/// Whether a device can already reach the table that is being written.
enum class Reach : std::uint8_t {
  hidden,  ///< not linked yet: the link publishes what is stored
  live,    ///< linked: a device may read any word at any time, so each store is one whole word
};

/// Where tables live and how they are written: the engine touches table memory only through this.
///
///   table_bytes()        the size of a table, and its alignment
///   end()                above the addresses of all tables
///   take(n)              n tables, or no_memory and nothing taken
///   pop(list)            takes one table out of a chain, says what it holds
///   push(list, table, contents)   puts a dead or never linked table into a chain; cannot fail
///   give_back(list)      makes the tables of a chain available again
///   at(address)          the table at an address that one of our links holds (checked)
///
/// Each table counts its live words, those that are not empty or about to be:
///   begin_count(t, n)    a table of one's own starts with n
///   join(t, n)           adds n; answers no if the table is dead: somebody took its last word away
///   leave(t, n)          takes n away; answers whether the table is dead by that
///   retire(t, n)         makes a table dead that has exactly n live words, or answers no
///   live(t)              the count
///
///   load<Word>(t, i)     one word; what was stored before a link is seen behind it (acquire)
///   all_empty<Word>(t, i, n), any_empty<Word>(t, i, n)   a look at n words
///   fill(t, i, n, word, step, reach)    stores word, word + step, ... into n words from i
///   store(t, i, word)    stores one word into a live table, after everything stored before (release)
///   link(t, i, word)     the same where the word is zero; answers no, and stores nothing, elsewhere
///   replace(t, i, old, word)  the same where the word is `old`
///   clear<Word>(t, i, n, reach)         stores zero into n words
///   sync()               what was stored reaches the device
///
/// Threads: take, give_back, join, leave, retire, load, link and replace by any at any time; the
/// rest on words and lists that the caller alone writes.
template <class M>
concept TableMemory =
    requires(M& memory, TableList& list, Table table, BusAddr address, std::uint32_t n,
             std::uint64_t word, std::uint32_t half, Reach reach, Contents contents) {
      { memory.table_bytes() } -> std::same_as<std::uint64_t>;
      { memory.end() } -> std::same_as<BusAddr>;
      { memory.take(n) } -> std::same_as<Result<TableList>>;
      { memory.pop(list) } -> std::same_as<Table>;
      { memory.push(list, table, contents) } -> std::same_as<void>;
      { memory.give_back(std::move(list)) } -> std::same_as<void>;
      { memory.at(address) } -> std::same_as<Table>;
      { memory.begin_count(table, n) } -> std::same_as<void>;
      { memory.join(table, n) } -> std::same_as<bool>;
      { memory.leave(table, n) } -> std::same_as<bool>;
      { memory.retire(table, n) } -> std::same_as<bool>;
      { memory.live(table) } -> std::same_as<std::uint32_t>;
      { memory.template load<std::uint64_t>(table, n) } -> std::same_as<std::uint64_t>;
      { memory.template load<std::uint32_t>(table, n) } -> std::same_as<std::uint32_t>;
      { memory.template all_empty<std::uint64_t>(table, n, n) } -> std::same_as<bool>;
      { memory.template any_empty<std::uint64_t>(table, n, n) } -> std::same_as<bool>;
      { memory.fill(table, n, n, word, word, reach) } -> std::same_as<void>;
      { memory.fill(table, n, n, half, half, reach) } -> std::same_as<void>;
      { memory.store(table, n, word) } -> std::same_as<void>;
      { memory.link(table, n, word) } -> std::same_as<bool>;
      { memory.replace(table, n, word, word) } -> std::same_as<bool>;
      { memory.template clear<std::uint64_t>(table, n, n, reach) } -> std::same_as<void>;
      { memory.sync() } -> std::same_as<void>;
    };

}  // namespace accelmm::mmu
