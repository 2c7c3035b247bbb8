// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/mmu/format.hpp>

#include <array>
#include <cstdint>

namespace accelmm::mmu {

/// What Gaudi's MMUs have in common. `shifts` are the lowest VA bits of the hops' indices, of which
/// the first is `root_bits` wide and the others reach up to the hop before.
///
/// An entry is 64 bits, little-endian. All zero is empty.
///
///     63                        12  11  10                      1    0
///    +----------------------------+----+-------------------------+-------+
///    |  bus address bits 63..12   |LAST|            0            |PRESENT|  leaf
///    +----------------------------+----+-------------------------+-------+
///    |  address of the next table |  0 |            0            |PRESENT|  link
///    +----------------------------+----+-------------------------+-------+
///
/// There are no permissions and no memory types: a leaf is readable and writable. Leaves stand at
/// the last two hops. A table is aligned to 4096 bytes, however few entries it has.
/// Source  Linux drivers/accel/habanalabs: mmu_general.h, mmu_v1_1.h, mmu_v2_0.h, mmu_v2_hr.c.
template <unsigned root_bits, unsigned... shifts>
struct GaudiTables : FormatDefaults {
  static constexpr unsigned hops = sizeof...(shifts);
  static constexpr unsigned bus_bits = 64;

  static constexpr std::uint64_t present = std::uint64_t{1} << 0;
  static constexpr std::uint64_t last = std::uint64_t{1} << 11;
  static constexpr std::uint64_t flags = 0xFFF;
  static constexpr std::uint64_t address = ~flags;

  [[nodiscard]] static constexpr unsigned shift(unsigned hop) {
    constexpr std::array<unsigned, hops> all{shifts...};
    return all[hop];
  }
  [[nodiscard]] static constexpr unsigned index_bits(unsigned hop) {
    return hop == 0 ? root_bits : shift(hop - 1) - shift(hop);
  }
  [[nodiscard]] static constexpr std::uint64_t leaf_sizes(unsigned hop) {
    return hop + 2 >= hops ? std::uint64_t{1} << shift(hop) : 0;
  }

  [[nodiscard]] static constexpr EntryKind classify(unsigned hop, std::uint64_t entry) {
    if (entry == 0) return EntryKind::empty;
    const std::uint64_t bits = entry & flags;
    if (bits == present) return hop + 1 < hops ? EntryKind::table : EntryKind::malformed;
    const bool aligned = (entry & address & ((std::uint64_t{1} << shift(hop)) - 1)) == 0;
    if (bits != (present | last) || !aligned || leaf_sizes(hop) == 0) return EntryKind::malformed;
    return EntryKind::leaf;
  }

