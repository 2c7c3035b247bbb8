// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/mmu/format.hpp>

#include <array>
#include <cstdint>

namespace accelmm::mmu {

/// NPU1: the 5-hop geometry of Gaudi's MMU (v1.1), with permissions.
///
/// A device address has 50 bits; each index picks an entry of 8 bytes in a table of 4096 bytes (hop
/// 0 uses only the first 4 entries of its table):
///
///     49 48 47     39 38     30 29     21 20     12 11         0
///    +-----+---------+---------+---------+---------+------------+
///    |hop 0|  hop 1  |  hop 2  |  hop 3  |  hop 4  |   offset   |
///    +-----+---------+---------+---------+---------+------------+
///
/// An entry is 64 bits, little-endian. All zero is empty.
///
///     63                        12  11  10 .. 5   4     3   2..1    0
///    +----------------------------+----+-------+-----+------+---+-------+
///    |  bus address bits 63..12   |LAST|   0   |WRITE| READ | 0 |PRESENT|  leaf
///    +----------------------------+----+-------+-----+------+---+-------+
///    |  address of the next table |  0 |   0   |  0  |  0   | 0 |PRESENT|  link
///    +----------------------------+----+-------+-----+------+---+-------+
///
/// A leaf stands at hop 4 (4 KiB) or at hop 3 (2 MiB, address bits 20..12 zero); it always carries
/// LAST and at least one of READ and WRITE. PRESENT, LAST and the address mask are those of Gaudi;
/// READ and WRITE are ours, in bits that Gaudi leaves zero.
struct Npu1 : FormatDefaults {
  static constexpr unsigned hops = 5;
  static constexpr unsigned bus_bits = 64;

  static constexpr std::uint64_t present = std::uint64_t{1} << 0;
  static constexpr std::uint64_t read = std::uint64_t{1} << 3;
  static constexpr std::uint64_t write = std::uint64_t{1} << 4;
  static constexpr std::uint64_t last = std::uint64_t{1} << 11;
  static constexpr std::uint64_t flags = 0xFFF;
  static constexpr std::uint64_t address = ~flags;

  [[nodiscard]] static constexpr unsigned shift(unsigned hop) {
    constexpr std::array<unsigned, hops> shifts{48, 39, 30, 21, 12};
    return shifts[hop];
  }
  [[nodiscard]] static constexpr unsigned index_bits(unsigned hop) { return hop == 0 ? 2 : 9; }
  [[nodiscard]] static constexpr std::uint64_t leaf_sizes(unsigned hop) {
    return hop >= 3 ? std::uint64_t{1} << shift(hop) : 0;
  }

  [[nodiscard]] static constexpr EntryKind classify(unsigned hop, std::uint64_t entry) {
    if (entry == 0) return EntryKind::empty;
    const std::uint64_t bits = entry & flags;
    if (bits == present) return hop + 1 < hops ? EntryKind::table : EntryKind::malformed;
    const std::uint64_t permissions = bits & (read | write);
    const bool aligned = (entry & address & ((std::uint64_t{1} << shift(hop)) - 1)) == 0;
    if (bits != (present | last | permissions) || permissions == 0 || !aligned || hop < 3)
      return EntryKind::malformed;
    return EntryKind::leaf;
  }

  /// Errors  invalid_argument: not one of Access's values.
  ///         not_supported: memory that is not ordinary.
  [[nodiscard]] static constexpr Result<std::uint64_t> leaf_bits(Attributes wanted) {
    if (!is_valid(wanted.access)) return fail(Errc::invalid_argument, "no such access");
    if (wanted.memory != MemoryType::write_back)
      return fail(Errc::not_supported, "format has no memory types");
    return present | last | (allows(wanted.access, Access::read) ? read : 0) |
           (allows(wanted.access, Access::write) ? write : 0);
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
  [[nodiscard]] static constexpr Attributes attributes(unsigned /*hop*/, std::uint64_t entry) {
    return static_cast<Access>(((entry & read) != 0 ? 1U : 0U) | ((entry & write) != 0 ? 2U : 0U));
  }
};

static_assert(PteFormat<Npu1>);
static_assert(Geometry<Npu1>::is_regular());
static_assert(Geometry<Npu1>::va_bits == 50);
static_assert(Geometry<Npu1>::leaf_sizes() == ((4ULL << 10) | (2ULL << 20)));
static_assert((Npu1::present | Npu1::read | Npu1::write | Npu1::last) == 0x819);
static_assert((Npu1::flags & Npu1::address) == 0 && (Npu1::flags | Npu1::address) == ~0ULL);

}  // namespace accelmm::mmu
