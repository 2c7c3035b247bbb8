// SPDX-License-Identifier: Apache-2.0
#include <accelmm/mmu/table_pool.hpp>

#include <bit>
#include <new>
#include <utility>

// Free tables are a stack through the metadata, last given back first taken: the table most likely
// still in cache. The tables themselves are never touched here. What comes back is all zero, because
// an unmap cleared each entry of its own, or stale, because clearing would have cost more than it
// saves: a map that fills the whole table needs no zero.

namespace accelmm::mmu {

Result<TablePool> TablePool::create(const TableRange& range) {
  if (!std::has_single_bit(range.table_bytes) || range.table_bytes < 64)
    return fail(Errc::invalid_argument, "size of tables is no power of two of at least 64");
  const Alignment whole_table(range.table_bytes);
  if (!whole_table.divides(range.begin) || !whole_table.divides(range.size) ||
      range.size == ByteCount(0))
    return fail(Errc::invalid_argument, "range of tables is not whole tables");
  if (range.cpu_view == nullptr || std::bit_cast<std::uintptr_t>(range.cpu_view) % 64 != 0)
    return fail(Errc::invalid_argument, "view of tables is missing or not aligned to 64 bytes");
  if (auto whole = make_range(range.begin, range.size); !whole) return fail(whole.error());
  const std::uint64_t count = range.size.value() / range.table_bytes;
  if (count >= TableList::none) return fail(Errc::overflow, "too many tables in one pool");
  std::unique_ptr<Slot[]> slots(new (std::nothrow) Slot[count]);
  if (slots == nullptr) return fail(Errc::no_memory, "no memory for the metadata of page tables");
  return TablePool(range, std::move(slots), static_cast<std::uint32_t>(count));
}

TablePool::TablePool(const TableRange& range, std::unique_ptr<Slot[]> slots, std::uint32_t capacity)
    : range_(range),
      table_lg2_(static_cast<unsigned>(std::countr_zero(range.table_bytes))),
      capacity_(capacity),
      slots_(std::move(slots)) {
  for (std::uint32_t i = 0; i < capacity_; ++i) {
    Slot& slot = slots_[i];
    slot.next.store(i + 1, std::memory_order_relaxed);
    slot.live.store(dead, std::memory_order_relaxed);
    slot.state = State::free;
    slot.contents = Contents::zero;
    slot.touched = false;
  }
  free_.push({0, capacity_ - 1}, next_of());
}

// Pre: nobody uses the other one, nor ever did but to take and give back.
TablePool::TablePool(TablePool&& other) noexcept
    : range_(other.range_),
      table_lg2_(other.table_lg2_),
      capacity_(std::exchange(other.capacity_, 0)),
      slots_(std::move(other.slots_)),
      in_use_(other.in_use_.exchange(0, std::memory_order_relaxed)) {
  const std::uint32_t head = other.free_.top();
  if (head == TableList::none) return;
  std::uint32_t tail = head;
  while (slots_[tail].next.load(std::memory_order_relaxed) != TableList::none)
    tail = slots_[tail].next.load(std::memory_order_relaxed);
  free_.push({head, tail}, next_of());
}

Result<TableList> TablePool::take(std::uint32_t count) {
  TableList list;
  if (count == 0) return list;
  if (count > capacity_) return fail(Errc::no_memory, "no page tables left");
  const auto chain = free_.pop(count, next_of());
  if (chain.head == TableList::none) return fail(Errc::no_memory, "no page tables left");
  in_use_.fetch_add(count, std::memory_order_relaxed);
  list.head = chain.head;
  list.tail = chain.tail;
  list.count = count;
  for (std::uint32_t slot = chain.head, i = 0; i < count;
       slot = slots_[slot].next.load(std::memory_order_relaxed), ++i) {
    ACCELMM_CHECK(slots_[slot].state == State::free);
    slots_[slot].state = State::held;
  }
  return list;
}

void TablePool::give_back(TableList&& list) {
  if (list.count == 0) return;
  std::uint32_t slot = list.head;
  for (std::uint32_t i = 0; i < list.count; ++i) {
    Slot& returned = slots_[slot];
    ACCELMM_CHECK(returned.state == State::held);
    ACCELMM_DCHECK(returned.contents == Contents::stale || !returned.touched || is_zero(slot));
    returned.state = State::free;
    slot = returned.next.load(std::memory_order_relaxed);
  }
  in_use_.fetch_sub(list.count, std::memory_order_relaxed);
  free_.push({std::exchange(list.head, TableList::none), std::exchange(list.tail, TableList::none)},
             next_of());
  list.count = 0;
}

void TablePool::append(TableList& to, TableList&& from) {
  if (from.count == 0) return;
  if (to.count == 0) {
    to = std::move(from);
    return;
  }
  slots_[to.tail].next.store(std::exchange(from.head, TableList::none), std::memory_order_relaxed);
  to.tail = std::exchange(from.tail, TableList::none);
  to.count += std::exchange(from.count, 0);
}

bool TablePool::is_zero(std::uint32_t slot) const {
  return all_zero(static_cast<const std::uint64_t*>(static_cast<const void*>(words_of(slot))),
                  static_cast<std::uint32_t>(range_.table_bytes / sizeof(std::uint64_t)));
}

void TablePool::validate() const {
  std::uint32_t chained = 0;
  for (std::uint32_t i = free_.top(); i != TableList::none;
       i = slots_[i].next.load(std::memory_order_relaxed)) {
    ACCELMM_CHECK(i < capacity_ && slots_[i].state == State::free);
    ACCELMM_CHECK(slots_[i].live.load(std::memory_order_relaxed) == dead);
    ++chained;
    ACCELMM_CHECK(chained <= capacity_ - tables_in_use());
    ACCELMM_CHECK(slots_[i].contents == Contents::stale || !slots_[i].touched || is_zero(i));
  }
  ACCELMM_CHECK(chained == capacity_ - tables_in_use());
  std::uint32_t free = 0;
  for (std::uint32_t i = 0; i < capacity_; ++i) free += slots_[i].state == State::free ? 1U : 0U;
  ACCELMM_CHECK(free == chained);
}

}  // namespace accelmm::mmu
