// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "oracle/golden_words.hpp"

#include <bit>
#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

namespace accelmm::test {

/// A kind of leaf: where it stands and how large it is; a group where it has several entries.
struct LeafKind {
  unsigned hop;
  std::uint64_t size;
};

/// How tests write the tables of a format: words only, no tree. The golden words check it.
struct Encoding {
  struct Hop {
    unsigned shift;      ///< lowest bit of the index
    unsigned bits;       ///< width of the index
    int parent = -1;     ///< the hop that links it, where not the one before
    unsigned part = 0;   ///< the word of the parent's entry that links it
    unsigned words = 1;  ///< words of one entry
  };
  enum class Extension { zero, sign };

  std::string name;
  Format format;
  unsigned levels;
  std::vector<Hop> hops;
  std::vector<LeafKind> leaves;
  std::vector<Allowed> permissions;
  unsigned address_bits;
  Extension extension;
  unsigned word_bytes;
  unsigned bus_bits;
  std::uint64_t table_alignment;
  bool repeats_group;        ///< or counts the bus address on
  std::uint64_t link_flags;  ///< bits of a link, besides its address, each of which matters
  std::uint64_t leaf_flags;  ///< the same of a leaf
  // hops_below: how many hops are below the table that holds the link.
  std::uint64_t (*link)(unsigned hops_below, unsigned hop, std::uint64_t table);
  std::uint64_t (*leaf)(const Encoding&, const LeafKind&, std::uint64_t bus_address, Allowed);

  [[nodiscard]] int parent(unsigned hop) const {
    return hops[hop].parent >= 0 ? hops[hop].parent : static_cast<int>(hop) - 1;
  }
  [[nodiscard]] std::uint64_t span(unsigned hop) const { return 1ULL << hops[hop].shift; }
  [[nodiscard]] std::uint64_t entries_of(const LeafKind& kind) const {
    return kind.size <= span(kind.hop) ? 1 : kind.size >> hops[kind.hop].shift;
  }
  [[nodiscard]] std::uint64_t link_word(unsigned hop, std::uint64_t table) const {
    return link(levels - 1 - hop, hop, table);
  }
  [[nodiscard]] std::uint64_t leaf_word(const LeafKind& kind, std::uint64_t bus_address,
                                        Allowed allowed) const {
    return leaf(*this, kind, bus_address, allowed);
  }
  /// The bits of a word that hold its address from bit `lowest` of the address up.
  [[nodiscard]] std::uint64_t link_address_bits(unsigned hop, unsigned lowest) const {
    std::uint64_t bits = 0;
    for (unsigned bit = lowest; bit < bus_bits; ++bit)
      bits |= link_word(hop, 1ULL << bit) ^ link_word(hop, 0);
    return bits;
  }
  [[nodiscard]] std::uint64_t leaf_address_bits(const LeafKind& kind) const {
    std::uint64_t bits = 0;
    for (auto bit = static_cast<unsigned>(std::countr_zero(kind.size)); bit < bus_bits; ++bit)
      bits |= leaf_word(kind, 1ULL << bit, Allowed::both) ^ leaf_word(kind, 0, Allowed::both);
    return bits;
  }
  /// Where an entry stands in its table, in bytes.
  [[nodiscard]] std::uint64_t offset(unsigned hop, std::uint64_t address) const {
    const std::uint64_t index = address >> hops[hop].shift & ((1ULL << hops[hop].bits) - 1);
    return index * hops[hop].words * word_bytes;
  }
  [[nodiscard]] std::uint64_t table_bytes(unsigned hop) const {
    return (std::uint64_t{word_bytes} * hops[hop].words) << hops[hop].bits;
  }
  /// The nearest thing to any number that is an address of the format.
  [[nodiscard]] std::uint64_t canonical(std::uint64_t number) const {
    if (address_bits == 64) return number;
    const unsigned unused = 64 - address_bits;
    if (extension == Extension::zero) return number << unused >> unused;
    return static_cast<std::uint64_t>(static_cast<std::int64_t>(number << unused) >> unused);
  }
};

inline void PrintTo(const Encoding& encoding, std::ostream* out) {
  *out << encoding.name;
}

}  // namespace accelmm::test
