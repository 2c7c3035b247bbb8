// SPDX-License-Identifier: Apache-2.0
//
// What the models of page tables share: a format of three hops and few entries, and tables whose
// words, counts and stack are atomics of the model checker.
#pragma once

#include "model/model_check.hpp"

#include <accelmm/check.hpp>
#include <accelmm/error.hpp>
#include <accelmm/mmu/format.hpp>
#include <accelmm/mmu/live_count.hpp>
#include <accelmm/mmu/page_table.hpp>
#include <accelmm/mmu/table_memory.hpp>
#include <accelmm/mmu/table_stack.hpp>
#include <accelmm/units.hpp>

#include <cstdint>
#include <utility>

namespace accelmm::test {

/// Three hops: two entries, two entries, 2^last_bits entries. Leaves at the last two hops.
template <unsigned last_bits>
struct TinyFormat : mmu::FormatDefaults {
  static constexpr unsigned hops = 3;
  static constexpr unsigned bus_bits = 40;
  static constexpr std::uint64_t table_alignment = 4;
  static constexpr std::uint64_t leaf_mark = 1;
  static constexpr std::uint64_t link_mark = 2;

  static constexpr unsigned shift(unsigned hop) { return hop == 2 ? 12 : 13 + last_bits - hop; }
  static constexpr unsigned index_bits(unsigned hop) { return hop == 2 ? last_bits : 1; }
  static constexpr std::uint64_t leaf_sizes(unsigned hop) {
    return hop == 0 ? 0 : std::uint64_t{1} << shift(hop);
  }
  static constexpr mmu::EntryKind classify(unsigned hop, std::uint64_t entry) {
    if (entry == 0) return mmu::EntryKind::empty;
    if ((entry & 3) == leaf_mark && hop > 0) return mmu::EntryKind::leaf;
    return (entry & 3) == link_mark && hop < 2 ? mmu::EntryKind::table : mmu::EntryKind::malformed;
  }
  static constexpr Result<std::uint64_t> leaf_bits(mmu::Attributes) { return leaf_mark; }
  static constexpr std::uint64_t make_leaf(unsigned, unsigned, BusAddr target, std::uint64_t bits) {
    return target.value() | bits;
  }
  static constexpr std::uint64_t make_link(unsigned, BusAddr table) {
    return table.value() | link_mark;
  }
  static constexpr unsigned leaf_lg2(unsigned hop, std::uint64_t) { return shift(hop); }
  static constexpr BusAddr leaf_address(unsigned, std::uint64_t entry) {
    return BusAddr(entry & ~std::uint64_t{3});
  }
  static constexpr BusAddr link_address(unsigned, std::uint64_t entry) {
    return BusAddr(entry & ~std::uint64_t{3});
  }
  static constexpr mmu::Attributes attributes(unsigned, std::uint64_t) { return {}; }
};
static_assert(mmu::PteFormat<TinyFormat<1>>);
static_assert(mmu::Geometry<TinyFormat<1>>::is_regular());
static_assert(mmu::Geometry<TinyFormat<3>>::is_regular());

/// Ways of getting a table memory, or its use, wrong that a model must find.
enum class TableFault {
  none,
  link_is_relaxed,          // what a link leads to may be seen later than the link
  link_looks_first,         // two may link at one place: the second loses the table of the first
  join_ignores_death,       // words are written into a table that is about to be unlinked
  join_is_in_two_steps,     // one of two counts is lost
  leave_forgets_to_kill,    // an empty table stays where it is
  retire_does_not_compare,  // a table dies under the words of others
  stale_is_called_zero,     // entries of a table's last use are taken for new ones
  released_at_once,         // tables are used again while others may still pass them
};

/// A few tables of 64 bytes. All of them begin as stale: full of leaves that lead nowhere.
///
/// Nothing is inlined: the engine asks for all that it calls at its fastest places to be, and of the
/// model checker's atomics that would be more than a compiler bears.
template <TableFault fault>
class ModelTables {
  template <class T>
  using Atomic = typename ModelAtomics<Mutant::none>::template Atomic<T>;
  struct Atomics {
    using Head = Atomic<std::uint64_t>;
    using Next = Atomic<std::uint32_t>;
  };

 public:
  static constexpr std::uint32_t capacity = 14;
  static constexpr std::uint32_t words_of_each = 8;
  static constexpr std::uint64_t begin = 0x1'0000;
  static constexpr std::uint64_t rubbish = 0xBAD'0000 | 1;

