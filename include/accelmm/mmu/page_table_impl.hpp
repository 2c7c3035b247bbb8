// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/mmu/page_table.hpp>

// What page_table.hpp declares.

namespace accelmm::mmu {

template <PteFormat F, TableMemory Memory>
Result<PageTable<F, Memory>> PageTable<F, Memory>::create(Memory& memory) {
  if (memory.table_bytes() < G::largest_table())
    return fail(Errc::invalid_argument, "tables of this memory are too small for the format");
  constexpr std::uint64_t last_address = ~std::uint64_t{0} >> (64 - F::bus_bits);
  if (memory.end().value() - 1 > last_address)
    return fail(Errc::invalid_argument, "tables of this memory lie where no link reaches");
  auto taken = memory.take(1);
  if (!taken) return fail(taken.error());
  const Table root = memory.pop(*taken);
  if (root.contents == Contents::stale)
    memory.template clear<Word>(
        root, 0, static_cast<std::uint32_t>(memory.table_bytes() / sizeof(Word)), Reach::hidden);
  memory.begin_count(root, 1);  // held by the tree: it never dies
  return PageTable(memory, root);
}

template <PteFormat F, TableMemory Memory>
Result<void> PageTable<F, Memory>::map(DeviceAddr va, std::span<const Run> runs,
                                       Attributes attributes) {
  const auto range = check_runs<F>(va, runs);
  if (!range) return fail(range.error());
  const auto bits = F::leaf_bits(attributes);
  if (!bits) return fail(bits.error());
  const RunCursor<F> cursor(va, runs);
  switch (map_in_one_table(*range, cursor, *bits)) {
    case Fast::done:
      return {};
    case Fast::in_use:
      return fail(Errc::address_in_use, "device addresses are mapped already");
    case Fast::no:
      break;
  }
  detail::MissingTables<F, Memory> look(*memory_, cursor);
  if (const auto counted = look.count(root_); !counted) return counted;
  auto tables = memory_->take(look.missing() + look.shared());
  if (!tables) return fail(tables.error());
  write(*range, runs, *bits, *tables);
  memory_->give_back(std::move(*tables));
  return {};
}

// A range that needs one table of the last hop, which is there: one way down, and no memory.
template <PteFormat F, TableMemory Memory>
auto PageTable<F, Memory>::map_in_one_table(Range<DeviceAddr> range, RunCursor<F> cursor, Word bits)
    -> Fast {
  constexpr unsigned last = G::last_hop;
  if constexpr (last == 0 || G::is_dual(F::parent(last))) {
    return Fast::no;
  } else {
    constexpr unsigned table_lg2 = F::shift(last - 1);
    const std::uint64_t va = range.begin.value();
    if ((va >> table_lg2) != ((range.end.value() - 1) >> table_lg2) ||
        range.size().value() >> table_lg2 != 0)
      return Fast::no;
    Table table = root_;
    for (unsigned hop = 0; hop < last; ++hop) {
      const Word word = memory_->template load<Word>(table, G::index(hop, va));
      const EntryKind kind = F::classify(hop, word);
      if (kind != EntryKind::table) return kind == EntryKind::empty ? Fast::no : Fast::in_use;
      table = memory_->at(F::link_address(hop, word));
    }
    const auto count = static_cast<std::uint32_t>(range.size().value() >> F::shift(last));
    if (!memory_->template all_empty<Word>(table, G::index(last, va), count)) return Fast::in_use;
    if (!memory_->join(table, count)) return Fast::no;
    while (!cursor.done()) {
      const Stretch leaves = cursor.stretch(last, cursor.largest_leaf());
      detail::put_leaves<F>(*memory_, table, last, leaves, bits, Reach::live);
      cursor.advance(leaves.bytes);
    }
    memory_->sync();
    return Fast::done;
  }
}

template <PteFormat F, TableMemory Memory>
void PageTable<F, Memory>::write(Range<DeviceAddr> range, std::span<const Run> runs, Word bits,
                                 TableList& tables) {
  const std::uint32_t before = tables.count;
  detail::LeafWriter<F, Memory>(*memory_, RunCursor<F>(range.begin, runs), bits, tables)
      .write(root_, range.end.value());
  memory_->sync();
  tables_.fetch_add(before - tables.count, std::memory_order_relaxed);
}

template <PteFormat F, TableMemory Memory>
Result<Prepared<F, Memory>> PageTable<F, Memory>::prepare(Range<DeviceAddr> range,
                                                          Attributes attributes) {
  if (const auto checked = check_range(range); !checked) return fail(checked.error());
  const auto bits = F::leaf_bits(attributes);
  if (!bits) return fail(bits.error());
  // Memory one page off fits no leaf but the smallest, which need the most tables; where an entry
  // links two tables, both may be needed.
  std::uint32_t most = 0;
  for (unsigned hop = 0; hop < F::hops; ++hop) {
    if (G::has_child(hop) || F::leaf_sizes(hop) == 0) continue;
    const std::uint64_t off = G::span(hop);
    const std::array<Run, 1> run{Run{BusAddr(range.begin.value() + off), range.size()}};
    detail::MissingTables<F, Memory> look(*memory_, RunCursor<F>(range.begin, run));
    if (const auto counted = look.count(root_); !counted) return fail(counted.error());
    most += look.missing() + look.shared();
  }
  auto tables = memory_->take(most);
  if (!tables) return fail(tables.error());
  return Prepared<F, Memory>(*memory_, range, *bits, std::move(*tables));
}

template <PteFormat F, TableMemory Memory>
Result<Prepared<F, Memory>> PageTable<F, Memory>::prepare_over(DeviceAddr va,
                                                               std::span<const Run> runs,
                                                               Attributes attributes) {
  const auto range = check_runs<F>(va, runs);
  if (!range) return fail(range.error());
  const auto bits = F::leaf_bits(attributes);
  if (!bits) return fail(bits.error());
  detail::MissingTables<F, Memory> look(*memory_, RunCursor<F>(va, runs));
  look.count_all();
  auto tables = memory_->take(look.missing());
  if (!tables) return fail(tables.error());
  return Prepared<F, Memory>(*memory_, *range, *bits, std::move(*tables));
}

template <PteFormat F, TableMemory Memory>
void PageTable<F, Memory>::commit(Prepared<F, Memory>&& prepared, std::span<const Run> runs) {
  const auto range = check_runs<F>(prepared.range_.begin, runs);
  ACCELMM_CHECK(range && *range == prepared.range_);
  write(*range, runs, prepared.bits_, prepared.tables_);
}

template <PteFormat F, TableMemory Memory>
Result<void> PageTable<F, Memory>::check_range(Range<DeviceAddr> range) {
  const std::uint64_t begin = range.begin.value();
  const std::uint64_t end = range.end.value();
  if (begin >= end || end > G::va_end || ((begin | end) & (G::page_size - 1)) != 0)
    return fail(Errc::invalid_argument, "not a range of pages of the device addresses");
  return {};
}

template <PteFormat F, TableMemory Memory>
template <class BreakNow>
Result<Detached<Memory>> PageTable<F, Memory>::unmap(Range<DeviceAddr> range, RangeRule rule,
                                                     BreakNow break_now) {
  const auto settled = settle_edges(range, rule, break_now);
  if (!settled) return fail(settled.error());
  TableList gone;
  detail::LeafRemover<F, Memory> remover(*memory_, gone);
  remover.remove(root_, settled->begin.value(), settled->end.value());
  memory_->sync();
  if (gone.count != 0) tables_.fetch_sub(gone.count, std::memory_order_relaxed);
  return Detached<Memory>(*memory_, *settled, std::move(gone), remover.first_hop());
}

template <PteFormat F, TableMemory Memory>
template <class BreakNow>
Result<void> PageTable<F, Memory>::protect(Range<DeviceAddr> range, Attributes attributes,
                                           RangeRule rule, BreakNow break_now) {
  const auto bits = F::leaf_bits(attributes);
  if (!bits) return fail(bits.error());
  const auto settled = settle_edges(range, rule, break_now);
  if (!settled) return fail(settled.error());
  detail::LeafChanger<F, Memory>(*memory_).protect(root_, settled->begin.value(),
                                                   settled->end.value(), attributes, *bits);
  memory_->sync();
  return {};
}

template <PteFormat F, TableMemory Memory>
template <class BreakNow>
Result<void> PageTable<F, Memory>::split(Range<DeviceAddr> range, BreakNow break_now) {
  if (const auto checked = check_range(range); !checked) return checked;
  return split_at_ends(range, break_now);
}

template <PteFormat F, TableMemory Memory>
template <class BreakNow>
Result<void> PageTable<F, Memory>::split(Range<DeviceAddr> range, TableList& tables,
                                         BreakNow break_now) {
  if (const auto checked = check_range(range); !checked) return checked;
  if (F::breaks_before_make && std::is_same_v<BreakNow, NeverBreaks>)
    return fail(Errc::not_supported, "format breaks before it makes: say how to invalidate");
  return split_with(range, tables, break_now);
}

template <PteFormat F, TableMemory Memory>
template <class BreakNow>
Result<Detached<Memory>> PageTable<F, Memory>::merge(Range<DeviceAddr> range, BreakNow break_now) {
  static_assert(!F::breaks_before_make || !std::is_same_v<BreakNow, NeverBreaks>,
                "this format needs a device to forget an entry before its size changes");
  if (const auto checked = check_range(range); !checked) return fail(checked.error());
  TableList gone;
  detail::LeafMerger<F, Memory, BreakNow>(*memory_, gone, break_now)
      .merge(root_, range.begin.value(), range.end.value());
  memory_->sync();
  tables_.fetch_sub(gone.count, std::memory_order_relaxed);
  return Detached<Memory>(*memory_, range, std::move(gone), 0);
}

template <PteFormat F, TableMemory Memory>
template <class Visit>
  requires(F::has_dirty)
Result<void> PageTable<F, Memory>::read_and_clear_dirty(Range<DeviceAddr> range, Visit&& f) {
  NeverBreaks nothing;
  const auto settled = settle_edges(range, {Edges::refuse, Gaps::skip}, nothing);
  if (!settled) return fail(settled.error());
  detail::LeafChanger<F, Memory>(*memory_).clean(root_, range.begin.value(), range.end.value(), f);
  memory_->sync();
  return {};
}

// The range as it is to be worked on: no leaf crosses its ends afterwards.
template <PteFormat F, TableMemory Memory>
template <class BreakNow>
Result<Range<DeviceAddr>> PageTable<F, Memory>::settle_edges(Range<DeviceAddr> range,
                                                             RangeRule rule, BreakNow& break_now) {
  if (const auto checked = check_range(range); !checked) return fail(checked.error());
  TableList none;
  const auto coverage = detail::LeafRemover<F, Memory>(*memory_, none)
                            .look(root_, range.begin.value(), range.end.value());
  if (coverage == detail::Coverage::whole) return range;
  Range<DeviceAddr> settled = range;
  if (coverage == detail::Coverage::cut) {
    if (rule.edges == Edges::refuse)
      return fail(Errc::invalid_argument, "range ends inside a leaf");
    settled = grown_to_leaves(range);
  }
  if (rule.gaps == Gaps::refuse &&
      detail::LeafRemover<F, Memory>(*memory_, none)
              .look(root_, settled.begin.value(), settled.end.value()) == detail::Coverage::hole)
    return fail(Errc::invalid_argument, "range is not mapped everywhere");
  if (coverage == detail::Coverage::hole || rule.edges == Edges::whole) return settled;
  if (const auto cut = split_at_ends(range, break_now); !cut) return fail(cut.error());
  return range;
}

template <PteFormat F, TableMemory Memory>
Range<DeviceAddr> PageTable<F, Memory>::grown_to_leaves(Range<DeviceAddr> range) const {
  detail::TreeReader<F, Memory> reader(*memory_);
  const auto first = reader.find(root_, range.begin.value());
  const auto last = reader.find(root_, range.end.value() - 1);
  return {first ? std::min(first->va, range.begin) : range.begin,
          last ? std::max(last->va + last->size, range.end) : range.end};
}

template <PteFormat F, TableMemory Memory>
template <class BreakNow>
Result<void> PageTable<F, Memory>::split_at_ends(Range<DeviceAddr> range, BreakNow& break_now) {
  if (F::breaks_before_make && std::is_same_v<BreakNow, NeverBreaks>)
    return fail(Errc::not_supported, "format breaks before it makes: say how to invalidate");
  auto fresh = memory_->take(2 * (F::hops - 1));
  if (!fresh) return fail(fresh.error());
  const auto done = split_with(range, *fresh, break_now);
  memory_->give_back(std::move(*fresh));
  return done;
}

template <PteFormat F, TableMemory Memory>
template <class BreakNow>
Result<void> PageTable<F, Memory>::split_with(Range<DeviceAddr> range, TableList& tables,
                                              BreakNow& break_now) {
  const std::uint32_t before = tables.count;
  detail::LeafSplitter<F, Memory, BreakNow> splitter(*memory_, tables, break_now);
  auto done = splitter.split(root_, range.begin.value());
  if (done && range.end.value() < G::va_end) done = splitter.split(root_, range.end.value());
  memory_->sync();
  tables_.fetch_add(before - tables.count, std::memory_order_relaxed);
  return done;
}

template <PteFormat F, TableMemory Memory>
Detached<Memory> PageTable<F, Memory>::detach_all() {
  TableList gone;
  detail::LeafRemover<F, Memory>(*memory_, gone).remove_all(root_);
  memory_->sync();
  ACCELMM_CHECK(gone.count == tables());
  tables_.store(0, std::memory_order_relaxed);
  root_ = Table{};
  return Detached<Memory>(*memory_, {DeviceAddr(0), DeviceAddr(G::va_end)}, std::move(gone), 0);
}

template <PteFormat F, TableMemory Memory>
std::optional<Translation> PageTable<F, Memory>::translate(DeviceAddr va) const {
  const auto leaf = detail::TreeReader<F, Memory>(*memory_).find(root_, va.value());
  if (!leaf) return std::nullopt;
  const ByteCount offset = va - leaf->va;
  return Translation{leaf->address + offset, leaf->attributes, leaf->size, leaf->size - offset};
}

template <PteFormat F, TableMemory Memory>
Walk PageTable<F, Memory>::walk(DeviceAddr va) const {
  Walk walk;
  detail::TreeReader<F, Memory>(*memory_).trace(root_, va.value(), walk);
  return walk;
}

}  // namespace accelmm::mmu
