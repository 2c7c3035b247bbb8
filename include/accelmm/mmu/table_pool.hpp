// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/check.hpp>
#include <accelmm/error.hpp>
#include <accelmm/mmu/table_memory.hpp>
#include <accelmm/units.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace accelmm::mmu {

/// A range of private device memory that holds page tables, and the CPU's view of it.
struct TableRange {
  BusAddr begin;
  ByteCount size;
  std::byte* cpu_view;  ///< maps the whole range; outlives the pool
};

/// A fixed number of page tables in one range of memory, shared by all address spaces of a device.
///
/// Owns      12 bytes of metadata per table (0.3 %), all taken in create(); the tables' memory is
///           the caller's.
/// Threads   externally synchronised, together with every tree whose tables lie here.
/// Lifetime  move-only until the first tree points at it; must outlive all of them.
/// Invariant a free table is all zero and in the free chain once; a table is free, held (in a
///           TableList) or linked.
/// Cost      take and give_back O(tables), everything else O(1); never allocates after create().
class TablePool {
 public:
  /// Pre     the memory is all zero (fresh memory of a memfd is) and nobody else writes it.
  /// Errors  invalid_argument: begin or cpu_view is not aligned to a table, the size is zero or not
  ///         whole tables, or there is no view.
  ///         overflow: the range ends beyond 64 bits, or holds 2^32 - 1 tables or more.
  ///         no_memory: no room for the metadata.
  [[nodiscard]] static Result<TablePool> create(const TableRange& range);

  TablePool(TablePool&&) noexcept = default;
  TablePool& operator=(TablePool&&) noexcept = default;
  TablePool(const TablePool&) = delete;
  TablePool& operator=(const TablePool&) = delete;
  ~TablePool() = default;

  [[nodiscard]] std::uint32_t capacity() const { return static_cast<std::uint32_t>(slots_.size()); }
  /// Tables that are not free: linked into a tree, or held until an invalidation is done.
  [[nodiscard]] std::uint32_t tables_in_use() const { return capacity() - free_.count; }

  /// Takes `count` tables, lowest first as long as none was given back.
  /// Errors  no_memory: fewer are free (nothing taken).
  [[nodiscard]] Result<TableList> take(std::uint32_t count);
  /// Pre: the list is a chain of this pool.
  void give_back(TableList&& list);
  [[nodiscard]] Table pop(TableList& list);
  void push(TableList& list, Table table);

  [[nodiscard]] Table at(BusAddr address);
  [[nodiscard]] std::uint32_t& live(Table table) { return slots_[table.slot].live; }

  void fill(Table table, std::uint32_t first, std::uint32_t count, std::uint64_t entry,
            std::uint64_t step, Reach reach);
  void link(Table table, std::uint32_t index, std::uint64_t entry) {
    std::atomic_ref(table.entries[index]).store(entry, std::memory_order_release);
  }
  void clear(Table table, std::uint32_t first, std::uint32_t count) {
    for (std::uint32_t i = first; i < first + count; ++i)
      std::atomic_ref(table.entries[i]).store(0, std::memory_order_relaxed);
  }

  /// Checks the free chain against the states, and that every free table that was ever used is all
  /// zero. Aborts if not.
  /// Cost  O(capacity + entries of used tables).
  void validate() const;

 private:
  enum class State : std::uint8_t { free, held, linked };
  struct Slot {
    std::uint32_t next;
    std::uint32_t live;
    State state;
  };
  static_assert(sizeof(Slot) == 12);

  TablePool(const TableRange& range, std::vector<Slot> slots);

  [[nodiscard]] std::uint64_t* entries_of(std::uint32_t slot) const {
    return entries_ + std::size_t{slot} * table_entries;
  }
  [[nodiscard]] bool is_zero(std::uint32_t slot) const;

  BusAddr begin_;
  std::uint64_t* entries_;
  std::vector<Slot> slots_;
  struct Chain {
    std::uint32_t head;
    std::uint32_t count;
  } free_;
  std::uint32_t touched_ =
      0;  // slots from here on were never used: reading them would populate sparse memory
};

static_assert(TableMemory<TablePool>);

inline Table TablePool::at(BusAddr address) {
  ACCELMM_CHECK(begin_ <= address);
  const std::uint64_t offset = address.value() - begin_.value();
  ACCELMM_CHECK(offset % table_bytes == 0 && offset / table_bytes < slots_.size());
  const auto slot = static_cast<std::uint32_t>(offset / table_bytes);
  ACCELMM_CHECK(slots_[slot].state == State::linked);
  return {address, entries_of(slot), slot};
}

inline Table TablePool::pop(TableList& list) {
  ACCELMM_CHECK(list.count > 0);
  const std::uint32_t slot = list.head;
  Slot& taken = slots_[slot];
  ACCELMM_CHECK(taken.state == State::held && taken.live == 0);
  taken.state = State::linked;
  if (slot >= touched_) touched_ = slot + 1;
  list.head = taken.next;
  --list.count;
  return {begin_ + ByteCount(slot * table_bytes), entries_of(slot), slot};
}

inline void TablePool::push(TableList& list, Table table) {
  Slot& slot = slots_[table.slot];
  ACCELMM_CHECK(slot.state == State::linked && slot.live == 0);
  slot.state = State::held;
  slot.next = list.head;
  list.head = table.slot;
  ++list.count;
}

inline void TablePool::fill(Table table, std::uint32_t first, std::uint32_t count,
                            std::uint64_t entry, std::uint64_t step, Reach reach) {
  ACCELMM_DCHECK(first <= table_entries && count <= table_entries - first);
  std::uint64_t* out = table.entries + first;
  std::uint64_t* const end = out + count;
  if (reach == Reach::live) {
    for (; out != end; ++out, entry += step)
      std::atomic_ref(*out).store(entry, std::memory_order_relaxed);
    return;
  }
  // Eight words are one cache line. A block of known size is what compilers turn into vector stores
  // at -O2.
  constexpr std::uint32_t block = 8;
  for (; end - out >= static_cast<std::ptrdiff_t>(block); out += block, entry += block * step)
    for (std::uint32_t i = 0; i < block; ++i) out[i] = entry + i * step;
  for (; out != end; ++out, entry += step) *out = entry;
}

}  // namespace accelmm::mmu
