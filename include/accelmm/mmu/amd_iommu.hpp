// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/mmu/format.hpp>

#include <bit>
#include <cstdint>

namespace accelmm::mmu {

/// The host tables (v1) of AMD's IOMMU, of 2 to 6 levels.
///
/// Each index has 9 bits, the page offset 12; addresses are extended with zeros. The sixth level has
/// 7 bits in the device and 6 here, for the engine stops at 63 bits of address: bit 63 stays zero.
///
///     63 62 61 60 59 52 51                        12 11  9 8 7  6   5  4 1  0
///    +--+--+--+--+-----+----------------------------+-----+---+---+---+---+--+
///    |0 |IW|IR|FC|  0  | page                       |  0  | 0 | D | A | 0 |PR|  leaf of a full entry
///    +--+--+--+--+-----+----------------------------+-----+---+---+---+---+--+
///    |0 |IW|IR|FC|  0  | page, 0 in bit n-1, 1..1   |  7  | 0 | D | A | 0 |PR|  leaf of 2^n bytes
///    +--+--+--+--+-----+----------------------------+-----+---+---+---+---+--+
///    |0 | 1| 1| 0|  0  | table                      |level| 0 | 0 | A | 0 |PR|  link
///    +--+--+--+--+-----+----------------------------+-----+---+---+---+---+--+
///
/// A leaf of 2^n bytes stands in every entry that it covers, the same word each time; the run of
/// ones below bit n-1 tells its size. A device may set D in any of them. All powers of two from
/// 4 KiB to 256 GiB exist. 512 GiB do not, for the hardware gets them wrong; what is larger would
/// be groups at a hop whose single entry is no leaf, and Geometry wants that entry.
/// IR and IW count only where all links grant them too, so every link does. FC, coherence whatever
/// a device asks for, is always set. A and D are the device's to write.
/// Source  AMD I/O Virtualization Technology specification section 2.2.3; Linux
///         drivers/iommu/generic_pt/fmt/amdv1.h; FreeBSD sys/x86/iommu/amd_reg.h for A.
template <unsigned levels>
  requires(levels >= 2 && levels <= 6)
struct AmdIommuV1 : FormatDefaults {
  static constexpr unsigned hops = levels;
  static constexpr unsigned bus_bits = 52;
  static constexpr bool repeats_group = true;
  static constexpr bool has_dirty = true;

  static constexpr std::uint64_t present = std::uint64_t{1} << 0;
  static constexpr std::uint64_t accessed = std::uint64_t{1} << 5;
  static constexpr std::uint64_t dirty_bit = std::uint64_t{1} << 6;
  static constexpr std::uint64_t next_level = std::uint64_t{7} << 9;  // 7 itself: size encoded
  static constexpr std::uint64_t coherent = std::uint64_t{1} << 60;
  static constexpr std::uint64_t read = std::uint64_t{1} << 61;
  static constexpr std::uint64_t write = std::uint64_t{1} << 62;
  static constexpr std::uint64_t address = 0x000F'FFFF'FFFF'F000;

  [[nodiscard]] static constexpr unsigned shift(unsigned hop) { return 12 + 9 * (hops - 1 - hop); }
  [[nodiscard]] static constexpr unsigned index_bits(unsigned hop) {
    return hop + 6 == hops ? 6 : 9;
  }
  [[nodiscard]] static constexpr std::uint64_t leaf_sizes(unsigned hop) {
    return hop + 3 >= hops ? std::uint64_t{0x1FF} << shift(hop) : 0;
  }