  ModelTables() {
    for (std::uint32_t i = 0; i < capacity; ++i) {
      slots_[i].next.store(i + 1, std::memory_order_relaxed);
      slots_[i].state($) = free;
      slots_[i].contents($) = static_cast<int>(mmu::Contents::stale);
      for (auto& word : slots_[i].words) word.store(rubbish, std::memory_order_relaxed);
    }
    stack_.push({0, capacity - 1}, next_of());
  }

  std::uint64_t table_bytes() const { return words_of_each * 8; }
  BusAddr end() const { return BusAddr(begin + capacity * table_bytes()); }

  [[gnu::noinline]] Result<mmu::TableList> take(std::uint32_t count) {
    mmu::TableList list;
    if (count == 0) return list;
    const auto chain = stack_.pop(count, next_of());
    if (chain.head == mmu::TableList::none) return fail(Errc::no_memory, "no tables left");
    list.head = chain.head;
    list.tail = chain.tail;
    list.count = count;
    each(list, free, held);
    return list;
  }
  [[gnu::noinline]] void give_back(mmu::TableList&& list) {
    if (list.count == 0) return;
    each(list, held, free);
    stack_.push({list.head, list.tail}, next_of());
    list.head = list.tail = mmu::TableList::none;
    list.count = 0;
  }
  [[gnu::noinline]] mmu::Table pop(mmu::TableList& list) {
    ACCELMM_CHECK(list.count > 0);
    const std::uint32_t slot = list.head;
    move(slot, held, linked);
    list.head = --list.count == 0 ? mmu::TableList::none
                                  : slots_[slot].next.load(std::memory_order_relaxed);
    if (list.count == 0) list.tail = mmu::TableList::none;
    const auto contents = static_cast<mmu::Contents>(static_cast<int>(slots_[slot].contents($)));
    return {address_of(slot), nullptr, slot, contents};
  }
  [[gnu::noinline]] void push(mmu::TableList& list, mmu::Table table, mmu::Contents contents) {
    Slot& slot = slots_[table.slot];
    move(table.slot, linked, held);
    if (fault == TableFault::stale_is_called_zero) contents = mmu::Contents::zero;
    slot.contents($) = static_cast<int>(contents);
    slot.live.kill();
    slot.next.store(list.head, std::memory_order_relaxed);
    list.head = table.slot;
    if (list.count++ == 0) list.tail = table.slot;
  }

  [[gnu::noinline]] mmu::Table at(BusAddr address) {
    const std::uint64_t offset = address.value() - begin;
    ACCELMM_CHECK(offset % table_bytes() == 0 && offset / table_bytes() < capacity);
    return {address, nullptr, static_cast<std::uint32_t>(offset / table_bytes())};
  }

  [[gnu::noinline]] void begin_count(mmu::Table table, std::uint32_t count) {
    slots_[table.slot].live.begin(count);
  }
  [[gnu::noinline]] bool join(mmu::Table table, std::uint32_t count) {
    auto& live = slots_[table.slot].live;
    if (fault == TableFault::join_is_in_two_steps) {
      const std::uint32_t seen = live.get();
      if (!live.is_dead()) live.begin(seen + count);
      return seen != mmu::TableList::none;
    }
    if (live.join(count)) return true;
    if (fault == TableFault::join_ignores_death) {
      live.begin(count);
      return true;
    }
    rl::yield(1, $);  // the caller waits until another thread has come further
    return false;
  }
  [[gnu::noinline]] bool leave(mmu::Table table, std::uint32_t count) {
    auto& live = slots_[table.slot].live;
    if (fault == TableFault::leave_forgets_to_kill && live.get() == count) {
      live.begin(0);
      return false;
    }
    return live.leave(count);
  }
  [[gnu::noinline]] bool retire(mmu::Table table, std::uint32_t count) {
    auto& live = slots_[table.slot].live;
    if (fault != TableFault::retire_does_not_compare) return live.retire(count);
    live.kill();
    return true;
  }
  [[gnu::noinline]] std::uint32_t live(mmu::Table table) const {
    return slots_[table.slot].live.get();
  }

