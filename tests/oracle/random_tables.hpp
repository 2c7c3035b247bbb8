// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "oracle/encoding.hpp"
#include "oracle/naive_walk.hpp"
#include "property/mm/steps.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <map>
#include <optional>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

namespace accelmm::test {

/// Tables in memory with a list of what they map, which is what any walker must find in them.
class RandomTables {
 public:
  struct Mapping {
    std::uint64_t address;
    std::uint64_t bus_address;
    LeafKind kind;
    Allowed allowed;
  };

  /// `memory` is zero; its first byte has the bus address `base`.
  RandomTables(const Encoding& encoding, std::span<std::byte> memory, std::uint64_t base)
      : encoding_(encoding), memory_(memory), base_(base), root_(*take_table(0)) {}

  [[nodiscard]] std::uint64_t root() const { return root_; }
  [[nodiscard]] const std::vector<Mapping>& mappings() const { return mappings_; }

  /// Tells whether it was mapped: not where something is mapped already or tables are used up.
  bool map(const Mapping& wanted) {
    if (overlaps(wanted)) return false;
    const LeafKind& kind = wanted.kind;
    const auto table = table_of(kind.hop, wanted.address);
    if (!table) return false;
    const std::uint64_t entry_bytes = encoding_.word_bytes * encoding_.hops[kind.hop].words;
    const std::uint64_t first = *table + encoding_.offset(kind.hop, wanted.address);
    const std::uint64_t count = encoding_.entries_of(kind);
    for (std::uint64_t place = first; place < first + count * entry_bytes;
         place += encoding_.word_bytes)
      if (read(place, encoding_.word_bytes) != 0) return false;
    for (std::uint64_t item = 0; item < count; ++item) {
      const std::uint64_t on = encoding_.repeats_group ? 0 : item * encoding_.span(kind.hop);
      write(first + item * entry_bytes,
            encoding_.leaf_word(kind, wanted.bus_address + on, wanted.allowed));
    }
    index_[wanted.address] = mappings_.size();
    mappings_.push_back(wanted);
    return true;
  }

  /// Maps at random, in few places, so that leaves of all kinds are neighbours.
  void fill(Dice& dice, unsigned attempts) {
    // One of each kind, anywhere, the large ones first while there is room.
    for (std::size_t i = encoding_.leaves.size(); i > 0; --i)
      for (int attempt = 0; attempt < 16; ++attempt)
        if (map(random_mapping(dice, encoding_.leaves[i - 1], random_number(dice)))) break;
    std::vector<std::uint64_t> places;
    for (int i = 0; i < 4; ++i) places.push_back(random_number(dice));
    for (unsigned i = 0; i < attempts; ++i) {
      const LeafKind& kind = encoding_.leaves[dice.roll(encoding_.leaves.size())];
      std::uint64_t address = places[dice.roll(places.size())] + dice.roll(1ULL << 34);
      if (!mappings_.empty() && dice.roll(2) == 0)
        address = mappings_.back().address + mappings_.back().kind.size;
      map(random_mapping(dice, kind, address));
    }
  }

  /// Mostly in or near what is mapped.
  [[nodiscard]] std::uint64_t random_address(Dice& dice) const {
    if (mappings_.empty() || dice.roll(8) == 0) return encoding_.canonical(random_number(dice));
    const Mapping& near = mappings_[dice.roll(mappings_.size())];
    std::uint64_t address = near.address + dice.roll(near.kind.size);
    switch (dice.roll(8)) {
      case 0:
        address = near.address - 1 - dice.roll(near.kind.size);
        break;
      case 1:
        address = near.address + near.kind.size + dice.roll(near.kind.size);
        break;
      case 2:
        address = near.address;
        break;
      case 3:
        address = near.address + near.kind.size - 1;
        break;
      default:
        break;
    }
    return encoding_.canonical(address);
  }

