// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/mmu/format.hpp>

#include <cstdint>

namespace accelmm::mmu {

/// What an entry of RISC-V's tables says, at every hop.
///
///     63 62 61 60 54 53             10 9 8  7   6   5   4   3   2   1   0
///    +--+-----+-----+-----------------+---+---+---+---+---+---+---+---+---+
///    |N |PBMT |  0  | page >> 12      | 0 | D | A | 0 | U | 0 | W | R | V |  leaf: A, U, R, V are 1
///    +--+-----+-----+-----------------+---+---+---+---+---+---+---+---+---+
///    |0 |  0  |  0  | table >> 12     | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | V |  link
///    +--+-----+-----+-----------------+---+---+---+---+---+---+---+---+---+
///                                           D   A   G   U   X   W   R   V
///
/// A, and D where W, are written by us: a walker may fault instead of setting them. So a fresh leaf
/// is dirty until clean(). W without R is reserved. A page of 64 KiB (N, Svnapot) repeats one word,
/// whose bits 13..10 are 1000. PBMT needs Svpbmt wherever memory is not write_back.
/// Source  RISC-V privileged specification, Sv39 to Sv57, Svnapot, Svpbmt; Linux
///         drivers/iommu/generic_pt/fmt/riscv.h.
struct RiscVEntry : FormatDefaults {
  static constexpr unsigned bus_bits = 56;
  static constexpr bool repeats_group = true;
  static constexpr bool has_dirty = true;

  static constexpr std::uint64_t valid = std::uint64_t{1} << 0;
  static constexpr std::uint64_t read = std::uint64_t{1} << 1;
  static constexpr std::uint64_t write = std::uint64_t{1} << 2;
  static constexpr std::uint64_t user = std::uint64_t{1} << 4;
  static constexpr std::uint64_t accessed = std::uint64_t{1} << 6;
  static constexpr std::uint64_t dirty_bit = std::uint64_t{1} << 7;
  static constexpr std::uint64_t half_group = std::uint64_t{1} << 13;
  static constexpr std::uint64_t page_number = 0x003F'FFFF'FFFF'FC00;
  static constexpr std::uint64_t non_cacheable = std::uint64_t{1} << 61;
  static constexpr std::uint64_t device_memory = std::uint64_t{1} << 62;
  static constexpr std::uint64_t group = std::uint64_t{1} << 63;

  /// Errors  invalid_argument: not one of Access's or MemoryType's values.
  ///         not_supported: memory to be written but not read.
  [[nodiscard]] static constexpr Result<std::uint64_t> leaf_bits(Attributes wanted) {
    if (!is_valid(wanted.access)) return fail(Errc::invalid_argument, "no such access");
    if (wanted.access == Access::write)
      return fail(Errc::not_supported, "format cannot forbid reading");
    const std::uint64_t bits = valid | read | user | accessed |
                               (allows(wanted.access, Access::write) ? write | dirty_bit : 0);
    switch (wanted.memory) {
      case MemoryType::write_back:
        return bits;
      case MemoryType::write_combined:
        return bits | non_cacheable;
      case MemoryType::device:
        return bits | device_memory;
    }
    return fail(Errc::invalid_argument, "no such memory type");
  }
  [[nodiscard]] static constexpr Attributes attributes(unsigned /*hop*/, std::uint64_t entry) {
    const Access access = (entry & write) != 0 ? Access::read_write : Access::read;
    if ((entry & non_cacheable) != 0) return {access, MemoryType::write_combined};
    return {access, (entry & device_memory) != 0 ? MemoryType::device : MemoryType::write_back};
  }
  [[nodiscard]] static constexpr bool dirty(std::uint64_t leaf) { return (leaf & dirty_bit) != 0; }
  [[nodiscard]] static constexpr std::uint64_t clean(std::uint64_t leaf) {
    return leaf & ~dirty_bit;
  }
  [[nodiscard]] static constexpr std::uint64_t soil(std::uint64_t leaf) { return leaf | dirty_bit; }
};

/// Whether a RISC-V MMU has Svnapot: 16 neighbouring pages as one of 64 KiB.
enum class Svnapot : std::uint8_t { no, yes };

/// RISC-V's Sv39, Sv48 and Sv57: of 39, 48 or 57 bits, whose sign a walker extends.
///
/// Each index has 9 bits, the page offset 12. A leaf may stand at any hop.
template <unsigned bits_of_address, Svnapot svnapot>
  requires(bits_of_address == 39 || bits_of_address == 48 || bits_of_address == 57)
struct RiscV : RiscVEntry {
  static constexpr unsigned hops = (bits_of_address - 12) / 9;

