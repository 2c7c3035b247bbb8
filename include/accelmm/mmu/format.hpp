// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/mmu/attributes.hpp>
#include <accelmm/units.hpp>

#include <bit>
#include <concepts>
#include <cstdint>

namespace accelmm::mmu {

/// What one word of a table is.
enum class EntryKind : std::uint8_t {
  empty,      ///< the word is zero
  table,      ///< links a table of the next hop
  leaf,       ///< maps memory
  malformed,  ///< none of these: never written by us
};

/// The most hops of any format in sight: NVIDIA Hopper has 6 and a second kind of last table.
inline constexpr unsigned max_hops = 7;

/// What most formats have in common: one word an entry, each hop below the one before, no groups.
/// A format derives from it and hides what differs.
struct FormatDefaults {
  using Word = std::uint64_t;
  /// Whether the entries of a group repeat one word (AMD, RISC-V) or count on (Arm).
  static constexpr bool repeats_group = false;
  /// Whether a device may see two sizes at one address when a leaf is replaced by smaller ones or
  /// the reverse, so that the old entry must be cleared and invalidated first.
  static constexpr bool breaks_before_make = false;
  /// Whether a device marks a leaf that it wrote through. Then there are dirty(e), which tells, and
  /// clean(e) and soil(e), which give the same leaf without and with the mark.
  static constexpr bool has_dirty = false;
  /// What the address of a table must be aligned to besides its size, because a link has flags there.
  static constexpr std::uint64_t table_alignment = 4096;
  /// Adding step() moves an entry's address on only below 2^step_bits: an encoding in two parts.
  static constexpr unsigned step_bits = 64;

  [[nodiscard]] static constexpr unsigned parent(unsigned hop) { return hop - 1; }
  /// Words of one entry: two where an entry links two tables.
  [[nodiscard]] static constexpr unsigned words(unsigned /*hop*/) { return 1; }
  /// Which word of its parent's entry links a table of the hop.
  [[nodiscard]] static constexpr unsigned link_word(unsigned /*hop*/) { return 0; }
  /// What is added to a leaf to map the memory `bytes` further on.
  [[nodiscard]] static constexpr std::uint64_t step(std::uint64_t bytes) { return bytes; }
};

/// One page-table format, as compile-time facts: all that the engine knows about it.
///
/// Hops count from the root, 0, to hops - 1. The format says, besides what FormatDefaults has:
///   hops, bus_bits       number of hops; addresses below 2^bus_bits fit an entry
///   shift(hop)           lowest VA bit of the hop's index; the VA ends above hop 0's index
///   index_bits(hop)      width of the hop's index
///   leaf_sizes(hop)      the sizes of leaves there, a set: bit n stands for 2^n bytes. The smallest
///                        is one entry's span; larger ones are groups of neighbouring entries, each
///                        of which says the group's size. Never the whole table.
///   classify(hop, e)     the kind of a word; zero is empty, and nothing else is
///   leaf_bits(a)         all of a leaf but address and size, once per call; not_supported where
///                        the format cannot say it, invalid_argument where `a` is no value
///   make_leaf(hop, lg2, address, bits)  the first word of a leaf of 2^lg2 bytes
///   make_link(hop, table)               the word in a table of `hop` that links another
///   leaf_lg2(hop, e), leaf_address(hop, e), attributes(hop, e)  read a leaf back; the address is
///                        that of the entry, or of anywhere in the group
///   link_address(hop, e)                reads a link back
template <class F>
concept PteFormat =
    (std::same_as<typename F::Word, std::uint64_t> ||
     std::same_as<typename F::Word, std::uint32_t>) &&
    requires(unsigned hop, typename F::Word word, BusAddr address, Attributes wanted) {
      { F::hops } -> std::convertible_to<unsigned>;
      { F::bus_bits } -> std::convertible_to<unsigned>;
      { F::shift(hop) } -> std::same_as<unsigned>;
      { F::index_bits(hop) } -> std::same_as<unsigned>;
      { F::leaf_sizes(hop) } -> std::same_as<std::uint64_t>;
      { F::classify(hop, word) } -> std::same_as<EntryKind>;
      { F::leaf_bits(wanted) } -> std::same_as<Result<typename F::Word>>;
      { F::make_leaf(hop, hop, address, word) } -> std::same_as<typename F::Word>;
      { F::make_link(hop, address) } -> std::same_as<typename F::Word>;
      { F::leaf_lg2(hop, word) } -> std::same_as<unsigned>;
      { F::leaf_address(hop, word) } -> std::same_as<BusAddr>;
      { F::attributes(hop, word) } -> std::same_as<Attributes>;
      { F::link_address(hop, word) } -> std::same_as<BusAddr>;
      { F::parent(hop) } -> std::same_as<unsigned>;
      { F::words(hop) } -> std::same_as<unsigned>;
      { F::link_word(hop) } -> std::same_as<unsigned>;
      { F::step(std::uint64_t{}) } -> std::convertible_to<std::uint64_t>;
    };

/// Numbers that follow from a format.
template <PteFormat F>
struct Geometry {
  using Word = typename F::Word;
  static constexpr unsigned last_hop = F::hops - 1;
  static constexpr unsigned va_bits = F::shift(0) + F::index_bits(0);
  static constexpr std::uint64_t va_end = std::uint64_t{1} << va_bits;
  static constexpr std::uint64_t page_size = std::uint64_t{1} << F::shift(last_hop);

