// SPDX-License-Identifier: Apache-2.0
#include <accelmm/mmu/table_pool.hpp>

#include <algorithm>
#include <bit>
#include <limits>
#include <new>
#include <utility>

// Free tables are a chain through the metadata, last given back first taken: the table most likely
// still in cache. The tables themselves are never touched here: what comes back is all zero
// already, because an unmap clears each entry of its own and a table returns only when its count of
// live entries is zero.

namespace accelmm::mmu {

Result<TablePool> TablePool::create(const TableRange& range) {
  const Alignment whole_table(table_bytes);
  if (!whole_table.divides(range.begin) || !whole_table.divides(range.size) ||
      range.size == ByteCount(0))
    return fail(Errc::invalid_argument, "range of tables is not whole tables");
  if (range.cpu_view == nullptr ||
      !whole_table.divides(std::bit_cast<std::uintptr_t>(range.cpu_view)))
    return fail(Errc::invalid_argument, "view of tables is missing or not aligned to a table");
  if (auto whole = make_range(range.begin, range.size); !whole) return fail(whole.error());
  const std::uint64_t count = range.size.value() / table_bytes;
  if (count >= TableList::none) return fail(Errc::overflow, "too many tables in one pool");
  try {
    return TablePool(range, std::vector<Slot>(count));
  } catch (const std::bad_alloc&) {
    return fail(Errc::no_memory, "no memory for the metadata of page tables");
  }
}

TablePool::TablePool(const TableRange& range, std::vector<Slot> slots)
    : begin_(range.begin),
      entries_(static_cast<std::uint64_t*>(static_cast<void*>(range.cpu_view))),
      slots_(std::move(slots)),
      free_{0, static_cast<std::uint32_t>(slots_.size())} {
  for (std::uint32_t i = 0; i < free_.count; ++i)
    slots_[i] = Slot{i + 1 == free_.count ? TableList::none : i + 1, 0, State::free};
}

Result<TableList> TablePool::take(std::uint32_t count) {
  if (count > free_.count) return fail(Errc::no_memory, "no page tables left");
  TableList list;
  if (count == 0) return list;
  list.head = free_.head;
  std::uint32_t tail = TableList::none;
  for (std::uint32_t taken = 0; taken < count; ++taken) {
    tail = free_.head;
    Slot& slot = slots_[tail];
    ACCELMM_CHECK(slot.state == State::free);
    slot.state = State::held;
    free_.head = slot.next;
  }
  slots_[tail].next = TableList::none;
  list.count = count;
  free_.count -= count;
  return list;
}

void TablePool::give_back(TableList&& list) {
  while (list.count > 0) {
    const std::uint32_t returned = list.head;
    Slot& slot = slots_[returned];
    ACCELMM_CHECK(slot.state == State::held && slot.live == 0);
    ACCELMM_DCHECK(is_zero(returned));
    list.head = slot.next;
    --list.count;
    slot.state = State::free;
    slot.next = free_.head;
    free_.head = returned;
    ++free_.count;
  }
}

bool TablePool::is_zero(std::uint32_t slot) const {
  const std::uint64_t* entries = entries_of(slot);
  return std::all_of(entries, entries + table_entries, [](std::uint64_t e) { return e == 0; });
}

void TablePool::validate() const {
  std::uint32_t chained = 0;
  for (std::uint32_t i = free_.head; i != TableList::none; i = slots_[i].next) {
    ACCELMM_CHECK(i < slots_.size() && slots_[i].state == State::free);
    ACCELMM_CHECK(slots_[i].live == 0);
    ++chained;
    ACCELMM_CHECK(chained <= free_.count);
    ACCELMM_CHECK(i >= touched_ || is_zero(i));
  }
  const auto is_free = [](const Slot& slot) { return slot.state == State::free; };
  ACCELMM_CHECK(chained == free_.count);
  ACCELMM_CHECK(std::cmp_equal(std::count_if(slots_.begin(), slots_.end(), is_free), chained));
}

}  // namespace accelmm::mmu
