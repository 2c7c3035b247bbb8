// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/mmu/page_table.hpp>

// What page_table.hpp declares: making a tree, mapping, reading.

namespace accelmm::mmu {

template <PteFormat F, TableMemory Memory>
Result<PageTable<F, Memory>> PageTable<F, Memory>::create(Memory& memory) {
  if (memory.table_bytes() < std::max(G::largest_table(), F::table_alignment))
    return fail(Errc::invalid_argument, "tables of this memory are too small for the format");
  constexpr std::uint64_t last_address = ~std::uint64_t{0} >> (64 - F::bus_bits);
  if (memory.end().value() - 1 > last_address)
    return fail(Errc::invalid_argument, "tables of this memory lie where no link reaches");
  auto taken = memory.take(1);
  if (!taken) return fail(taken.error());
  const Table root = memory.pop(*taken);
  detail::clear_stale<Word>(memory, root);
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
  if (runs.size() == 1) {
    const Fast mapped = map_in_one_stretch(*range, runs.front(), *bits);
    if (mapped == Fast::done) return {};
    if (mapped == Fast::in_use)
      return fail(Errc::address_in_use, "device addresses are mapped already");
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
ACCELMM_MMU_FLATTEN auto PageTable<F, Memory>::map_in_one_table(Range<DeviceAddr> range,
                                                                std::span<const Run> runs,
                                                                Word bits) -> Fast {
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

// Leaves of one size in one table that is there, at whatever hop.
template <PteFormat F, TableMemory Memory>
auto PageTable<F, Memory>::map_in_one_stretch(Range<DeviceAddr> range, const Run& run, Word bits)
    -> Fast {
  const RunCursor<F> cursor(range.begin, std::span(&run, 1));
  const unsigned lg2 = cursor.largest_leaf();
  const std::uint64_t va = range.begin.value();
  Table table = root_;
  unsigned hop = 0;
  for (; !G::is_leaf_here(hop, lg2); ++hop) {
    if (!G::has_child(hop) || G::is_dual(hop)) return Fast::no;
    const Word word = memory_->template load<Word>(table, G::index(hop, va));
    if (F::classify(hop, word) != EntryKind::table) return Fast::no;
    table = memory_->at(F::link_address(hop, word));
  }
  const Stretch leaves = cursor.stretch(hop, lg2);
  if (leaves.bytes != range.size().value() || G::is_dual(hop)) return Fast::no;
  const auto count = static_cast<std::uint32_t>(leaves.bytes >> F::shift(hop));
  if (!memory_->template all_empty<Word>(table, G::index(hop, va), count)) return Fast::in_use;
  if (!memory_->join(table, count)) return Fast::no;
  detail::put_leaves<F>(*memory_, table, hop, leaves, bits, Reach::live);
  memory_->sync();
  return Fast::done;
}

template <PteFormat F, TableMemory Memory>
ACCELMM_MMU_FLATTEN [[gnu::noinline]] auto PageTable<F, Memory>::map_in_new_table(
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
