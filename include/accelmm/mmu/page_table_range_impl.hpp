// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/mmu/page_table.hpp>

// What page_table.hpp declares: everything that is done to a range that is mapped.

namespace accelmm::mmu {

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
  unsigned first_hop = F::hops;
  if (!unmap_in_one_table(range, gone, first_hop)) {
    const auto settled = settle_edges(range, rule, break_now);
    if (!settled) return fail(settled.error());
    removed = settled->range;
    detail::LeafRemover<F, Memory> remover(*memory_, gone, settled->coverage);
    remover.remove(root_, removed.begin.value(), removed.end.value());
    first_hop = remover.first_hop();
  }
  memory_->sync();
  return Detached<Memory>(*memory_, removed, std::move(gone), first_hop);
}

// The whole of a range within one table of the last hop: one way down, and as far up as tables die.
template <PteFormat F, TableMemory Memory>
ACCELMM_MMU_FLATTEN bool PageTable<F, Memory>::unmap_in_one_table(Range<DeviceAddr> range,
                                                                  TableList& gone,
                                                                  unsigned& first_hop) {
  constexpr unsigned last = G::last_hop;
  constexpr bool has_groups = (F::leaf_sizes(last) & (F::leaf_sizes(last) - 1)) != 0;
  if (has_groups || !is_within_one_table(range)) return false;
  const std::uint64_t va = range.begin.value();
  const Place place = go_down<0>(root_, va);
  if (place.hop != last) return false;
  const std::uint32_t first = G::index(last, va);
  const auto count = static_cast<std::uint32_t>(range.size().value() >> F::shift(last));
  if (memory_->template any_empty<Word>(place.table, first, count)) return false;
  first_hop = last;
  Contents contents = Contents::stale;
  if (count < detail::stale_from<F>(last) || !memory_->retire(place.table, count)) {
    contents = Contents::zero;
    memory_->template clear<Word>(place.table, first, count, Reach::live);
    if (!memory_->leave(place.table, count)) return true;
  }
  first_hop = unlink_dead(place.table, va, contents, gone);
  return true;
}

// Takes a dead table of the last hop out, and those above that die of it. Returns the hop nearest
// the root where an entry was cleared.
template <PteFormat F, TableMemory Memory>
ACCELMM_MMU_FLATTEN [[gnu::noinline]] unsigned PageTable<F, Memory>::unlink_dead(Table dead,
                                                                                 std::uint64_t va,
                                                                                 Contents contents,
                                                                                 TableList& gone) {
  for (unsigned hop = G::last_hop; hop > 0; --hop) {
    const Table parent = table_at(va, hop - 1);  // alive: it counts the link that goes now
    memory_->template clear<Word>(parent, G::index(hop - 1, va), 1, Reach::live);
    memory_->push(gone, dead, detail::left_in<F>(*memory_, hop, contents));
    if (!memory_->leave(parent, 1)) return hop - 1;
    dead = parent;
    contents = Contents::zero;
  }
  return 0;
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
  detail::LeafChanger<F, Memory>(*memory_).protect(root_, settled->range.begin.value(),
                                                   settled->range.end.value(), *bits);
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
auto PageTable<F, Memory>::settle_edges(Range<DeviceAddr> range, RangeRule rule,
                                        BreakNow& break_now) -> Result<Settled> {
  if (const auto checked = check_range(range); !checked) return fail(checked.error());
  TableList none;
  detail::LeafRemover<F, Memory> looker(*memory_, none);
  const auto look = [&](Range<DeviceAddr> at) {
    return looker.look(root_, at.begin.value(), at.end.value());
  };
  const detail::Coverage coverage = look(range);
  if (coverage == detail::Coverage::whole) return Settled{range, coverage};
  Settled settled{range, coverage};
  if (coverage == detail::Coverage::cut) {
    if (rule.edges == Edges::refuse)
      return fail(Errc::invalid_argument, "range ends inside a leaf");
    settled.range = grown_to_leaves(range);
    settled.coverage = look(settled.range);
  }
  if (rule.gaps == Gaps::refuse && settled.coverage == detail::Coverage::hole)
    return fail(Errc::invalid_argument, "range is not mapped everywhere");
  if (coverage == detail::Coverage::hole || rule.edges == Edges::whole) return settled;
  if (const auto cut = split_at_ends(range, break_now); !cut) return fail(cut.error());
  return Settled{range, settled.coverage};
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
  detail::LeafSplitter<F, Memory, BreakNow> splitter(*memory_, tables, break_now);
  auto done = splitter.split(root_, range.begin.value());
  if (done && range.end.value() < G::va_end) done = splitter.split(root_, range.end.value());
  memory_->sync();
  return done;
}

template <PteFormat F, TableMemory Memory>
Detached<Memory> PageTable<F, Memory>::detach_all() {
  TableList gone;
  detail::LeafRemover<F, Memory>(*memory_, gone).remove_all(root_);
  memory_->sync();
  root_ = Table{};
  return Detached<Memory>(*memory_, {DeviceAddr(0), DeviceAddr(G::va_end)}, std::move(gone), 0);
}

}  // namespace accelmm::mmu
