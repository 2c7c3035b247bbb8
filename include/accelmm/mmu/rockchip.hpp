// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/mmu/format.hpp>

#include <cstdint>

namespace accelmm::mmu {

/// What both versions of Rockchip's IOMMU have in common: 32 bits of device address, two hops of
/// 1024 entries of 32 bits, pages of 4 KiB. `high_bits` is how many address bits above the 32 lie in
/// bits 11..4 of an entry.
///
///     31       22 21       12 11         0
///    +-----------+-----------+------------+
///    |   hop 0   |   hop 1   |   offset   |
///    +-----------+-----------+------------+
///
///     31                       12 11       8 7        4   3     2    1     0
///    +---------------------------+----------+----------+-----+-----+----+-----+
///    |  page, bits 31..12        |bits 35:32|bits 39:36|  0  |WRITE|READ|VALID|  leaf
///    +---------------------------+----------+----------+-----+-----+----+-----+
///    |  table, bits 31..12       |bits 35:32|bits 39:36|  0  |  0  |  0 |VALID|  link
///    +---------------------------+----------+----------+-----+-----+----+-----+
///                                 (version 2; zero in version 1)
///
/// Version 1 has bits for caching in 8..3; left zero they mean what the system bus does by default,
/// and no memory type other than that is known.
/// Source  Linux drivers/iommu/rockchip-iommu.c. The patch that brought version 2 named READ and
///         WRITE the other way round; a later one corrected it.
template <unsigned high_bits>
struct RockchipTables : FormatDefaults {
  using Word = std::uint32_t;
  static constexpr unsigned hops = 2;
  static constexpr unsigned bus_bits = 32 + high_bits;
  static constexpr unsigned step_bits = 32;

  static constexpr std::uint32_t valid = 1U << 0;
  static constexpr std::uint32_t read = 1U << 1;
  static constexpr std::uint32_t write = 1U << 2;
  static constexpr std::uint32_t flags = high_bits == 0 ? 0xFFF : 0xF;

  [[nodiscard]] static constexpr unsigned shift(unsigned hop) { return hop == 0 ? 22 : 12; }
  [[nodiscard]] static constexpr unsigned index_bits(unsigned /*hop*/) { return 10; }
  [[nodiscard]] static constexpr std::uint64_t leaf_sizes(unsigned hop) {
    return hop == 1 ? std::uint64_t{1} << 12 : 0;
  }

  [[nodiscard]] static constexpr EntryKind classify(unsigned hop, std::uint32_t entry) {
    if (entry == 0) return EntryKind::empty;
    const std::uint32_t bits = entry & flags;
    if (hop == 0) return bits == valid ? EntryKind::table : EntryKind::malformed;
    const std::uint32_t permissions = bits & (read | write);
    return bits == (valid | permissions) && permissions != 0 ? EntryKind::leaf
                                                             : EntryKind::malformed;
  }

  /// Errors  invalid_argument: not one of Access's values.
  ///         not_supported: memory that is not ordinary.
  [[nodiscard]] static constexpr Result<std::uint32_t> leaf_bits(Attributes wanted) {
    if (!is_valid(wanted.access)) return fail(Errc::invalid_argument, "no such access");
    if (wanted.memory != MemoryType::write_back)
      return fail(Errc::not_supported, "format has no memory types");
    return valid | (allows(wanted.access, Access::read) ? read : 0) |
           (allows(wanted.access, Access::write) ? write : 0);
  }
  [[nodiscard]] static constexpr std::uint32_t make_leaf(unsigned /*hop*/, unsigned /*lg2*/,
                                                         BusAddr target, std::uint32_t bits) {
    return pack(target) | bits;
  }
  [[nodiscard]] static constexpr std::uint32_t make_link(unsigned /*hop*/, BusAddr table) {
    return pack(table) | valid;
  }
  [[nodiscard]] static constexpr unsigned leaf_lg2(unsigned /*hop*/, std::uint32_t /*entry*/) {
    return 12;
  }
  [[nodiscard]] static constexpr BusAddr leaf_address(unsigned /*hop*/, std::uint32_t entry) {
    return unpack(entry);
  }
  [[nodiscard]] static constexpr BusAddr link_address(unsigned /*hop*/, std::uint32_t entry) {
    return unpack(entry);
  }
  [[nodiscard]] static constexpr Attributes attributes(unsigned /*hop*/, std::uint32_t entry) {
    return static_cast<Access>(entry >> 1 & 3);
  }

 private:
  [[nodiscard]] static constexpr std::uint32_t pack(BusAddr address) {
    const std::uint64_t value = address.value();
    return static_cast<std::uint32_t>((value & 0xFFFF'F000) | (value >> 32 & 0xF) << 8 |
                                      (value >> 36 & 0xF) << 4);
  }
  [[nodiscard]] static constexpr BusAddr unpack(std::uint32_t entry) {
    const std::uint64_t low = entry & 0xFFFF'F000;
    if (high_bits == 0) return BusAddr(low);
    return BusAddr(low | std::uint64_t{entry >> 8 & 0xF} << 32 |
                   std::uint64_t{entry >> 4 & 0xF} << 36);
  }
};

/// The first version (RK3288 and its like): 32 bits of bus address.
struct RockchipV1 : RockchipTables<0> {};
/// The second version (RK3568, RK3588 and its NPU): 40 bits of bus address.
struct RockchipV2 : RockchipTables<8> {};

static_assert(PteFormat<RockchipV1> && Geometry<RockchipV1>::is_regular());
static_assert(PteFormat<RockchipV2> && Geometry<RockchipV2>::is_regular());
static_assert(Geometry<RockchipV1>::va_bits == 32 && Geometry<RockchipV2>::va_bits == 32);
static_assert(Geometry<RockchipV2>::leaf_sizes() == 4096);
static_assert(Geometry<RockchipV2>::table_bytes(0) == 4096);

}  // namespace accelmm::mmu
