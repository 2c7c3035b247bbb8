// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/access.hpp>
#include <accelmm/check.hpp>
#include <accelmm/error.hpp>
#include <accelmm/extent.hpp>
#include <accelmm/mmu/detached.hpp>
#include <accelmm/mmu/format.hpp>
#include <accelmm/mmu/run_splitter.hpp>
#include <accelmm/mmu/table_memory.hpp>
#include <accelmm/mmu/walk.hpp>
#include <accelmm/units.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>

// A map makes two passes over the same stretches. The first only reads: it refuses what is mapped
// already and counts the tables that are missing. They are taken at once, so the second pass cannot
// fail. It writes leaves first and keeps each new table out of the tree until it is left for good;
// the last link to be stored is the one that makes a whole new subtree visible. Both passes keep
// their position: a table is looked up once, however many entries are touched in it.
//
// An unmap reads its range first too, then clears leaves and, on the way up, the links of tables
// that became empty.

namespace accelmm::mmu {

/// One tree of page tables: what a device walks for one address space.
///
/// Owns      its tables, root included, in a memory that outlives it.
/// Threads   externally synchronised. A device may walk the tables at any time: it sees no link to
///           a table that is not complete, and each word old or new.
/// Lifetime  move-only; detach_all() before it is destroyed (checked).
/// Invariant a linked table has as many live entries as its memory counts, at least one unless it
///           is the root.
/// Cost      map O(tables touched + stores), one store per leaf; unmap the same; translate O(hops).
///           Never allocates from the heap.
template <PteFormat F, TableMemory Memory>
class PageTable {
  using G = Geometry<F>;
  static_assert(G::is_regular(table_entries));

 public:
  /// Makes an empty tree: one table, the root.
  /// Errors  no_memory: no table left.
  [[nodiscard]] static Result<PageTable> create(Memory& memory) {
    auto taken = memory.take(1);
    if (!taken) return fail(taken.error());
    return PageTable(memory, memory.pop(*taken));
  }

  PageTable(PageTable&& other) noexcept
      : memory_(other.memory_),
        root_(std::exchange(other.root_, Table{})),
        tables_(std::exchange(other.tables_, 0)) {}
  PageTable& operator=(PageTable&&) = delete;
  PageTable(const PageTable&) = delete;
  PageTable& operator=(const PageTable&) = delete;
  ~PageTable() { ACCELMM_CHECK(tables_ == 0); }

  /// Where the device's root register points.
  [[nodiscard]] BusAddr root() const { return root_.address; }
  /// Tables linked into the tree, root included.
  [[nodiscard]] std::uint32_t tables() const { return tables_; }

  /// Maps the runs one after the other from `va` on, with the largest leaves that fit.
  /// Errors  invalid_argument: check_runs() refuses them, or there is no such access.
  ///         not_supported: the format cannot express the access.
  ///         address_in_use: any part is mapped already.
  ///         no_memory: tables run out.
  ///         State unchanged in all cases.
  [[nodiscard]] Result<void> map(DeviceAddr va, std::span<const Run> runs, Access access);

  /// Removes whole leaves, and the tables that become empty. Cannot fail on a range that one map()
  /// made.
  /// Errors  invalid_argument: the range is empty, unaligned or outside the device addresses, cuts
  ///         a leaf, or is not mapped everywhere (state unchanged).
  [[nodiscard]] Result<Detached<Memory>> unmap(Range<DeviceAddr> range);

  /// Takes the tables that replace() may need for the same arguments: those of an empty tree.
  /// Errors  as map(), but address_in_use (state unchanged).
  [[nodiscard]] Result<TableList> room_for(DeviceAddr va, std::span<const Run> runs, Access access);

  /// Maps the runs where one map() of the same length was. Cannot fail; never allocates. A device
  /// that uses the range meanwhile finds the old leaf, the new one, or none.
  /// Pre: `room` was taken for the same arguments; what is left of it goes back to the memory.
  [[nodiscard]] Detached<Memory> replace(DeviceAddr va, std::span<const Run> runs, Access access,
                                         TableList room);