  template <class Word>
  [[gnu::noinline]] Word load(mmu::Table table, std::uint32_t index) const {
    return static_cast<Word>(slots_[table.slot].words[index].load(std::memory_order_acquire));
  }
  template <class Word>
  [[gnu::noinline]] bool all_empty(mmu::Table table, std::uint32_t first,
                                   std::uint32_t count) const {
    for (std::uint32_t i = first; i < first + count; ++i)
      if (plain(table, i) != 0) return false;
    return true;
  }
  template <class Word>
  [[gnu::noinline]] bool any_empty(mmu::Table table, std::uint32_t first,
                                   std::uint32_t count) const {
    for (std::uint32_t i = first; i < first + count; ++i)
      if (plain(table, i) == 0) return true;
    return false;
  }
  [[gnu::noinline]] void fill(mmu::Table table, std::uint32_t first, std::uint32_t count,
                              std::uint64_t word, std::uint64_t step, mmu::Reach) {
    for (std::uint32_t i = first; i < first + count; ++i, word += step)
      slots_[table.slot].words[i].store(word, std::memory_order_relaxed);
  }
  [[gnu::noinline]] void store(mmu::Table table, std::uint32_t index, std::uint64_t word) {
    slots_[table.slot].words[index].store(word, std::memory_order_release);
  }
  [[gnu::noinline]] bool link(mmu::Table table, std::uint32_t index, std::uint64_t word) {
    if (fault == TableFault::link_looks_first) {
      if (load<std::uint64_t>(table, index) != 0) return false;
      store(table, index, word);
      return true;
    }
    return replace(table, index, 0, word);
  }
  [[gnu::noinline]] bool replace(mmu::Table table, std::uint32_t index, std::uint64_t old,
                                 std::uint64_t word) {
    return slots_[table.slot].words[index].compare_exchange_strong(
        old, word,
        fault == TableFault::link_is_relaxed ? std::memory_order_relaxed
                                             : std::memory_order_acq_rel,
        std::memory_order_relaxed);
  }
  template <class Word>
  [[gnu::noinline]] void clear(mmu::Table table, std::uint32_t first, std::uint32_t count,
                               mmu::Reach reach) {
    fill(table, first, count, 0, 0, reach);
  }
  void sync() {}

  /// Each table is free and in the stack once.
  void expect_all_free() {
    const auto all = stack_.pop(capacity, next_of());
    RL_ASSERT(all.head != mmu::TableList::none);
    unsigned seen = 0;
    std::uint32_t slot = all.head;
    for (std::uint32_t i = 0; i < capacity; ++i) {
      RL_ASSERT(slot < capacity && static_cast<int>(slots_[slot].state($)) == free);
      seen |= 1U << slot;
      slot = slots_[slot].next.load(std::memory_order_relaxed);
    }
    RL_ASSERT(seen == (1U << capacity) - 1);
  }

 private:
  // A state is read and written by who owns the table: two at once are a data race.
  enum State : int { free, held, linked };
  struct Slot {
    Atomic<std::uint32_t> next;
    mmu::LiveCountOf<Atomic<std::uint32_t>> live;
    rl::var<int> state;
    rl::var<int> contents;
    Atomic<std::uint64_t> words[words_of_each];
  };

  auto next_of() {
    return [this](std::uint32_t slot) -> Atomic<std::uint32_t>& { return slots_[slot].next; };
  }
  static BusAddr address_of(std::uint32_t slot) {
    return BusAddr(begin + slot * words_of_each * 8);
  }
  std::uint64_t plain(mmu::Table table, std::uint32_t index) const {
    return slots_[table.slot].words[index].load(std::memory_order_relaxed);
  }
  void move(std::uint32_t slot, State from, State to) {
    ACCELMM_CHECK(static_cast<int>(slots_[slot].state($)) == from);
    slots_[slot].state($) = to;
  }
  void each(const mmu::TableList& list, State from, State to) {
    std::uint32_t slot = list.head;
    for (std::uint32_t i = 0; i < list.count; ++i) {
      move(slot, from, to);
      slot = slots_[slot].next.load(std::memory_order_relaxed);
    }
  }

  Slot slots_[capacity];
  mmu::TableStackOf<Atomics> stack_;
};
static_assert(mmu::TableMemory<ModelTables<TableFault::none>>);

/// Who is inside an operation: what the owner of a tree must know before tables are used again.
template <unsigned threads>
class Operations {
 public:
  Operations() {
    for (auto& number : numbers_) number = 0;
  }
  void begin(unsigned thread) { count(thread); }
  void end(unsigned thread) { count(thread); }
  /// Waits for the operations of others that have begun.
  void wait_for_others(unsigned self) {
    unsigned before[threads];
    mutex_.lock($);
    for (unsigned i = 0; i < threads; ++i) before[i] = numbers_[i];
    mutex_.unlock($);
    for (unsigned i = 0; i < threads; ++i)
      while (i != self && before[i] % 2 == 1 && is_still(i, before[i])) rl::yield(1, $);
  }

 private:
  void count(unsigned thread) {
    mutex_.lock($);
    ++numbers_[thread];
    mutex_.unlock($);
  }
  bool is_still(unsigned thread, unsigned number) {
    mutex_.lock($);
    const bool still = numbers_[thread] == number;
    mutex_.unlock($);
    return still;
  }

  rl::mutex mutex_;
  unsigned numbers_[threads];
};

}  // namespace accelmm::test
