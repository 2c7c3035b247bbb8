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
  switch (map_in_one_table(*range, runs, *bits)) {
    case Fast::done:
      return {};
    case Fast::in_use:
      return fail(Errc::address_in_use, "device addresses are mapped already");
    case Fast::no:
      break;
  }
  detail::MissingTables<F, Memory> look(*memory_, RunCursor<F>(va, runs));
  if (const auto counted = look.count(root_, range->end.value()); !counted) return counted;
  auto tables = memory_->take(look.missing() + look.shared());
  if (!tables) return fail(tables.error());
  write(*range, runs, *bits, *tables);
  memory_->give_back(std::move(*tables));
  return {};
}

// A range within one table of the last hop: one way down, and at most one new table.
template <PteFormat F, TableMemory Memory>
[[gnu::flatten]] auto PageTable<F, Memory>::map_in_one_table(Range<DeviceAddr> range,
                                                             std::span<const Run> runs, Word bits)
    -> Fast {
  constexpr unsigned last = G::last_hop;
  const std::uint64_t va = range.begin.value();
  if (!is_within_one_table(range)) return Fast::no;
  const Place place = go_down<0>(root_, va);
  const auto count = static_cast<std::uint32_t>(range.size().value() >> F::shift(last));
  if (place.hop == last) {
    if (!memory_->template all_empty<Word>(place.table, G::index(last, va), count))
      return Fast::in_use;
    if (!memory_->join(place.table, count)) return Fast::no;
    put_runs(place.table, va, runs, bits, Reach::live);
    memory_->sync();
    return Fast::done;
  }
  return place.hop + 1 == last ? map_in_new_table(place.table, va, runs, bits) : Fast::no;
}

template <PteFormat F, TableMemory Memory>
[[gnu::flatten, gnu::noinline]] auto PageTable<F, Memory>::map_in_new_table(
    Table parent, std::uint64_t va, std::span<const Run> runs, Word bits) -> Fast {
  constexpr unsigned last = G::last_hop;
  const std::uint32_t at = G::index(last - 1, va);
  const std::uint32_t first = G::index(last, va);
  if (memory_->template load<Word>(parent, at) != 0) return Fast::no;
  auto taken = memory_->take(1);
  if (!taken) return Fast::no;
  if (!memory_->join(parent, 1)) {
    memory_->give_back(std::move(*taken));
    return Fast::no;
  }
  const Table fresh = memory_->pop(*taken);
  const std::uint32_t count = put_runs(fresh, va, runs, bits, Reach::hidden);
  if (fresh.contents == Contents::stale) {
    memory_->template clear<Word>(fresh, 0, first, Reach::hidden);
    memory_->template clear<Word>(fresh, first + count, G::entries(last) - first - count,
                                  Reach::hidden);
  }
  memory_->begin_count(fresh, count);
  while (!memory_->link(parent, at, F::make_link(last - 1, fresh.address))) {
    // Somebody else linked a table here: ours go into theirs, unless it dies just now.
    const Word word = memory_->template load<Word>(parent, at);
    const Table theirs = word == 0 ? fresh : memory_->at(F::link_address(last - 1, word));
    if (word == 0 || !memory_->join(theirs, count)) {
      detail::wait_a_moment();
      continue;
    }
    put_runs(theirs, va, runs, bits, Reach::live);
    memory_->sync();
    const bool died = memory_->leave(parent, 1);
    ACCELMM_CHECK(!died);
    memory_->push(*taken, fresh, Contents::stale);
    memory_->give_back(std::move(*taken));
    return Fast::done;
  }
  memory_->sync();
  return Fast::done;
}

template <PteFormat F, TableMemory Memory>
bool PageTable<F, Memory>::is_within_one_table(Range<DeviceAddr> range) {
  constexpr unsigned last = G::last_hop;
  if (last == 0 || G::is_dual(F::parent(last))) return false;
  constexpr unsigned table_lg2 = F::shift(last) + F::index_bits(last);
  return range.begin.value() >> table_lg2 == (range.end.value() - 1) >> table_lg2 &&
         range.size().value() >> table_lg2 == 0;
}

// The last table on the way to va.
template <PteFormat F, TableMemory Memory>
template <unsigned hop>
[[gnu::always_inline]] inline auto PageTable<F, Memory>::go_down(Table table,
                                                                 std::uint64_t va) const -> Place {
  if constexpr (G::has_child(hop) && !G::is_dual(hop)) {
    const Word word = memory_->template load<Word>(table, G::index(hop, va));
    if (F::classify(hop, word) == EntryKind::table)
      return go_down<hop + 1>(memory_->at(F::link_address(hop, word)), va);
  }
  return {table, hop};
}

// Stores the leaves of runs that lie in one table of the last hop. Returns how many words.
template <PteFormat F, TableMemory Memory>
std::uint32_t PageTable<F, Memory>::put_runs(Table table, std::uint64_t va,
                                             std::span<const Run> runs, Word bits, Reach reach) {
  constexpr unsigned last = G::last_hop;
  const std::uint32_t first = G::index(last, va);
  std::uint32_t index = first;
  if constexpr (F::leaf_sizes(last) == G::span(last) && F::step_bits == 64) {
    for (const Run& run : runs) {  // one size: nothing to choose, nothing to merge
      const auto count = static_cast<std::uint32_t>(run.length.value() >> F::shift(last));
      memory_->fill(table, index, count, F::make_leaf(last, F::shift(last), run.address, bits),
                    static_cast<Word>(F::step(G::span(last))), reach);
      index += count;
    }
  } else {
    RunCursor<F> cursor(DeviceAddr(va), runs);
    while (!cursor.done()) {
      const Stretch leaves = cursor.stretch(last, cursor.largest_leaf());
      index += detail::put_leaves<F>(*memory_, table, last, leaves, bits, reach);
      cursor.advance(leaves.bytes);
    }
  }
  return index - first;
}

