// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/mmu/format.hpp>

#include <cstdint>

namespace accelmm::mmu {

/// The MMU of Intel's NPU (VPU): a subset of Arm's stage 1 with a granule of 4 KiB.
///
///     47     39 38     30 29     21 20     12 11         0
///    +---------+---------+---------+---------+------------+
///    |  hop 0  |  hop 1  |  hop 2  |  hop 3  |   offset   |
///    +---------+---------+---------+---------+------------+
///
///     63 53  52  51 48 47            12  11  10 9 8  7   6   5 3  2   1    0
///    +-----+----+-----+----------------+---+---+---+---+----+---+---+----+-----+
///    |  0  |CONT|  0  | page           |NG |AF | 0 |RO |USER| 0 |LLC|PAGE|VALID|  leaf
///    +-----+----+-----+----------------+---+---+---+---+----+---+---+----+-----+
///    |  0  | 0  |  0  | table          | 0 | 0 | 0 | 0 |  0 | 0 | 0 |PAGE|VALID|  link
///    +-----+----+-----+----------------+---+---+---+---+----+---+---+----+-----+
///
/// PAGE and VALID are 1 in leaves and links alike; NG, AF and USER in every leaf. CONT marks the 16
/// entries of a group of 64 KiB, each with its own address. LLC is coherence with the CPU's last
/// cache: write_back has it, write_combined has not. There are no leaves above the last hop.
/// The driver of Linux makes an entry invalid by a dummy address without flags; ours is zero, which
/// the device takes just as well, for VALID decides.
/// Source  Linux drivers/accel/ivpu/ivpu_mmu_context.c.
struct Ivpu : FormatDefaults {
  static constexpr unsigned hops = 4;
  static constexpr unsigned bus_bits = 48;
  static constexpr bool breaks_before_make = true;

  static constexpr std::uint64_t valid_page = 3;
  static constexpr std::uint64_t llc_coherent = std::uint64_t{1} << 2;
  static constexpr std::uint64_t user = std::uint64_t{1} << 6;
  static constexpr std::uint64_t read_only = std::uint64_t{1} << 7;
  static constexpr std::uint64_t accessed = std::uint64_t{1} << 10;
  static constexpr std::uint64_t not_global = std::uint64_t{1} << 11;
  static constexpr std::uint64_t contiguous = std::uint64_t{1} << 52;
  static constexpr std::uint64_t always = valid_page | user | accessed | not_global;
  static constexpr std::uint64_t address = 0x0000'FFFF'FFFF'F000;

  [[nodiscard]] static constexpr unsigned shift(unsigned hop) { return 12 + 9 * (hops - 1 - hop); }
  [[nodiscard]] static constexpr unsigned index_bits(unsigned /*hop*/) { return 9; }
  [[nodiscard]] static constexpr std::uint64_t leaf_sizes(unsigned hop) {
    return hop == 3 ? std::uint64_t{1} << 12 | std::uint64_t{1} << 16 : 0;
  }

  [[nodiscard]] static constexpr EntryKind classify(unsigned hop, std::uint64_t entry) {
    if (entry == 0) return EntryKind::empty;
    const std::uint64_t bits = entry & ~address;
    if (hop < 3) return bits == valid_page ? EntryKind::table : EntryKind::malformed;
    return (bits & ~(read_only | llc_coherent | contiguous)) == always ? EntryKind::leaf
                                                                       : EntryKind::malformed;
  }

  /// Errors  invalid_argument: not one of Access's values.
  ///         not_supported: memory to be written but not read, or a device's registers.
  [[nodiscard]] static constexpr Result<std::uint64_t> leaf_bits(Attributes wanted) {
    if (!is_valid(wanted.access)) return fail(Errc::invalid_argument, "no such access");
    if (wanted.access == Access::write)
      return fail(Errc::not_supported, "format cannot forbid reading");
    if (wanted.memory != MemoryType::write_back && wanted.memory != MemoryType::write_combined)
      return fail(Errc::not_supported, "format has no such memory type");
    return always | (wanted.access == Access::read ? read_only : 0) |
           (wanted.memory == MemoryType::write_back ? llc_coherent : 0);
  }
  [[nodiscard]] static constexpr std::uint64_t make_leaf(unsigned /*hop*/, unsigned lg2,
                                                         BusAddr target, std::uint64_t bits) {
    return target.value() | bits | (lg2 == 16 ? contiguous : 0);
  }
  [[nodiscard]] static constexpr std::uint64_t make_link(unsigned /*hop*/, BusAddr table) {
    return table.value() | valid_page;
  }
  [[nodiscard]] static constexpr unsigned leaf_lg2(unsigned /*hop*/, std::uint64_t entry) {
    return (entry & contiguous) != 0 ? 16 : 12;
  }
  [[nodiscard]] static constexpr BusAddr leaf_address(unsigned /*hop*/, std::uint64_t entry) {
    return BusAddr(entry & address);
  }
  [[nodiscard]] static constexpr BusAddr link_address(unsigned /*hop*/, std::uint64_t entry) {
    return BusAddr(entry & address);
  }
  [[nodiscard]] static constexpr Attributes attributes(unsigned /*hop*/, std::uint64_t entry) {
    return {(entry & read_only) != 0 ? Access::read : Access::read_write,
            (entry & llc_coherent) != 0 ? MemoryType::write_back : MemoryType::write_combined};
  }
};

static_assert(PteFormat<Ivpu>);
static_assert(Geometry<Ivpu>::is_regular());
static_assert(Geometry<Ivpu>::va_bits == 48);
static_assert(Geometry<Ivpu>::leaf_sizes() == ((4ULL << 10) | (64ULL << 10)));

}  // namespace accelmm::mmu