  /// Removes everything, the root too: the tree is gone afterwards, and only its destructor may
  /// follow.
  [[nodiscard]] Detached<Memory> detach_all();

  /// What a device address means now; nothing where it is not mapped or outside the device
  /// addresses.
  [[nodiscard]] std::optional<Translation> translate(DeviceAddr va) const;

  /// The entries a device reads on its way to `va`; no step at all outside the device addresses.
  [[nodiscard]] Walk walk(DeviceAddr va) const;

  /// Calls f(const Leaf&) for each leaf in ascending order. f must not change the tree.
  template <class Visit>
  void for_each_leaf(Visit&& visit) const {
    visit_leaves(root_, 0, 0, visit);
  }

  /// Checks the whole tree against the invariant and the format. Aborts if they do not hold.
  /// Cost  O(entries of all linked tables).
  void validate() const;

 private:
  /// The tables between the root and a device address, as far as they are known.
  struct Position {
    std::array<Table, F::hops> tables{};
    std::array<bool, F::hops> hidden{};  // new and not linked yet
    unsigned depth = 0;                  // tables[0..depth] serve va
    std::uint64_t va = 0;

    /// The deepest hop whose table serves `next` as well.
    [[nodiscard]] unsigned shared_with(std::uint64_t next) const {
      unsigned hop = depth;
      while (hop > 0 && ((va ^ next) >> F::shift(hop - 1)) != 0) --hop;
      return hop;
    }
  };

  PageTable(Memory& memory, Table root) : memory_(&memory), root_(root), tables_(1) {}

  [[nodiscard]] Result<std::uint32_t> count_missing(RunSplitter<F> stretches, Table top) const;
  void write(RunSplitter<F> stretches, std::uint64_t bits, TableList& fresh);
  [[nodiscard]] Result<std::uint32_t> missing_on_way(Position& position, const Stretch& to) const;
  void go_to(Position& position, const Stretch& to, TableList& fresh);
  void publish_below(Position& position, unsigned hop);
  [[nodiscard]] bool covers_whole_leaves(Table table, unsigned hop, std::uint64_t va,
                                         std::uint64_t end) const;
  void remove(Table table, unsigned hop, std::uint64_t va, std::uint64_t end, TableList& gone);
  void remove_all(Table table, unsigned hop, TableList& gone);
  template <class Visit>
  void visit_leaves(Table table, unsigned hop, std::uint64_t base, Visit& visit) const;
  [[nodiscard]] std::uint32_t validate_below(Table table, unsigned hop) const;