  [[nodiscard]] static constexpr unsigned shift(unsigned hop) { return 12 + 9 * (hops - 1 - hop); }
  [[nodiscard]] static constexpr unsigned index_bits(unsigned /*hop*/) { return 9; }
  [[nodiscard]] static constexpr std::uint64_t step(std::uint64_t bytes) { return bytes >> 2; }
  [[nodiscard]] static constexpr std::uint64_t leaf_sizes(unsigned hop) {
    constexpr std::uint64_t groups = svnapot == Svnapot::yes ? std::uint64_t{1} << 16 : 0;
    return std::uint64_t{1} << shift(hop) | (hop + 1 == hops ? groups : 0);
  }

  [[nodiscard]] static constexpr EntryKind classify(unsigned hop, std::uint64_t entry) {
    constexpr std::uint64_t varies = write | dirty_bit | non_cacheable | device_memory;
    if (entry == 0) return EntryKind::empty;
    const std::uint64_t bits = entry & ~(page_number | group);
    if (bits == valid)
      return hop + 1 < hops && (entry & group) == 0 ? EntryKind::table : EntryKind::malformed;
    const unsigned lg2 = leaf_lg2(hop, entry);
    const std::uint64_t below = (entry & page_number) << 2 & ((std::uint64_t{1} << lg2) - 1);
    const bool reserved_type = (~bits & (non_cacheable | device_memory)) == 0;
    if ((bits & ~varies) != (valid | read | user | accessed) || reserved_type ||
        (leaf_sizes(hop) >> lg2 & 1) == 0 || below != ((entry & group) != 0 ? half_group << 2 : 0))
      return EntryKind::malformed;
    return EntryKind::leaf;
  }

  [[nodiscard]] static constexpr std::uint64_t make_leaf(unsigned hop, unsigned lg2, BusAddr target,
                                                         std::uint64_t bits) {
    return target.value() >> 2 | bits | (lg2 != shift(hop) ? group | half_group : 0);
  }
  [[nodiscard]] static constexpr std::uint64_t make_link(unsigned /*hop*/, BusAddr table) {
    return table.value() >> 2 | valid;
  }
  [[nodiscard]] static constexpr unsigned leaf_lg2(unsigned hop, std::uint64_t entry) {
    return shift(hop) + ((entry & group) != 0 ? 4 : 0);
  }
  [[nodiscard]] static constexpr BusAddr leaf_address(unsigned /*hop*/, std::uint64_t entry) {
    return BusAddr((entry & page_number & ~((entry & group) != 0 ? half_group : 0)) << 2);
  }
  [[nodiscard]] static constexpr BusAddr link_address(unsigned /*hop*/, std::uint64_t entry) {
    return BusAddr((entry & page_number) << 2);
  }
};

static_assert(PteFormat<RiscV<39, Svnapot::yes>> && PteFormat<RiscV<57, Svnapot::no>>);
static_assert(Geometry<RiscV<39, Svnapot::yes>>::is_regular());
static_assert(Geometry<RiscV<48, Svnapot::yes>>::is_regular());
static_assert(Geometry<RiscV<57, Svnapot::no>>::is_regular());
static_assert(Geometry<RiscV<39, Svnapot::no>>::va_bits == 39);
static_assert(Geometry<RiscV<48, Svnapot::no>>::va_bits == 48);
static_assert(Geometry<RiscV<57, Svnapot::no>>::va_bits == 57);
static_assert(Geometry<RiscV<57, Svnapot::yes>>::leaf_sizes() ==
              ((4ULL << 10) | (64ULL << 10) | (2ULL << 20) | (1ULL << 30) | (512ULL << 30) |
               (256ULL << 40)));

}  // namespace accelmm::mmu