  /// What the list says of an address.
  [[nodiscard]] std::optional<NaiveAnswer> expected(std::uint64_t address) const {
    auto after = index_.upper_bound(address);
    if (after == index_.begin()) return std::nullopt;
    const Mapping& found = mappings_[std::prev(after)->second];
    const std::uint64_t on = address - found.address;
    if (on >= found.kind.size) return std::nullopt;
    return NaiveAnswer{found.bus_address + on, found.kind.size, found.allowed};
  }

  /// Where the entry of an address is in the table of a hop that exists.
  [[nodiscard]] std::optional<std::uint64_t> place_of(unsigned hop, std::uint64_t address) const {
    if (hop == 0) return root_ + encoding_.offset(0, address);
    const auto parent = static_cast<unsigned>(encoding_.parent(hop));
    const auto above = place_of(parent, address);
    if (!above) return std::nullopt;
    const auto table = tables_.find(*above + encoding_.hops[hop].part * encoding_.word_bytes);
    if (table == tables_.end()) return std::nullopt;
    return table->second + encoding_.offset(hop, address);
  }

  /// Reads as a device that finds zeros where there is no memory.
  [[nodiscard]] std::uint64_t read(std::uint64_t address, unsigned bytes) const {
    std::uint64_t word = 0;
    if (address < base_ || address - base_ > memory_.size() - bytes) return 0;
    std::memcpy(&word, memory_.data() + (address - base_), bytes);
    return word;
  }
  void write(std::uint64_t address, std::uint64_t word) {
    std::memcpy(memory_.data() + (address - base_), &word, encoding_.word_bytes);
  }

 private:
  static std::uint64_t random_number(Dice& dice) {
    return dice.roll(1ULL << 32) << 32 | dice.roll(1ULL << 32);
  }

  [[nodiscard]] Mapping random_mapping(Dice& dice, const LeafKind& kind, std::uint64_t near) const {
    std::uint64_t bus_address = random_number(dice);
    if (encoding_.bus_bits < 64) bus_address %= 1ULL << encoding_.bus_bits;
    return {encoding_.canonical(near / kind.size * kind.size), bus_address / kind.size * kind.size,
            kind, encoding_.permissions[dice.roll(encoding_.permissions.size())]};
  }

  [[nodiscard]] bool overlaps(const Mapping& wanted) const {
    const std::uint64_t last = wanted.address + (wanted.kind.size - 1);
    auto after = index_.upper_bound(last);
    if (after == index_.begin()) return false;
    const Mapping& before = mappings_[std::prev(after)->second];
    return before.address + (before.kind.size - 1) >= wanted.address;
  }

  std::optional<std::uint64_t> take_table(unsigned hop) {
    const std::uint64_t bytes = encoding_.table_bytes(hop);
    const std::uint64_t alignment =
        bytes > encoding_.table_alignment ? bytes : encoding_.table_alignment;
    const std::uint64_t begin = (used_ + alignment - 1) / alignment * alignment;
    if (bytes > memory_.size() || begin > memory_.size() - bytes) return std::nullopt;
    used_ = begin + bytes;
    return base_ + begin;
  }

  std::optional<std::uint64_t> table_of(unsigned hop, std::uint64_t address) {
    if (hop == 0) return root_;
    const auto parent = static_cast<unsigned>(encoding_.parent(hop));
    const auto above = table_of(parent, address);
    if (!above) return std::nullopt;
    const std::uint64_t place = *above + encoding_.offset(parent, address) +
                                encoding_.hops[hop].part * encoding_.word_bytes;
    if (const auto known = tables_.find(place); known != tables_.end()) return known->second;
    if (read(place, encoding_.word_bytes) != 0) return std::nullopt;
    const auto table = take_table(hop);
    if (!table) return std::nullopt;
    tables_[place] = *table;
    write(place, encoding_.link_word(parent, *table));
    return table;
  }

  const Encoding& encoding_;
  std::span<std::byte> memory_;
  std::uint64_t base_;
  std::uint64_t used_ = 0;
  std::uint64_t root_;
  std::vector<Mapping> mappings_;
  std::map<std::uint64_t, std::size_t> index_;
  std::unordered_map<std::uint64_t, std::uint64_t> tables_;  ///< by the place of their link
};

}  // namespace accelmm::test
