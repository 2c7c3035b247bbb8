// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/check.hpp>
#include <accelmm/error.hpp>
#include <accelmm/mmu/live_count.hpp>
#include <accelmm/mmu/table_memory.hpp>
#include <accelmm/mmu/table_sink.hpp>
#include <accelmm/mmu/table_stack.hpp>
#include <accelmm/mmu/words.hpp>
#include <accelmm/units.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>

namespace accelmm::mmu {

/// A range of private memory that holds page tables, and the CPU's view of it.
struct TableRange {
  BusAddr begin;
  ByteCount size;
  std::byte* cpu_view;  ///< maps the whole range; outlives the pool
  /// The size of every table: at least what the format's largest needs, a power of two.
  std::uint64_t table_bytes = 4096;
  /// Where stores go besides cpu_view, which is a copy in host memory then. Outlives the pool.
  TableSink* sink = nullptr;
};

/// A fixed number of page tables in one range of memory, shared by all address spaces of a device.
///
/// Each processor has a share of neighbouring tables, its *home*, whatever it links them for: two
/// processors that map at the same time use neither the same tables nor lines of metadata, but for
/// the tables above that lead to both.
///
/// Owns      64 bytes of metadata per table (1.6 %) and 128 a home, all taken in create(); the
///           tables' memory is the caller's.
/// Threads   any for what TableMemory says so; the rest as it says. validate() when nothing else
///           runs.
/// Lifetime  move-only until the first tree points at it; must outlive all of them.
/// Invariant a table is free, held (in a TableList) or linked; a free one is in its home's stack
///           once, and all zero unless its last use left it stale.
/// Cost      take O(tables), give_back O(tables), everything else O(1); never allocates after
///           create().
class TablePool {
 public:
  /// Pre     the memory is all zero (fresh memory of a memfd is) and nobody else writes it; what
  ///         the sink leads to likewise.
  /// Errors  invalid_argument: table_bytes is no power of two of at least 64, begin is not aligned
  ///         to it or cpu_view not to 64, the size is zero or not whole tables, or there is no view.
  ///         overflow: the range ends beyond 64 bits, or holds 2^32 - 1 tables or more.
  ///         no_memory: no room for the metadata.
  [[nodiscard]] static Result<TablePool> create(const TableRange& range);

  TablePool(TablePool&& other) noexcept;
  TablePool& operator=(TablePool&&) = delete;
  TablePool(const TablePool&) = delete;
  TablePool& operator=(const TablePool&) = delete;
  ~TablePool() = default;

  [[nodiscard]] std::uint64_t table_bytes() const { return range_.table_bytes; }
  [[nodiscard]] BusAddr end() const { return range_.begin + range_.size; }
  [[nodiscard]] std::uint32_t capacity() const { return capacity_; }
  /// Tables that are not free: linked into a tree, or held until an invalidation is done.
  [[nodiscard]] std::uint32_t tables_in_use() const;

  /// Takes `count` tables, of the processor's home as long as it has enough, those last given back
  /// first, and of the others' otherwise.
  /// Errors  no_memory: fewer are free, not counting what others hold at this moment (nothing
  ///         taken).
  [[nodiscard]] Result<TableList> take(std::uint32_t count);
  /// Pre: the list is a chain of this pool.
  void give_back(TableList&& list);
  /// Moves the tables of one chain to the other. Cannot fail.
  void append(TableList& to, TableList&& from);
  [[nodiscard]] Table pop(TableList& list);
  void push(TableList& list, Table table, Contents contents);

  [[nodiscard]] Table at(BusAddr address);

  void begin_count(Table table, std::uint32_t count) { slots_[table.slot].live.begin(count); }
  [[nodiscard]] bool join(Table table, std::uint32_t count) {
    return slots_[table.slot].live.join(count);
  }
  [[nodiscard]] bool leave(Table table, std::uint32_t count) {
    return slots_[table.slot].live.leave(count);
  }
  [[nodiscard]] bool retire(Table table, std::uint32_t count) {
    return slots_[table.slot].live.retire(count);
  }
  [[nodiscard]] std::uint32_t live(Table table) const { return slots_[table.slot].live.get(); }

  template <class Word>
  [[nodiscard]] Word load(Table table, std::uint32_t index) const {
    return std::atomic_ref(table.as<Word>()[index]).load(std::memory_order_acquire);
  }
  template <class Word>
  [[nodiscard]] bool all_empty(Table table, std::uint32_t first, std::uint32_t count) const {
    return count == 1 ? load<Word>(table, first) == 0 : all_zero(table.as<Word>() + first, count);
  }
  template <class Word>
  [[nodiscard]] bool any_empty(Table table, std::uint32_t first, std::uint32_t count) const {
    return count == 1 ? load<Word>(table, first) == 0 : any_zero(table.as<Word>() + first, count);
  }
  template <class Word>
  void fill(Table table, std::uint32_t first, std::uint32_t count, Word entry, Word step,
            Reach reach);
  template <class Word>
  void store(Table table, std::uint32_t index, Word entry) {
    std::atomic_ref(table.as<Word>()[index]).store(entry, std::memory_order_release);
    forward(table, index, 1, entry, Word{0});
  }
  template <class Word>
  [[nodiscard]] bool link(Table table, std::uint32_t index, Word entry) {
    return range_.sink == nullptr ? replace(table, index, Word{0}, entry)
                                  : link_through_sink(table, index, entry);
  }
  template <class Word>
  [[nodiscard]] bool replace(Table table, std::uint32_t index, Word old, Word entry) {
    if (!std::atomic_ref(table.as<Word>()[index])
             .compare_exchange_strong(old, entry, std::memory_order_acq_rel,
                                      std::memory_order_relaxed))
      return false;
    forward(table, index, 1, entry, Word{0});
    return true;
  }
  template <class Word>
  void clear(Table table, std::uint32_t first, std::uint32_t count, Reach reach) {
    fill(table, first, count, Word{0}, Word{0}, reach);
  }
  void sync() {
    if (range_.sink != nullptr) range_.sink->sync();
  }