  Memory* memory_;
  Table root_;
  std::uint32_t tables_;
};

template <PteFormat F, TableMemory Memory>
Result<void> PageTable<F, Memory>::map(DeviceAddr va, std::span<const Run> runs, Access access) {
  const auto range = check_runs<F>(va, runs);
  if (!range) return fail(range.error());
  const auto bits = F::leaf_bits(access);
  if (!bits) return fail(bits.error());
  RunSplitter<F> stretches(va, runs);
  const auto missing = count_missing(stretches, root_);
  if (!missing) return fail(missing.error());
  auto fresh = memory_->take(*missing);
  if (!fresh) return fail(fresh.error());
  write(stretches, *bits, *fresh);
  ACCELMM_CHECK(fresh->count == 0);
  return {};
}

template <PteFormat F, TableMemory Memory>
void PageTable<F, Memory>::write(RunSplitter<F> stretches, std::uint64_t bits, TableList& fresh) {
  const std::uint32_t before = fresh.count;
  Position position;
  position.tables[0] = root_;
  while (const auto stretch = stretches.next()) {
    go_to(position, *stretch, fresh);
    const Table table = position.tables[stretch->hop];
    memory_->fill(table, stretch->index, stretch->count,
                  F::make_leaf(stretch->hop, BusAddr(stretch->bus), bits),
                  F::leaf_step(stretch->hop),
                  position.hidden[stretch->hop] ? Reach::hidden : Reach::live);
    memory_->live(table) += stretch->count;
  }
  publish_below(position, 0);
  tables_ += before - fresh.count;
}

template <PteFormat F, TableMemory Memory>
Result<TableList> PageTable<F, Memory>::room_for(DeviceAddr va, std::span<const Run> runs,
                                                 Access access) {
  if (const auto range = check_runs<F>(va, runs); !range) return fail(range.error());
  if (const auto bits = F::leaf_bits(access); !bits) return fail(bits.error());
  // What a removal leaves of the tree is not known before it, so nothing is counted on.
  const auto most = count_missing(RunSplitter<F>(va, runs), Table{});
  if (!most) return fail(most.error());
  return memory_->take(*most);
}

template <PteFormat F, TableMemory Memory>
Detached<Memory> PageTable<F, Memory>::replace(DeviceAddr va, std::span<const Run> runs,
                                               Access access, TableList room) {
  const auto range = check_runs<F>(va, runs);
  const auto bits = F::leaf_bits(access);
  ACCELMM_CHECK(range.has_value() && bits.has_value());
  ACCELMM_CHECK(covers_whole_leaves(root_, 0, range->begin.value(), range->end.value()));
  TableList gone;
  remove(root_, 0, range->begin.value(), range->end.value(), gone);
  tables_ -= gone.count;
  write(RunSplitter<F>(va, runs), *bits, room);
  memory_->give_back(std::move(room));
  return Detached<Memory>(*memory_, *range, std::move(gone));
}

// Pre: `top` is the root, or no table at all: then all tables below the root count as missing.
template <PteFormat F, TableMemory Memory>
Result<std::uint32_t> PageTable<F, Memory>::count_missing(RunSplitter<F> stretches,
                                                          Table top) const {
  std::uint32_t missing = 0;
  Position position;
  position.tables[0] = top;
  while (const auto stretch = stretches.next()) {
    const auto more = missing_on_way(position, *stretch);
    if (!more) return fail(more.error());
    missing += *more;
    const Table table = position.tables[stretch->hop];
    if (table.entries == nullptr) continue;
    std::uint64_t any = 0;
    const std::uint64_t* first = table.entries + stretch->index;
    for (std::uint32_t i = 0; i < stretch->count; ++i) any |= first[i];
    if (any != 0) return fail(Errc::address_in_use, "device addresses are mapped already");
  }
  return missing;
}

// Moves a position that only reads: a table that does not exist has no entries.
template <PteFormat F, TableMemory Memory>
Result<std::uint32_t> PageTable<F, Memory>::missing_on_way(Position& position,
                                                           const Stretch& to) const {
  std::uint32_t missing = 0;
  unsigned hop = position.shared_with(to.va);
  for (; hop < to.hop; ++hop) {
    const Table parent = position.tables[hop];
    Table& child = position.tables[hop + 1];
    child = Table{};
    const std::uint64_t entry =
        parent.entries == nullptr ? 0 : parent.entries[G::index(hop, to.va)];
    if (entry == 0) {
      ++missing;
    } else if (F::classify(hop, entry) == EntryKind::table) {
      child = memory_->at(F::link_address(entry));
    } else {
      return fail(Errc::address_in_use, "device addresses lie in a larger leaf");
    }
  }
  position.depth = hop;
  position.va = to.va;
  return missing;
}

// Moves a position that writes: takes a new table where one is missing, and links those that are
// left behind.
template <PteFormat F, TableMemory Memory>
void PageTable<F, Memory>::go_to(Position& position, const Stretch& to, TableList& fresh) {
  unsigned hop = position.shared_with(to.va);
  publish_below(position, hop);
  for (; hop < to.hop; ++hop) {
    const std::uint64_t entry = position.tables[hop].entries[G::index(hop, to.va)];
    position.hidden[hop + 1] = entry == 0;
    position.tables[hop + 1] =
        entry == 0 ? memory_->pop(fresh) : memory_->at(F::link_address(entry));
  }
  position.depth = hop;
  position.va = to.va;
}

// Links the new tables of a position that lie deeper than `hop`, the deepest first: a subtree is
// complete before the device can see its top.
template <PteFormat F, TableMemory Memory>
void PageTable<F, Memory>::publish_below(Position& position, unsigned hop) {
  for (unsigned child = position.depth; child > hop; --child) {
    if (!std::exchange(position.hidden[child], false)) continue;
    const Table parent = position.tables[child - 1];
    memory_->link(parent, G::index(child - 1, position.va),
                  F::make_link(position.tables[child].address));
    memory_->live(parent) += 1;
  }
  position.depth = hop;
}

template <PteFormat F, TableMemory Memory>
Result<Detached<Memory>> PageTable<F, Memory>::unmap(Range<DeviceAddr> range) {
  const std::uint64_t begin = range.begin.value();
  const std::uint64_t end = range.end.value();
  if (begin >= end || end > G::va_end || ((begin | end) & (G::page_size - 1)) != 0)
    return fail(Errc::invalid_argument, "not a range of pages of the device addresses");
  if (!covers_whole_leaves(root_, 0, begin, end))
    return fail(Errc::invalid_argument, "range cuts a leaf or is not mapped everywhere");
  TableList gone;
  remove(root_, 0, begin, end, gone);
  tables_ -= gone.count;
  return Detached<Memory>(*memory_, range, std::move(gone));
}

// In the last hop what is not empty is a leaf, and it is one page: nothing can be cut.
template <PteFormat F, TableMemory Memory>
bool PageTable<F, Memory>::covers_whole_leaves(Table table, unsigned hop, std::uint64_t va,
                                               std::uint64_t end) const {
  const std::uint64_t size = G::span(hop);
  if (hop == G::last_hop) {
    const std::uint64_t* first = table.entries + G::index(hop, va);
    return std::find(first, first + (end - va) / size, 0) == first + (end - va) / size;
  }
  while (va < end) {
    const std::uint64_t entry = table.entries[G::index(hop, va)];
    const std::uint64_t next = (va | (size - 1)) + 1;
    switch (F::classify(hop, entry)) {
      case EntryKind::leaf:
        if ((va & (size - 1)) != 0 || next > end) return false;
        break;
      case EntryKind::table:
        if (!covers_whole_leaves(memory_->at(F::link_address(entry)), hop + 1, va,
                                 std::min(next, end)))
          return false;
        break;
      case EntryKind::empty:
      case EntryKind::malformed:
        return false;
    }
    va = next;
  }
  return true;
}

// Pre: covers_whole_leaves() for the same arguments.
template <PteFormat F, TableMemory Memory>
void PageTable<F, Memory>::remove(Table table, unsigned hop, std::uint64_t va, std::uint64_t end,
                                  TableList& gone) {
  const std::uint64_t size = G::span(hop);
  const auto clear = [&](std::uint64_t from, std::uint64_t count) {
    memory_->clear(table, G::index(hop, from), static_cast<std::uint32_t>(count));
    memory_->live(table) -= static_cast<std::uint32_t>(count);
  };
  if (hop == G::last_hop) return clear(va, (end - va) / size);
  while (va < end) {
    const std::uint64_t entry = table.entries[G::index(hop, va)];
    const std::uint64_t next = (va | (size - 1)) + 1;
    if (F::classify(hop, entry) == EntryKind::leaf) {
      clear(va, 1);
    } else {
      const Table child = memory_->at(F::link_address(entry));
      remove(child, hop + 1, va, std::min(next, end), gone);
      if (memory_->live(child) == 0) {
        clear(va, 1);
        memory_->push(gone, child);
      }
    }
    va = next;
  }
}

template <PteFormat F, TableMemory Memory>
Detached<Memory> PageTable<F, Memory>::detach_all() {
  TableList gone;
  remove_all(root_, 0, gone);
  ACCELMM_CHECK(gone.count == tables_);
  tables_ = 0;
  root_ = Table{};
  return Detached<Memory>(*memory_, {DeviceAddr(0), DeviceAddr(G::va_end)}, std::move(gone));
}

template <PteFormat F, TableMemory Memory>
void PageTable<F, Memory>::remove_all(Table table, unsigned hop, TableList& gone) {
  if (hop < G::last_hop)
    for (std::uint32_t i = 0; i < G::entries(hop); ++i)
      if (F::classify(hop, table.entries[i]) == EntryKind::table)
        remove_all(memory_->at(F::link_address(table.entries[i])), hop + 1, gone);
  memory_->clear(table, 0, G::entries(hop));
  memory_->live(table) = 0;
  memory_->push(gone, table);
}

template <PteFormat F, TableMemory Memory>
std::optional<Translation> PageTable<F, Memory>::translate(DeviceAddr va) const {
  if (va.value() >= G::va_end) return std::nullopt;
  Table table = root_;
  for (unsigned hop = 0; hop < F::hops; ++hop) {
    const std::uint64_t entry = table.entries[G::index(hop, va.value())];
    const EntryKind kind = F::classify(hop, entry);
    if (kind == EntryKind::table) {
      table = memory_->at(F::link_address(entry));
      continue;
    }
    if (kind != EntryKind::leaf) return std::nullopt;
    const std::uint64_t offset = va.value() & (G::span(hop) - 1);
    return Translation{F::leaf_address(hop, entry) + ByteCount(offset), F::access(entry),
                       ByteCount(G::span(hop)), ByteCount(G::span(hop) - offset)};
  }
  return std::nullopt;
}

template <PteFormat F, TableMemory Memory>
Walk PageTable<F, Memory>::walk(DeviceAddr va) const {
  Walk walk;
  if (va.value() >= G::va_end) return walk;
  Table table = root_;
  for (unsigned hop = 0; hop < F::hops; ++hop) {
    const std::uint32_t index = G::index(hop, va.value());
    const std::uint64_t entry = table.entries[index];
    const EntryKind kind = F::classify(hop, entry);
    walk.add({hop, table.address, index, entry, kind});
    if (kind != EntryKind::table) break;
    table = memory_->at(F::link_address(entry));
  }
  return walk;
}

template <PteFormat F, TableMemory Memory>
template <class Visit>
void PageTable<F, Memory>::visit_leaves(Table table, unsigned hop, std::uint64_t base,
                                        Visit& visit) const {
  for (std::uint32_t i = 0; i < G::entries(hop); ++i) {
    const std::uint64_t entry = table.entries[i];
    const std::uint64_t va = base + i * G::span(hop);
    const EntryKind kind = F::classify(hop, entry);
    if (kind == EntryKind::leaf)
      visit(Leaf{DeviceAddr(va), F::leaf_address(hop, entry), ByteCount(G::span(hop)),
                 F::access(entry)});
    else if (kind == EntryKind::table)
      visit_leaves(memory_->at(F::link_address(entry)), hop + 1, va, visit);
  }
}

template <PteFormat F, TableMemory Memory>
void PageTable<F, Memory>::validate() const {
  ACCELMM_CHECK(validate_below(root_, 0) == tables_);
}

// Returns the number of tables in the subtree.
template <PteFormat F, TableMemory Memory>
std::uint32_t PageTable<F, Memory>::validate_below(Table table, unsigned hop) const {
  std::uint32_t tables = 1;
  std::uint32_t live = 0;
  for (std::uint32_t i = 0; i < table_entries; ++i) {
    const std::uint64_t entry = table.entries[i];
    if (entry == 0) continue;
    ++live;
    const EntryKind kind = F::classify(hop, entry);
    ACCELMM_CHECK(i < G::entries(hop) && kind != EntryKind::malformed);
    if (kind == EntryKind::table)
      tables += validate_below(memory_->at(F::link_address(entry)), hop + 1);
  }
  ACCELMM_CHECK(live == memory_->live(table));
  ACCELMM_CHECK(live > 0 || hop == 0);
  return tables;
}

}  // namespace accelmm::mmu
