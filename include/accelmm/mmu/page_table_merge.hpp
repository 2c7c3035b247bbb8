// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/check.hpp>
#include <accelmm/extent.hpp>
#include <accelmm/mmu/format.hpp>
#include <accelmm/mmu/table_memory.hpp>
#include <accelmm/units.hpp>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <optional>

namespace accelmm::mmu::detail {

/// Replaces small leaves by large ones where they map the same memory with the same attributes.
template <PteFormat F, TableMemory Memory, class BreakNow>
class LeafMerger {
  using G = Geometry<F>;
  using Word = typename F::Word;

 public:
  LeafMerger(Memory& memory, TableList& gone, BreakNow& break_now)
      : memory_(memory), gone_(gone), break_now_(break_now) {}

  void merge(Table root, std::uint64_t va, std::uint64_t end) { merge_in<0>(root, va, end); }

 private:
  template <unsigned hop>
  void merge_in(Table table, std::uint64_t va, std::uint64_t end) {
    if constexpr (G::has_child(hop) && !G::is_dual(hop)) {
      for (std::uint64_t at = va; at < end;) {
        const std::uint64_t next = (at | (G::span(hop) - 1)) + 1;
        const std::uint32_t index = G::word_index(hop, at);
        const Word word = memory_.template load<Word>(table, index);
        if (F::classify(hop, word) == EntryKind::table) {
          const Table below = memory_.at(F::link_address(hop, word));
          merge_in<hop + 1>(below, at, std::min(next, end));
          if (next <= end && next - at == G::span(hop)) replace_table<hop>(table, index, below, at);
        }
        at = next;
      }
    }
    merge_groups<hop>(table, va, end);
  }

  // The leaf of one entry that says what the whole table below says.
  template <unsigned hop>
  void replace_table(Table table, std::uint32_t index, Table below, std::uint64_t va) {
    constexpr unsigned child = hop + 1;
    if constexpr (G::is_leaf_here(hop, F::shift(hop)) && !G::is_dual(child)) {
      if (memory_.live(below) != G::entries(child)) return;
      const auto leaf = as_one_leaf(below, child, 0, G::entries(child), hop);
      if (!leaf) return;
      put_broken(table, index, *leaf, va, G::span(hop));
      // Nobody else has anything in this range: the table holds what it held.
      const bool retired = memory_.retire(below, G::entries(child));
      ACCELMM_CHECK(retired);
      memory_.push(gone_, below, Contents::stale);
    }
  }

  // Groups within one table, the largest first.
  template <unsigned hop>
  void merge_groups(Table table, std::uint64_t va, std::uint64_t end) {
    constexpr std::uint64_t groups = F::leaf_sizes(hop) & ~G::span(hop);
    if constexpr (groups != 0) {
      for (std::uint64_t sizes = groups; sizes != 0; sizes &= ~std::bit_floor(sizes)) {
        const std::uint64_t size = std::bit_floor(sizes);
        const auto items = static_cast<std::uint32_t>(size >> F::shift(hop));
        std::uint64_t at = (va + size - 1) & ~(size - 1);
        for (; at < end && end - at >= size; at += size) {
          const std::uint32_t first = G::index(hop, at);
          const Word word = memory_.template load<Word>(table, first);
          if (F::classify(hop, word) != EntryKind::leaf ||
              (std::uint64_t{1} << F::leaf_lg2(hop, word)) >= size)
            continue;
          if (const auto leaf = as_one_leaf(table, hop, first, items, hop))
            put_group<hop>(table, first, items, *leaf, at);
        }
      }
    }
  }

  template <unsigned hop>
  void put_group(Table table, std::uint32_t first, std::uint32_t items, Word leaf,
                 std::uint64_t va) {
    if constexpr (F::breaks_before_make) {
      memory_.template clear<Word>(table, first, items, Reach::live);
      memory_.sync();
      break_now_(Range<DeviceAddr>{DeviceAddr(va), DeviceAddr(va + items * G::span(hop))});
    }
    const auto step = F::repeats_group ? Word{0} : static_cast<Word>(F::step(G::span(hop)));
    memory_.fill(table, first, items, leaf, step, Reach::live);
  }

  void put_broken(Table table, std::uint32_t index, Word leaf, std::uint64_t va,
                  std::uint64_t size) {
    if constexpr (F::breaks_before_make) {
      memory_.store(table, index, Word{0});
      memory_.sync();
      break_now_(Range<DeviceAddr>{DeviceAddr(va), DeviceAddr(va + size)});
    }
    memory_.store(table, index, leaf);
  }

  // The leaf in a table of `to` that maps what `items` entries from `first` map together.
  [[nodiscard]] std::optional<Word> as_one_leaf(Table table, unsigned hop, std::uint32_t first,
                                                std::uint32_t items, unsigned to) {
    const std::uint64_t size = items * G::span(hop);
    std::uint64_t begin = 0;
    bool dirty = false;
    std::optional<Attributes> attributes;
    for (std::uint32_t i = 0; i < items; ++i) {
      const Word word = memory_.template load<Word>(table, first + i);
      if (F::classify(hop, word) != EntryKind::leaf) return std::nullopt;
      const std::uint64_t within = (std::uint64_t{1} << F::leaf_lg2(hop, word)) - 1;
      const std::uint64_t address =
          (F::leaf_address(hop, word).value() & ~within) + (((first + i) * G::span(hop)) & within);
      if (i == 0) {
        begin = address;
        attributes = F::attributes(hop, word);
      }
      if (address != begin + i * G::span(hop) || F::attributes(hop, word) != *attributes)
        return std::nullopt;
      if constexpr (F::has_dirty) dirty = dirty || F::dirty(word);
    }
    if ((begin & (size - 1)) != 0) return std::nullopt;
    auto bits = F::leaf_bits(*attributes);
    ACCELMM_CHECK(bits.has_value());
    if constexpr (F::has_dirty) bits = dirty ? F::soil(*bits) : F::clean(*bits);
    return F::make_leaf(to, static_cast<unsigned>(std::countr_zero(size)), BusAddr(begin), *bits);
  }

  Memory& memory_;
  TableList& gone_;
  BreakNow& break_now_;
};

}  // namespace accelmm::mmu::detail