  /// Errors  invalid_argument: not one of Access's values.
  ///         not_supported: less than read_write, or memory that is not ordinary.
  [[nodiscard]] static constexpr Result<std::uint64_t> leaf_bits(Attributes wanted) {
    if (!is_valid(wanted.access)) return fail(Errc::invalid_argument, "no such access");
    if (wanted != Attributes{})
      return fail(Errc::not_supported, "format has neither permissions nor memory types");
    return present | last;
  }
  [[nodiscard]] static constexpr std::uint64_t make_leaf(unsigned /*hop*/, unsigned /*lg2*/,
                                                         BusAddr target, std::uint64_t bits) {
    return target.value() | bits;
  }
  [[nodiscard]] static constexpr std::uint64_t make_link(unsigned /*hop*/, BusAddr table) {
    return table.value() | present;
  }
  [[nodiscard]] static constexpr unsigned leaf_lg2(unsigned hop, std::uint64_t /*entry*/) {
    return shift(hop);
  }
  [[nodiscard]] static constexpr BusAddr leaf_address(unsigned /*hop*/, std::uint64_t entry) {
    return BusAddr(entry & address);
  }
  [[nodiscard]] static constexpr BusAddr link_address(unsigned /*hop*/, std::uint64_t entry) {
    return BusAddr(entry & address);
  }
  [[nodiscard]] static constexpr Attributes attributes(unsigned /*hop*/, std::uint64_t /*entry*/) {
    return {};
  }
};

/// Gaudi (MMU v1.1): 50 bits, pages of 4 KiB and 2 MiB.
///
///     49 48 47     39 38     30 29     21 20     12 11         0
///    +-----+---------+---------+---------+---------+------------+
///    |hop 0|  hop 1  |  hop 2  |  hop 3  |  hop 4  |   offset   |
///    +-----+---------+---------+---------+---------+------------+
struct Gaudi1 : GaudiTables<2, 48, 39, 30, 21, 12> {};

/// Gaudi2's MMU for host memory, pages of 4 KiB and 2 MiB. The device's hop 0 has 7 index bits, of
/// which the engine, that stops at 63 bits of address, fills the lower half: bit 63 stays zero.
///
///     62   57 56     48 47     39 38     30 29     21 20     12 11         0
///    +-------+---------+---------+---------+---------+---------+------------+
///    | hop 0 |  hop 1  |  hop 2  |  hop 3  |  hop 4  |  hop 5  |   offset   |
///    +-------+---------+---------+---------+---------+---------+------------+
struct Gaudi2Host4k : GaudiTables<6, 57, 48, 39, 30, 21, 12> {};

/// The same MMU under a host with pages of 64 KiB: pages of 64 KiB and 16 MiB, 256 entries a table.
/// The device's hop 0 has 8 index bits, the engine's 7.
///
///     62   56 55     48 47     40 39     32 31     24 23     16 15         0
///    +-------+---------+---------+---------+---------+---------+------------+
///    | hop 0 |  hop 1  |  hop 2  |  hop 3  |  hop 4  |  hop 5  |   offset   |
///    +-------+---------+---------+---------+---------+---------+------------+
struct Gaudi2Host64k : GaudiTables<7, 56, 48, 40, 32, 24, 16> {};

/// Gaudi2's MMUs before its HBM, pages of 64 MiB and 1 GiB. Both addresses are scrambled ones: see
/// gaudi2_scramble.hpp. The device's hop 0 has 7 index bits, the engine's 6.
///
///     62   57 56     48 47     39 38     30 29  26 25         0
///    +-------+---------+---------+---------+------+------------+
///    | hop 0 |  hop 1  |  hop 2  |  hop 3  | hop 4|   offset   |
///    +-------+---------+---------+---------+------+------------+
struct Gaudi2Dram : GaudiTables<6, 57, 48, 39, 30, 26> {};

static_assert(PteFormat<Gaudi1> && Geometry<Gaudi1>::is_regular());
static_assert(PteFormat<Gaudi2Host4k> && Geometry<Gaudi2Host4k>::is_regular());
static_assert(PteFormat<Gaudi2Host64k> && Geometry<Gaudi2Host64k>::is_regular());
static_assert(PteFormat<Gaudi2Dram> && Geometry<Gaudi2Dram>::is_regular());
static_assert(Geometry<Gaudi1>::va_bits == 50);
static_assert(Geometry<Gaudi2Host4k>::va_bits == 63 && Geometry<Gaudi2Host64k>::va_bits == 63);
static_assert(Geometry<Gaudi2Dram>::va_bits == 63 && Gaudi2Dram::index_bits(4) == 4);
static_assert(Geometry<Gaudi1>::leaf_sizes() == ((4ULL << 10) | (2ULL << 20)));
static_assert(Geometry<Gaudi2Host4k>::leaf_sizes() == ((4ULL << 10) | (2ULL << 20)));
static_assert(Geometry<Gaudi2Host64k>::leaf_sizes() == ((64ULL << 10) | (16ULL << 20)));
static_assert(Geometry<Gaudi2Dram>::leaf_sizes() == ((64ULL << 20) | (1ULL << 30)));

}  // namespace accelmm::mmu