  /// Checks the free tables against the states, and that every one that was used and is not stale
  /// is all zero. Aborts if not.
  /// Cost  O(capacity + entries of used tables).
  void validate() const;

 private:
  enum class State : std::uint8_t { free, held, linked };
  // A line each: the count of a table that many use must not lie beside those of one's own.
  struct alignas(64) Slot {
    std::atomic<std::uint32_t> next;
    LiveCountOf<std::atomic<std::uint32_t>> live;
    State state;
    Contents contents;
    bool touched;  // its memory was used: reading other memory would populate sparse files
  };
  static_assert(sizeof(Slot) == 64);
  struct Atomics {
    using Head = std::atomic<std::uint64_t>;
    using Next = std::atomic<std::uint32_t>;
  };

  struct alignas(128) Home {
    TableStackOf<Atomics> free;
    std::atomic<std::uint32_t> taken{0};
  };
  using Chain = TableStackOf<Atomics>::Chain;

  TablePool(const TableRange& range, std::unique_ptr<Slot[]> slots, std::unique_ptr<Home[]> homes,
            std::uint32_t capacity);

  [[nodiscard]] std::uint32_t home_count() const {
    return capacity_ == 0 ? 0 : ((capacity_ - 1) >> home_lg2_) + 1;
  }
  [[nodiscard]] Home& home_of(std::uint32_t slot) const { return homes_[slot >> home_lg2_]; }
  [[nodiscard]] Home& own_home() const;
  [[nodiscard]] Result<TableList> gather(std::uint32_t count);
  [[nodiscard]] TableList hold(const Chain& chain);
  std::uint32_t count_free(const Home& home, std::uint32_t number) const;
  [[nodiscard]] auto next_of() {
    return [slots = slots_.get()](std::uint32_t slot) -> std::atomic<std::uint32_t>& {
      return slots[slot].next;
    };
  }
  [[nodiscard]] std::byte* words_of(std::uint32_t slot) const {
    return range_.cpu_view + slot * range_.table_bytes;
  }
  [[nodiscard]] bool is_zero(std::uint32_t slot) const;
  template <class Word>
  [[nodiscard]] bool link_through_sink(Table table, std::uint32_t index, Word entry);
  template <class Word>
  void forward(Table table, std::uint32_t first, std::uint32_t count, Word entry, Word step) {
    if (range_.sink != nullptr && count != 0) [[unlikely]]
      range_.sink->write(
          {table.address + ByteCount(first * sizeof(Word)), count, sizeof(Word), entry, step});
  }

  TableRange range_;
  unsigned table_lg2_;
  std::uint32_t capacity_;
  std::unique_ptr<Slot[]> slots_;
  std::unique_ptr<Home[]> homes_;
  unsigned home_lg2_;     // tables of a home
  std::mutex gathering_;  // so that two who need the last tables do not each hold half of them
  std::mutex linking_;    // where there is a sink
};

static_assert(TableMemory<TablePool>);

[[gnu::always_inline]] inline Table TablePool::at(BusAddr address) {
  const std::uint64_t offset = address.value() - range_.begin.value();
  ACCELMM_CHECK((offset & (range_.table_bytes - 1)) == 0 && offset < range_.size.value());
  return {address, range_.cpu_view + offset, static_cast<std::uint32_t>(offset >> table_lg2_)};
}

inline Table TablePool::pop(TableList& list) {
  ACCELMM_CHECK(list.count > 0);
  const std::uint32_t slot = list.head;
  Slot& taken = slots_[slot];
  ACCELMM_CHECK(taken.state == State::held);
  taken.state = State::linked;
  taken.touched = true;
  list.head = --list.count == 0 ? TableList::none : taken.next.load(std::memory_order_relaxed);
  if (list.count == 0) list.tail = TableList::none;
  return {range_.begin + ByteCount(slot * range_.table_bytes), words_of(slot), slot,
          taken.contents};
}

inline void TablePool::push(TableList& list, Table table, Contents contents) {
  Slot& slot = slots_[table.slot];
  ACCELMM_CHECK(slot.state == State::linked);
  slot.state = State::held;
  slot.contents = contents;
  slot.live.kill();
  slot.next.store(list.head, std::memory_order_relaxed);
  list.head = table.slot;
  if (list.count++ == 0) list.tail = table.slot;
}

template <class Word>
void TablePool::fill(Table table, std::uint32_t first, std::uint32_t count, Word entry, Word step,
                     Reach /*reach*/) {
  ACCELMM_DCHECK((std::uint64_t{first} + count) * sizeof(Word) <= range_.table_bytes);
  Word* const out = table.as<Word>() + first;
  // The sink first: whoever sees here that a link is gone may put another one at its place, which
  // must reach the device after this.
  forward(table, first, count, entry, step);
  if (count == 1)
    std::atomic_ref(*out).store(entry, std::memory_order_release);
  else
    fill_words(out, count, entry, step);
}

// Others rely on a link as soon as they read it in the copy: so the device has it before. The lock
// keeps two from linking at one place.
template <class Word>
bool TablePool::link_through_sink(Table table, std::uint32_t index, Word entry) {
  const std::lock_guard lock(linking_);
  const std::atomic_ref word(table.as<Word>()[index]);
  if (word.load(std::memory_order_acquire) != 0) return false;
  forward(table, index, 1, entry, Word{0});
  range_.sink->sync();
  word.store(entry, std::memory_order_release);
  return true;
}

}  // namespace accelmm::mmu
