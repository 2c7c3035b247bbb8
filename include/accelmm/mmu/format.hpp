// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/access.hpp>
#include <accelmm/error.hpp>
#include <accelmm/units.hpp>

#include <concepts>
#include <cstdint>

namespace accelmm::mmu {

/// What one entry of a table is.
enum class EntryKind : std::uint8_t {
  empty,      ///< the word is zero
  table,      ///< links a table of the next hop
  leaf,       ///< maps memory
  malformed,  ///< none of these: never written by us
};

/// The most hops of any format in sight: Gaudi2 and NVIDIA Hopper have 6.
inline constexpr unsigned max_hops = 6;

/// One page-table format, as compile-time facts: all that the engine knows about it.
///
/// Hops count from the root, 0, to hops - 1. The format says
///   hops, bus_bits     number of hops; addresses below 2^bus_bits fit an entry
///   shift(hop)         lowest VA bit of the hop's index; the VA ends above hop 0's index
///   index_bits(hop)    width of the hop's index
///   has_leaf(hop)      whether leaves of 2^shift(hop) bytes stand there; in the last hop always
///   leaf_step(hop)     what is added to a leaf entry to map the next address
///   classify(hop, e)   the kind of an entry; a word of zero is empty, and nothing else is
///   leaf_bits(access)  the permission bits, once per call; not_supported where it has none such
///   make_leaf, make_link                  the entries
///   leaf_address, link_address, access    read them back
template <class F>
concept PteFormat =
    requires(unsigned hop, std::uint64_t entry, BusAddr address, Access access_wanted) {
      { F::hops } -> std::convertible_to<unsigned>;
      { F::bus_bits } -> std::convertible_to<unsigned>;
      { F::shift(hop) } -> std::same_as<unsigned>;
      { F::index_bits(hop) } -> std::same_as<unsigned>;
      { F::has_leaf(hop) } -> std::same_as<bool>;
      { F::leaf_step(hop) } -> std::same_as<std::uint64_t>;
      { F::classify(hop, entry) } -> std::same_as<EntryKind>;
      { F::leaf_bits(access_wanted) } -> std::same_as<Result<std::uint64_t>>;
      { F::make_leaf(hop, address, entry) } -> std::same_as<std::uint64_t>;
      { F::make_link(address) } -> std::same_as<std::uint64_t>;
      { F::leaf_address(hop, entry) } -> std::same_as<BusAddr>;
      { F::link_address(entry) } -> std::same_as<BusAddr>;
      { F::access(entry) } -> std::same_as<Access>;
    };

/// Numbers that follow from a format.
template <PteFormat F>
struct Geometry {
  static constexpr unsigned last_hop = F::hops - 1;
  static constexpr unsigned va_bits = F::shift(0) + F::index_bits(0);
  static constexpr std::uint64_t va_end = std::uint64_t{1} << va_bits;
  static constexpr std::uint64_t page_size = std::uint64_t{1} << F::shift(last_hop);

  /// Bytes that one entry of the hop covers: the size of a leaf there.
  [[nodiscard]] static constexpr std::uint64_t span(unsigned hop) {
    return std::uint64_t{1} << F::shift(hop);
  }
  [[nodiscard]] static constexpr std::uint32_t entries(unsigned hop) {
    return std::uint32_t{1} << F::index_bits(hop);
  }
  [[nodiscard]] static constexpr std::uint32_t index(unsigned hop, std::uint64_t va) {
    return static_cast<std::uint32_t>(va >> F::shift(hop)) & (entries(hop) - 1);
  }
  /// The leaf sizes as a set: bit n stands for leaves of 2^n bytes.
  [[nodiscard]] static constexpr std::uint64_t leaf_sizes() {
    std::uint64_t sizes = 0;
    for (unsigned hop = 0; hop < F::hops; ++hop)
      if (F::has_leaf(hop)) sizes |= span(hop);
    return sizes;
  }
  /// Tells whether the indices join without gap or overlap and fit tables of `room` entries.
  [[nodiscard]] static consteval bool is_regular(std::uint32_t room) {
    if (F::hops == 0 || F::hops > max_hops || va_bits >= 64 || !F::has_leaf(last_hop)) return false;
    for (unsigned hop = 0; hop < F::hops; ++hop) {
      if (entries(hop) > room) return false;
      if (hop > 0 && F::shift(hop - 1) != F::shift(hop) + F::index_bits(hop)) return false;
    }
    return true;
  }
};

}  // namespace accelmm::mmu
