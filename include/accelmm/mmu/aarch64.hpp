// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/mmu/format.hpp>

#include <cstdint>

namespace accelmm::mmu {

/// What an entry of Arm's stage 1 tables says, at every hop.
///
///     63 56 55  54  53  52  51 50 48 47            12  11  10  9 8  7   6   5  4   2 1  0
///    +-----+--+---+---+----+---+---+----------------+---+---+----+---+---+---+-----+----+
///    |  0  |SD|UXN|PXN|CONT|DBM| 0 | page           |nG | AF| SH |RO |EL0| 0 |Attr |type|  leaf
///    +-----+--+---+---+----+---+---+----------------+---+---+----+---+---+---+-----+----+
///    |  0  |0 | 0 | 0 | 0  | 0 | 0 | table          | 0 | 0 | 0  | 0 | 0 | 0 |  0  | 11 |  link
///    +-----+--+---+---+----+---+---+----------------+---+---+----+---+---+---+-----+----+
///                                                                   AP
///
/// The type of a leaf is 11 at the last hop and 01 above. UXN, PXN, nG, AF and EL0 are always 1: a
/// device reads and writes as an unprivileged master, and executes nothing. Attr is the index of the
/// byte of MAIR that says the memory type; SH is 11 for write_back and 10 else.
/// CONT marks the 16 (4 KiB), 128 or 32 (16 KiB), 32 (64 KiB) entries of a group, each with its own
/// address, where hop 0 is wide enough for one.
/// A writable leaf has DBM. With hardware updates of the dirty state (TCR.HD, CD.HD), RO then only
/// means clean, and the walker clears it at the first write; without, DBM means nothing and clean()
/// would forbid writing. A fresh leaf is dirty. SD, a bit left to software, marks a leaf without DBM
/// that was written before it was protected.
/// Source  Arm ARM D8; Linux drivers/iommu/io-pgtable-arm.c, arch/arm64/include/asm/pgtable-hwdef.h.
struct AArch64Entry : FormatDefaults {
  static constexpr unsigned bus_bits = 48;
  static constexpr bool breaks_before_make = true;
  static constexpr bool has_dirty = true;

  static constexpr std::uint64_t type = 3;  // of a link and of a leaf at the last hop
  static constexpr std::uint64_t block = 1;
  static constexpr std::uint64_t normal_nc = std::uint64_t{1} << 2;
  static constexpr std::uint64_t device_memory = std::uint64_t{2} << 2;
  static constexpr std::uint64_t el0 = std::uint64_t{1} << 6;
  static constexpr std::uint64_t read_only = std::uint64_t{1} << 7;
  static constexpr std::uint64_t inner = std::uint64_t{1} << 8;
  static constexpr std::uint64_t shareable = std::uint64_t{1} << 9;
  static constexpr std::uint64_t accessed = std::uint64_t{1} << 10;
  static constexpr std::uint64_t not_global = std::uint64_t{1} << 11;
  static constexpr std::uint64_t dbm = std::uint64_t{1} << 51;
  static constexpr std::uint64_t contiguous = std::uint64_t{1} << 52;
  static constexpr std::uint64_t never_execute = std::uint64_t{3} << 53;
  static constexpr std::uint64_t soft_dirty = std::uint64_t{1} << 55;
  static constexpr std::uint64_t always = el0 | shareable | accessed | not_global | never_execute;
  /// What MAIR must hold: write back, normal non-cacheable, Device-nGnRE.
  static constexpr std::uint64_t mair = 0x0444FF;

  /// Errors  invalid_argument: not one of Access's or MemoryType's values.
  ///         not_supported: memory to be written but not read.
  [[nodiscard]] static constexpr Result<std::uint64_t> leaf_bits(Attributes wanted) {
    if (!is_valid(wanted.access)) return fail(Errc::invalid_argument, "no such access");
    if (wanted.access == Access::write)
      return fail(Errc::not_supported, "format cannot forbid reading");
    const std::uint64_t bits = always | (wanted.access == Access::read ? read_only : dbm);
    switch (wanted.memory) {
      case MemoryType::write_back:
        return bits | inner;
      case MemoryType::write_combined:
        return bits | normal_nc;
      case MemoryType::device:
        return bits | device_memory;
    }
    return fail(Errc::invalid_argument, "no such memory type");
  }
  [[nodiscard]] static constexpr Attributes attributes(unsigned /*hop*/, std::uint64_t entry) {
    const Access access = (entry & dbm) != 0 ? Access::read_write : Access::read;
    if ((entry & normal_nc) != 0) return {access, MemoryType::write_combined};
    return {access, (entry & device_memory) != 0 ? MemoryType::device : MemoryType::write_back};
  }
  [[nodiscard]] static constexpr bool dirty(std::uint64_t leaf) {
    return (leaf & (dbm | read_only)) == dbm || (leaf & soft_dirty) != 0;
  }
  [[nodiscard]] static constexpr std::uint64_t clean(std::uint64_t leaf) {
    return (leaf & ~soft_dirty) | ((leaf & dbm) != 0 ? read_only : 0);
  }
  [[nodiscard]] static constexpr std::uint64_t soil(std::uint64_t leaf) {
    return (leaf & dbm) != 0 ? leaf & ~read_only : leaf | soft_dirty;
  }
};

/// Arm's stage 1 tables (VMSAv8-64), as CPUs and SMMUs walk them from TTBR0: granules of 4 KiB
/// (granule_lg2 is 12), 16 KiB (14) and 64 KiB (16), `bits_of_address` = 64 - T0SZ.
///
/// A table is as large as the granule; hop 0 has what index bits are left over.
/// Not here: 52 bits of address (LPA, LPA2, LVA), blocks of 512 GiB and of 64 GiB.
template <unsigned granule_lg2, unsigned bits_of_address>
  requires((granule_lg2 == 12 || granule_lg2 == 14 || granule_lg2 == 16) && bits_of_address >= 25 &&
           bits_of_address <= 48)
struct AArch64 : AArch64Entry {
  static constexpr unsigned table_bits = granule_lg2 - 3;
  static constexpr unsigned hops = (bits_of_address - granule_lg2 + table_bits - 1) / table_bits;
  static constexpr std::uint64_t address = (std::uint64_t{1} << 48) - (1U << granule_lg2);

