// SPDX-License-Identifier: Apache-2.0
#include "base/per_cpu.hpp"

#include <accelmm/mmu/table_pool.hpp>

#include <algorithm>
#include <bit>
#include <new>
#include <utility>

// Free tables are stacks through the metadata, one for each home, last given back first taken: the
// table most likely still in cache. The tables themselves are never touched here. What comes back is
// all zero, because an unmap cleared each entry of its own, or stale, because clearing would have
// cost more than it saves: a map that fills the whole table needs no zero.
//
// A table goes back to its home, not to who gives it back. Otherwise the tables of all processors
// would mix until each metadata line and each page of entries belonged to all of them.

namespace accelmm::mmu {

namespace {

// Smaller homes would share lines of metadata with the next, and be short of tables all the time.
constexpr std::uint32_t least_home = 64;

// The power of two of the tables in a home: the numbers of their slots have 32 bits.
unsigned home_size_lg2(std::uint32_t capacity) {
  const std::uint32_t homes = std::max(1U, std::min(per_cpu::slots(), capacity / least_home));
  return std::min(31U, static_cast<unsigned>(std::bit_width((capacity - 1) / homes)));
}

}  // namespace

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
  const unsigned home_lg2 = home_size_lg2(static_cast<std::uint32_t>(count));
  std::unique_ptr<Home[]> homes(new (std::nothrow) Home[((count - 1) >> home_lg2) + 1]);
  if (slots == nullptr || homes == nullptr)
    return fail(Errc::no_memory, "no memory for the metadata of page tables");
  return TablePool(range, std::move(slots), std::move(homes), static_cast<std::uint32_t>(count));
}

TablePool::TablePool(const TableRange& range, std::unique_ptr<Slot[]> slots,
                     std::unique_ptr<Home[]> homes, std::uint32_t capacity)
    : range_(range),
      table_lg2_(static_cast<unsigned>(std::countr_zero(range.table_bytes))),
      capacity_(capacity),
      slots_(std::move(slots)),
      homes_(std::move(homes)),
      home_lg2_(home_size_lg2(capacity)) {
  for (std::uint32_t i = 0; i < capacity_; ++i) {
    Slot& slot = slots_[i];
    slot.next.store(i + 1, std::memory_order_relaxed);
    slot.state = State::free;
    slot.contents = Contents::zero;
    slot.touched = false;
  }
  for (std::uint32_t home = 0; home < home_count(); ++home) {
    const std::uint64_t end = std::uint64_t{home + 1} << home_lg2_;
    const auto last = static_cast<std::uint32_t>(std::min<std::uint64_t>(end, capacity_) - 1);
    homes_[home].free.push({home << home_lg2_, last}, next_of());
  }
}

// Pre: nobody uses the other one, nor ever did but to take and give back.
TablePool::TablePool(TablePool&& other) noexcept
    : range_(other.range_),
      table_lg2_(other.table_lg2_),
      capacity_(std::exchange(other.capacity_, 0)),
      slots_(std::move(other.slots_)),
      homes_(std::move(other.homes_)),
      home_lg2_(other.home_lg2_) {}

std::uint32_t TablePool::tables_in_use() const {
  std::uint32_t taken = 0;
  for (std::uint32_t home = 0; home < home_count(); ++home)
    taken += homes_[home].taken.load(std::memory_order_relaxed);
  return taken;
}

TablePool::Home& TablePool::own_home() const {
  return homes_[per_cpu::current() % home_count()];
}

Result<TableList> TablePool::take(std::uint32_t count) {
  if (count == 0) return TableList();
  if (count > capacity_) return fail(Errc::no_memory, "no page tables left");
  Home& home = own_home();
  const Chain chain = home.free.pop(count, next_of());
  if (chain.count == 0) return gather(count);
  home.taken.fetch_add(count, std::memory_order_relaxed);
  return hold(chain);
}

// The tables of a chain just popped, in hand.
TableList TablePool::hold(const Chain& chain) {
  TableList list;
  list.head = chain.head;
  list.tail = chain.tail;
  list.count = chain.count;
  std::uint32_t slot = chain.head;
  for (std::uint32_t i = 0; i < chain.count; ++i) {
    ACCELMM_CHECK(slots_[slot].state == State::free);
    slots_[slot].state = State::held;
    slot = slots_[slot].next.load(std::memory_order_relaxed);
  }
  return list;
}

// From one's own home on, what each has.
Result<TableList> TablePool::gather(std::uint32_t count) {
  TableList list;
  {
    const std::lock_guard lock(gathering_);
    const auto own = static_cast<std::uint32_t>(&own_home() - homes_.get());
    for (std::uint32_t i = 0; i < home_count() && list.count < count; ++i) {
      Home& home = homes_[(own + i) % home_count()];
      const Chain chain = home.free.pop_up_to(count - list.count, next_of());
      if (chain.count == 0) continue;
      home.taken.fetch_add(chain.count, std::memory_order_relaxed);
      append(list, hold(chain));
    }
    if (list.count == count) return list;
    give_back(std::move(list));
  }
  return fail(Errc::no_memory, "no page tables left");
}

void TablePool::give_back(TableList&& list) {
  Chain chain{list.head, TableList::none, 0};  // of one home
  std::uint32_t slot = list.head;
  for (std::uint32_t left = list.count; left > 0; --left) {
    Slot& returned = slots_[slot];
    ACCELMM_CHECK(returned.state == State::held);
    ACCELMM_DCHECK(returned.contents == Contents::stale || !returned.touched || is_zero(slot));
    returned.state = State::free;
    chain.tail = slot;
    ++chain.count;
    // The link is another's as soon as the chain is pushed.
    const std::uint32_t next =
        left > 1 ? returned.next.load(std::memory_order_relaxed) : TableList::none;
    if (left == 1 || &home_of(next) != &home_of(slot)) {
      Home& home = home_of(slot);
      home.taken.fetch_sub(chain.count, std::memory_order_relaxed);
      home.free.push(chain, next_of());
      chain = {next, TableList::none, 0};
    }
    slot = next;
  }
  list.head = list.tail = TableList::none;
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

// The free tables of a home, each looked at.
std::uint32_t TablePool::count_free(const Home& home, std::uint32_t number) const {
  std::uint32_t count = 0;
  for (std::uint32_t i = home.free.top(); i != TableList::none;
       i = slots_[i].next.load(std::memory_order_relaxed)) {
    ACCELMM_CHECK(i < capacity_ && i >> home_lg2_ == number && slots_[i].state == State::free);
    ACCELMM_CHECK(slots_[i].live.is_dead());
    ++count;
    ACCELMM_CHECK(count <= 1U << home_lg2_);
    ACCELMM_CHECK(slots_[i].contents == Contents::stale || !slots_[i].touched || is_zero(i));
  }
  return count;
}

void TablePool::validate() const {
  std::uint32_t chained = 0;
  for (std::uint32_t home = 0; home < home_count(); ++home)
    chained += count_free(homes_[home], home);
  ACCELMM_CHECK(chained == capacity_ - tables_in_use());
  std::uint32_t free = 0;
  for (std::uint32_t i = 0; i < capacity_; ++i) free += slots_[i].state == State::free ? 1U : 0U;
  ACCELMM_CHECK(free == chained);
}

}  // namespace accelmm::mmu