template <PteFormat F, TableMemory Memory>
void PageTable<F, Memory>::write(Range<DeviceAddr> range, std::span<const Run> runs, Word bits,
                                 TableList& tables) {
  detail::LeafWriter<F, Memory>(*memory_, RunCursor<F>(range.begin, runs), bits, tables)
      .write(root_, range.end.value());
  memory_->sync();
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
    if (const auto counted = look.count(root_, range.end.value()); !counted)
      return fail(counted.error());
    most += look.missing() + look.shared();
  }
  auto tables = memory_->take(most);
  if (!tables) return fail(tables.error());
  return Prepared<F, Memory>(*memory_, range, *bits, std::move(*tables));
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
  if (const auto checked = check_range(range); !checked) return fail(checked.error());
  TableList gone;
  Range<DeviceAddr> removed = range;
  if (!unmap_in_one_table(range, gone)) {
    const auto settled = settle_edges(range, rule, break_now);
    if (!settled) return fail(settled.error());
    removed = *settled;
    detail::LeafRemover<F, Memory>(*memory_, gone)
        .remove(root_, removed.begin.value(), removed.end.value());
  }
  memory_->sync();
  return Detached<Memory>(*memory_, removed, std::move(gone));
}

// The whole of a range within one table of the last hop: one way down, and as far up as tables die.
template <PteFormat F, TableMemory Memory>
[[gnu::flatten]] bool PageTable<F, Memory>::unmap_in_one_table(Range<DeviceAddr> range,
                                                               TableList& gone) {
  constexpr unsigned last = G::last_hop;
  constexpr bool has_groups = (F::leaf_sizes(last) & (F::leaf_sizes(last) - 1)) != 0;
  if (has_groups || !is_within_one_table(range)) return false;
  const std::uint64_t va = range.begin.value();
  const Place place = go_down<0>(root_, va);
  if (place.hop != last) return false;
  const std::uint32_t first = G::index(last, va);
  const auto count = static_cast<std::uint32_t>(range.size().value() >> F::shift(last));
  if (memory_->template any_empty<Word>(place.table, first, count)) return false;
  Contents contents = Contents::stale;
  if (count < detail::stale_from<F>(last) || !memory_->retire(place.table, count)) {
    contents = Contents::zero;
    memory_->template clear<Word>(place.table, first, count, Reach::live);
    if (!memory_->leave(place.table, count)) return true;
  }
  unlink_dead(place.table, va, contents, gone);
  return true;
}

// Takes a dead table of the last hop out, and those above that die of it.
template <PteFormat F, TableMemory Memory>
[[gnu::flatten, gnu::noinline]] void PageTable<F, Memory>::unlink_dead(Table dead, std::uint64_t va,
                                                                       Contents contents,
                                                                       TableList& gone) {
  for (unsigned hop = G::last_hop; hop > 0; --hop) {
    const Table parent = table_at(va, hop - 1);  // alive: it counts the link that goes now
    memory_->template clear<Word>(parent, G::index(hop - 1, va), 1, Reach::live);
    memory_->push(gone, dead,
                  G::table_bytes(hop) == memory_->table_bytes() ? contents : Contents::stale);
    if (!memory_->leave(parent, 1)) return;
    dead = parent;
    contents = Contents::zero;
  }
}

// The table of a hop on the way to va. Pre: there is one.
template <PteFormat F, TableMemory Memory>
Table PageTable<F, Memory>::table_at(std::uint64_t va, unsigned hop) const {
  Table table = root_;
  for (unsigned above = 0; above < hop; ++above)
    table = memory_->at(
        F::link_address(above, memory_->template load<Word>(table, G::index(above, va))));
  return table;
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
Result<Detached<Memory>> PageTable<F, Memory>::merge(Range<DeviceAddr> range, BreakNow break_now) {
  static_assert(!F::breaks_before_make || !std::is_same_v<BreakNow, NeverBreaks>,
                "this format needs a device to forget an entry before its size changes");
  if (const auto checked = check_range(range); !checked) return fail(checked.error());
  TableList gone;
  detail::LeafMerger<F, Memory, BreakNow>(*memory_, gone, break_now)
      .merge(root_, range.begin.value(), range.end.value());
  memory_->sync();
  return Detached<Memory>(*memory_, range, std::move(gone));
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
  detail::LeafSplitter<F, Memory, BreakNow> splitter(*memory_, *fresh, break_now);
  auto done = splitter.split(root_, range.begin.value());
  if (done && range.end.value() < G::va_end) done = splitter.split(root_, range.end.value());
  memory_->sync();
  memory_->give_back(std::move(*fresh));
  return done;
}

template <PteFormat F, TableMemory Memory>
Detached<Memory> PageTable<F, Memory>::detach_all() {
  TableList gone;
  detail::LeafRemover<F, Memory>(*memory_, gone).remove_all(root_);
  memory_->sync();
  root_ = Table{};
  return Detached<Memory>(*memory_, {DeviceAddr(0), DeviceAddr(G::va_end)}, std::move(gone));
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
