// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/mmu/format.hpp>

#include <array>
#include <cstdint>

namespace accelmm::mmu {

/// NVIDIA's MMU of version 3 (Hopper and Blackwell GPUs).
///
///     56 55     47 46     38 37     29 28   21 20  16 15 12 11         0
///    +--+---------+---------+---------+-------+------+-----+------------+
///    |0 |  hop 1  |  hop 2  |  hop 3  | hop 4 |hop 5 |       offset     |  pages of 64 KiB
///    +--+---------+---------+---------+-------+------+-----+------------+
///    |0 |  hop 1  |  hop 2  |  hop 3  | hop 4 |   hop 6    |   offset   |  pages of 4 KiB
///    +--+---------+---------+---------+-------+------------+------------+
///
/// An entry of hop 4 is two words: the first links a table of pages of 64 KiB (256 bytes: hop 5),
/// the second one of pages of 4 KiB (hop 6). Where both stand, the device takes a valid page of 64
/// KiB, and looks among the small ones where that entry is zero. A leaf of 2 MiB is the first word of
/// hop 4, the second being zero; one of 512 MiB stands at hop 3.
///
///     63 52 51                     12 11 8  7  6  5   4    3    2  1   0
///    +-----+-------------------------+----+------------------+------+-----+
///    |  0  | page                    | 6  |1 |0 |RO |RO |NC   |  2   |VALID|  leaf
///    +-----+-------------------------+----+------------------+------+-----+
///    |  0  | table (from bit 8 at hop 4)  |  0  |     1       |  2   |  0  |  link
///    +-----+------------------------------+-----+-------------+------+-----+
///                                     kind  7..3, 5..3: PCF  aperture
///
/// The aperture is system memory, coherent: our addresses are bus addresses. The kind is generic
/// memory. The PCF of a leaf counts no accesses (bit 7), gives read_write atomics as well, takes
/// both from a read-only page (bits 5 and 6 of the word), and keeps write_combined memory out of the
/// GPU's caches (NC, "uncached"); that of a link is "valid, uncached, ATS allowed".
/// Source  NVIDIA open-gpu-kernel-modules: dev_mmu.h of gh100, uvm_hopper_mmu.c, kern_gmmu_fmt_gh10x.c;
///         Linux nouveau vmmgh100.c.
struct Hopper : FormatDefaults {
  static constexpr unsigned hops = 7;
  static constexpr unsigned bus_bits = 52;

  static constexpr std::uint64_t valid = std::uint64_t{1} << 0;
  static constexpr std::uint64_t system_coherent = std::uint64_t{2} << 1;
  static constexpr std::uint64_t uncached = std::uint64_t{1} << 3;
  static constexpr std::uint64_t read_only = std::uint64_t{3} << 5;  // and no atomics
  static constexpr std::uint64_t not_counted = std::uint64_t{1} << 7;
  static constexpr std::uint64_t generic_kind = std::uint64_t{6} << 8;
  static constexpr std::uint64_t always = valid | system_coherent | not_counted | generic_kind;
  static constexpr std::uint64_t link = system_coherent | uncached;
  static constexpr std::uint64_t address = 0x000F'FFFF'FFFF'F000;

  [[nodiscard]] static constexpr unsigned shift(unsigned hop) {
    constexpr std::array<unsigned, hops> shifts{56, 47, 38, 29, 21, 16, 12};
    return shifts[hop];
  }
  [[nodiscard]] static constexpr unsigned index_bits(unsigned hop) {
    constexpr std::array<unsigned, hops> widths{1, 9, 9, 9, 8, 5, 9};
    return widths[hop];
  }
  [[nodiscard]] static constexpr unsigned parent(unsigned hop) { return hop == 6 ? 4 : hop - 1; }
  [[nodiscard]] static constexpr unsigned words(unsigned hop) { return hop == 4 ? 2 : 1; }
  [[nodiscard]] static constexpr unsigned link_word(unsigned hop) { return hop == 6 ? 1 : 0; }
  [[nodiscard]] static constexpr std::uint64_t leaf_sizes(unsigned hop) {
    return hop >= 3 ? std::uint64_t{1} << shift(hop) : 0;
  }

  [[nodiscard]] static constexpr EntryKind classify(unsigned hop, std::uint64_t entry) {
    if (entry == 0) return EntryKind::empty;
    if ((entry & ~table_address(hop)) == link)
      return hop < 5 ? EntryKind::table : EntryKind::malformed;
    const std::uint64_t bits = entry & ~address;
    const bool aligned = (entry & address & ((std::uint64_t{1} << shift(hop)) - 1)) == 0;
    const bool half_read_only = (bits & read_only) != 0 && (bits & read_only) != read_only;
    if ((bits & ~(read_only | uncached)) != always || half_read_only || !aligned || hop < 3)
      return EntryKind::malformed;
    return EntryKind::leaf;
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
           (wanted.memory == MemoryType::write_combined ? uncached : 0);
  }
  [[nodiscard]] static constexpr std::uint64_t make_leaf(unsigned /*hop*/, unsigned /*lg2*/,
                                                         BusAddr target, std::uint64_t bits) {
    return target.value() | bits;
  }
  [[nodiscard]] static constexpr std::uint64_t make_link(unsigned /*hop*/, BusAddr table) {
    return table.value() | link;
  }
  [[nodiscard]] static constexpr unsigned leaf_lg2(unsigned hop, std::uint64_t /*entry*/) {
    return shift(hop);
  }
  [[nodiscard]] static constexpr BusAddr leaf_address(unsigned /*hop*/, std::uint64_t entry) {
    return BusAddr(entry & address);
  }
  [[nodiscard]] static constexpr BusAddr link_address(unsigned hop, std::uint64_t entry) {
    return BusAddr(entry & table_address(hop));
  }
  [[nodiscard]] static constexpr Attributes attributes(unsigned /*hop*/, std::uint64_t entry) {
    return {(entry & read_only) != 0 ? Access::read : Access::read_write,
            (entry & uncached) != 0 ? MemoryType::write_combined : MemoryType::write_back};
  }

 private:
  /// Where a link has its address. Hop 4 may link a table of 256 bytes.
  [[nodiscard]] static constexpr std::uint64_t table_address(unsigned hop) {
    return hop == 4 ? address | 0xF00 : address;
  }
};

static_assert(PteFormat<Hopper>);
static_assert(Geometry<Hopper>::is_regular());
static_assert(Geometry<Hopper>::va_bits == 57);
static_assert(Geometry<Hopper>::leaf_sizes() ==
              ((4ULL << 10) | (64ULL << 10) | (2ULL << 20) | (512ULL << 20)));
static_assert(Geometry<Hopper>::is_dual(4) && !Geometry<Hopper>::is_dual(3));
static_assert(Geometry<Hopper>::table_bytes(4) == 4096 && Geometry<Hopper>::table_bytes(5) == 256);

}  // namespace accelmm::mmu