  /// Bytes that one entry of the hop covers.
  [[nodiscard]] static constexpr std::uint64_t span(unsigned hop) {
    return std::uint64_t{1} << F::shift(hop);
  }
  [[nodiscard]] static constexpr std::uint32_t entries(unsigned hop) {
    return std::uint32_t{1} << F::index_bits(hop);
  }
  [[nodiscard]] static constexpr std::uint32_t index(unsigned hop, std::uint64_t va) {
    return static_cast<std::uint32_t>(va >> F::shift(hop)) & (entries(hop) - 1);
  }
  /// Where the entry's words begin in its table, in words.
  [[nodiscard]] static constexpr std::uint32_t word_index(unsigned hop, std::uint64_t va) {
    return index(hop, va) * F::words(hop);
  }
  [[nodiscard]] static constexpr std::uint32_t table_words(unsigned hop) {
    return entries(hop) * F::words(hop);
  }
  [[nodiscard]] static constexpr std::uint64_t table_bytes(unsigned hop) {
    return std::uint64_t{table_words(hop)} * sizeof(Word);
  }
  [[nodiscard]] static constexpr std::uint64_t largest_table() {
    std::uint64_t largest = 0;
    for (unsigned hop = 0; hop < F::hops; ++hop)
      if (table_bytes(hop) > largest) largest = table_bytes(hop);
    return largest;
  }
  /// The leaf sizes of all hops as a set: bit n stands for leaves of 2^n bytes.
  [[nodiscard]] static constexpr std::uint64_t leaf_sizes() {
    std::uint64_t sizes = 0;
    for (unsigned hop = 0; hop < F::hops; ++hop) sizes |= F::leaf_sizes(hop);
    return sizes;
  }
  /// Whether tables of the hop link others.
  [[nodiscard]] static constexpr bool has_child(unsigned hop) {
    return hop + 1 < F::hops && F::parent(hop + 1) == hop;
  }
  /// Whether leaves of 2^lg2 bytes stand in tables of the hop.
  [[nodiscard]] static constexpr bool is_leaf_here(unsigned hop, unsigned lg2) {
    return (F::leaf_sizes(hop) >> lg2 & 1) != 0;
  }
  /// Whether an entry of the hop links two tables: the hops hop + 1 and hop + 2.
  [[nodiscard]] static constexpr bool is_dual(unsigned hop) { return F::words(hop) == 2; }

  /// Tells whether the indices join without gap or overlap and the leaf sizes fit their hops.
  [[nodiscard]] static consteval bool is_regular() {
    if (F::hops == 0 || F::hops > max_hops || va_bits >= 64) return false;
    if (std::countr_zero(leaf_sizes()) != static_cast<int>(F::shift(last_hop))) return false;
    for (unsigned hop = 0; hop < F::hops; ++hop) {
      const std::uint64_t sizes = F::leaf_sizes(hop);
      if (hop > 0 && F::shift(F::parent(hop)) != F::shift(hop) + F::index_bits(hop)) return false;
      if (sizes == 0) continue;
      const auto smallest = static_cast<unsigned>(std::countr_zero(sizes));
      const unsigned end = F::shift(hop) + F::index_bits(hop);
      if (smallest != F::shift(hop) || (end < 64 && sizes >> end != 0)) return false;
    }
    return true;
  }
};

}  // namespace accelmm::mmu