  [[nodiscard]] static constexpr unsigned shift(unsigned hop) {
    return granule_lg2 + table_bits * (hops - 1 - hop);
  }
  [[nodiscard]] static constexpr unsigned index_bits(unsigned hop) {
    return hop == 0 ? bits_of_address - shift(0) : table_bits;
  }
  [[nodiscard]] static constexpr std::uint64_t leaf_sizes(unsigned hop) {
    if (hop + (granule_lg2 == 12 ? 3 : 2) < hops) return 0;
    const std::uint64_t one = std::uint64_t{1} << shift(hop);
    return one | (index_bits(hop) > group_lg2(hop) ? one << group_lg2(hop) : 0);
  }

  [[nodiscard]] static constexpr EntryKind classify(unsigned hop, std::uint64_t entry) {
    constexpr std::uint64_t varies =
        normal_nc | device_memory | read_only | inner | dbm | soft_dirty;
    if (entry == 0) return EntryKind::empty;
    if (hop + 1 < hops && (entry & ~address) == type) return EntryKind::table;
    const std::uint64_t bits = entry & ~(address | contiguous);
    const bool aligned = (entry & address & ((std::uint64_t{1} << shift(hop)) - 1)) == 0;
    const std::uint64_t memory = bits & (normal_nc | device_memory);
    if ((bits & ~varies) != (always | leaf_type(hop)) || !aligned ||
        memory == (normal_nc | device_memory) || ((bits & inner) != 0) != (memory == 0) ||
        (bits & (dbm | read_only)) == 0 || (bits & (dbm | soft_dirty)) == (dbm | soft_dirty) ||
        (leaf_sizes(hop) >> leaf_lg2(hop, entry) & 1) == 0)
      return EntryKind::malformed;
    return EntryKind::leaf;
  }

  [[nodiscard]] static constexpr std::uint64_t make_leaf(unsigned hop, unsigned lg2, BusAddr target,
                                                         std::uint64_t bits) {
    return target.value() | bits | leaf_type(hop) | (lg2 != shift(hop) ? contiguous : 0);
  }
  [[nodiscard]] static constexpr std::uint64_t make_link(unsigned /*hop*/, BusAddr table) {
    return table.value() | type;
  }
  [[nodiscard]] static constexpr unsigned leaf_lg2(unsigned hop, std::uint64_t entry) {
    return shift(hop) + ((entry & contiguous) != 0 ? group_lg2(hop) : 0);
  }
  [[nodiscard]] static constexpr BusAddr leaf_address(unsigned /*hop*/, std::uint64_t entry) {
    return BusAddr(entry & address);
  }
  [[nodiscard]] static constexpr BusAddr link_address(unsigned /*hop*/, std::uint64_t entry) {
    return BusAddr(entry & address);
  }

 private:
  [[nodiscard]] static constexpr std::uint64_t leaf_type(unsigned hop) {
    return hop + 1 == hops ? type : block;
  }
  /// Entries of a group, as a power of two.
  [[nodiscard]] static constexpr unsigned group_lg2(unsigned hop) {
    if (granule_lg2 == 12) return 4;
    return granule_lg2 == 14 && hop + 1 == hops ? 7 : 5;
  }
};

static_assert(PteFormat<AArch64<12, 48>> && Geometry<AArch64<12, 48>>::is_regular());
static_assert(PteFormat<AArch64<12, 39>> && Geometry<AArch64<12, 39>>::is_regular());
static_assert(PteFormat<AArch64<14, 48>> && Geometry<AArch64<14, 48>>::is_regular());
static_assert(PteFormat<AArch64<14, 47>> && Geometry<AArch64<14, 47>>::is_regular());
static_assert(PteFormat<AArch64<16, 48>> && Geometry<AArch64<16, 48>>::is_regular());
static_assert(PteFormat<AArch64<16, 42>> && Geometry<AArch64<16, 42>>::is_regular());
static_assert(Geometry<AArch64<12, 48>>::va_bits == 48 && AArch64<12, 48>::hops == 4);
static_assert(Geometry<AArch64<14, 48>>::va_bits == 48 && AArch64<14, 48>::hops == 4);
static_assert(Geometry<AArch64<16, 48>>::va_bits == 48 && AArch64<16, 48>::hops == 3);
static_assert(Geometry<AArch64<12, 48>>::leaf_sizes() ==
              ((4ULL << 10) | (64ULL << 10) | (2ULL << 20) | (32ULL << 20) | (1ULL << 30) |
               (16ULL << 30)));
static_assert(Geometry<AArch64<14, 48>>::leaf_sizes() ==
              ((16ULL << 10) | (2ULL << 20) | (32ULL << 20) | (1ULL << 30)));
static_assert(Geometry<AArch64<16, 48>>::leaf_sizes() ==
              ((64ULL << 10) | (2ULL << 20) | (512ULL << 20) | (16ULL << 30)));

}  // namespace accelmm::mmu