  [[nodiscard]] static constexpr EntryKind classify(unsigned hop, std::uint64_t entry) {
    if (entry == 0) return EntryKind::empty;
    const std::uint64_t bits = entry & ~(address | accessed);
    if (hop + 1 < hops && bits == make_link(hop, BusAddr(0))) return EntryKind::table;
    const std::uint64_t level = bits & next_level;
    const std::uint64_t varies = next_level | read | write | dirty_bit;
    if ((bits & ~varies) != (present | coherent) || (bits & (read | write)) == 0 ||
        (level != 0 && level != next_level) || leaf_sizes(hop) == 0)
      return EntryKind::malformed;
    const unsigned lg2 = leaf_lg2(hop, entry);
    const bool right = level == 0 ? (entry & address & ((std::uint64_t{1} << lg2) - 1)) == 0
                                  : lg2 != shift(hop) && (leaf_sizes(hop) >> lg2 & 1) != 0;
    return right ? EntryKind::leaf : EntryKind::malformed;
  }

  /// Errors  invalid_argument: not one of Access's values.
  ///         not_supported: memory that is not ordinary.
  [[nodiscard]] static constexpr Result<std::uint64_t> leaf_bits(Attributes wanted) {
    if (!is_valid(wanted.access)) return fail(Errc::invalid_argument, "no such access");
    if (wanted.memory != MemoryType::write_back)
      return fail(Errc::not_supported, "format has no memory types");
    return present | coherent | (allows(wanted.access, Access::read) ? read : 0) |
           (allows(wanted.access, Access::write) ? write : 0);
  }
  [[nodiscard]] static constexpr std::uint64_t make_leaf(unsigned hop, unsigned lg2, BusAddr target,
                                                         std::uint64_t bits) {
    if (lg2 == shift(hop)) return target.value() | bits;
    const std::uint64_t ones = ((std::uint64_t{1} << (lg2 - 1)) - 1) & address;
    return target.value() | ones | next_level | bits;
  }
  [[nodiscard]] static constexpr std::uint64_t make_link(unsigned hop, BusAddr table) {
    return table.value() | present | read | write | std::uint64_t{hops - 1 - hop} << 9;
  }
  [[nodiscard]] static constexpr unsigned leaf_lg2(unsigned hop, std::uint64_t entry) {
    if ((entry & next_level) == 0) return shift(hop);
    return 13 + static_cast<unsigned>(std::countr_one((entry & address) >> 12));
  }
  [[nodiscard]] static constexpr BusAddr leaf_address(unsigned hop, std::uint64_t entry) {
    return BusAddr(entry & address & ~((std::uint64_t{1} << leaf_lg2(hop, entry)) - 1));
  }
  [[nodiscard]] static constexpr BusAddr link_address(unsigned /*hop*/, std::uint64_t entry) {
    return BusAddr(entry & address);
  }
  [[nodiscard]] static constexpr Attributes attributes(unsigned /*hop*/, std::uint64_t entry) {
    return static_cast<Access>(entry >> 61 & 3);
  }
  [[nodiscard]] static constexpr bool dirty(std::uint64_t leaf) { return (leaf & dirty_bit) != 0; }
  [[nodiscard]] static constexpr std::uint64_t clean(std::uint64_t leaf) {
    return leaf & ~dirty_bit;
  }
  [[nodiscard]] static constexpr std::uint64_t soil(std::uint64_t leaf) { return leaf | dirty_bit; }
};

static_assert(PteFormat<AmdIommuV1<3>> && Geometry<AmdIommuV1<3>>::is_regular());
static_assert(PteFormat<AmdIommuV1<4>> && Geometry<AmdIommuV1<4>>::is_regular());
static_assert(PteFormat<AmdIommuV1<6>> && Geometry<AmdIommuV1<6>>::is_regular());
static_assert(Geometry<AmdIommuV1<3>>::va_bits == 39 && Geometry<AmdIommuV1<4>>::va_bits == 48);
static_assert(Geometry<AmdIommuV1<5>>::va_bits == 57 && Geometry<AmdIommuV1<6>>::va_bits == 63);
static_assert(Geometry<AmdIommuV1<6>>::leaf_sizes() == (512ULL << 30) - (4ULL << 10));

}  // namespace accelmm::mmu
