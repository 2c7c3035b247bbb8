// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/mmu/format.hpp>

#include <cstdint>

namespace accelmm::mmu {

/// The second-stage tables of Intel's VT-d, of 3, 4 or 5 levels.
///
/// Each index has 9 bits, the page offset 12; addresses are extended with zeros. There is no present
/// bit: an entry that allows neither reading nor writing is none.
///
///     63 52 51          12  11  10   9    8    7   6 2   1    0
///    +-----+--------------+---+----+----+----+----+-----+----+----+
///    |  0  | page         | 0 | 0  | D  | A  | PS |  0  | W  | R  |  leaf; PS in one of 2 MiB, 1 GiB
///    +-----+--------------+---+----+----+----+----+-----+----+----+
///    |  0  | table        | 0 | 0  | 0  | A  | 0  |  0  | 1  | 1  |  link
///    +-----+--------------+---+----+----+----+----+-----+----+----+
///                          SNP
///
/// A and D are written by the device, and only where its PASID entry enables them. SNP stays
/// zero: it is reserved on devices without snoop control. Memory types do not exist here.
/// Source  VT-d specification sections 3.7 and 9.8; Linux drivers/iommu/generic_pt/fmt/vtdss.h.
template <unsigned levels>
  requires(levels >= 3 && levels <= 5)
struct VtdSecondStage : FormatDefaults {
  static constexpr unsigned hops = levels;
  static constexpr unsigned bus_bits = 52;
  static constexpr bool has_dirty = true;

  static constexpr std::uint64_t read = std::uint64_t{1} << 0;
  static constexpr std::uint64_t write = std::uint64_t{1} << 1;
  static constexpr std::uint64_t large = std::uint64_t{1} << 7;
  static constexpr std::uint64_t accessed = std::uint64_t{1} << 8;
  static constexpr std::uint64_t dirty_bit = std::uint64_t{1} << 9;
  static constexpr std::uint64_t address = 0x000F'FFFF'FFFF'F000;

  [[nodiscard]] static constexpr unsigned shift(unsigned hop) { return 12 + 9 * (hops - 1 - hop); }
  [[nodiscard]] static constexpr unsigned index_bits(unsigned /*hop*/) { return 9; }
  [[nodiscard]] static constexpr std::uint64_t leaf_sizes(unsigned hop) {
    return hop + 3 >= hops ? std::uint64_t{1} << shift(hop) : 0;
  }

  [[nodiscard]] static constexpr EntryKind classify(unsigned hop, std::uint64_t entry) {
    if (entry == 0) return EntryKind::empty;
    const std::uint64_t bits = entry & ~(address | accessed);
    if (hop + 1 < hops && bits == (read | write)) return EntryKind::table;
    const bool aligned = (entry & address & ((std::uint64_t{1} << shift(hop)) - 1)) == 0;
    if ((bits & ~(read | write | dirty_bit)) != size_bit(hop) || (bits & (read | write)) == 0 ||
        leaf_sizes(hop) == 0 || !aligned)
      return EntryKind::malformed;
    return EntryKind::leaf;
  }

  /// Errors  invalid_argument: not one of Access's values.
  ///         not_supported: memory that is not ordinary.
  [[nodiscard]] static constexpr Result<std::uint64_t> leaf_bits(Attributes wanted) {
    if (!is_valid(wanted.access)) return fail(Errc::invalid_argument, "no such access");
    if (wanted.memory != MemoryType::write_back)
      return fail(Errc::not_supported, "format has no memory types");
    return (allows(wanted.access, Access::read) ? read : 0) |
           (allows(wanted.access, Access::write) ? write : 0);
  }
  [[nodiscard]] static constexpr std::uint64_t make_leaf(unsigned hop, unsigned /*lg2*/,
                                                         BusAddr target, std::uint64_t bits) {
    return target.value() | bits | size_bit(hop);
  }
  [[nodiscard]] static constexpr std::uint64_t make_link(unsigned /*hop*/, BusAddr table) {
    return table.value() | read | write;
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
    return static_cast<Access>(entry & (read | write));
  }
  [[nodiscard]] static constexpr bool dirty(std::uint64_t leaf) { return (leaf & dirty_bit) != 0; }
  [[nodiscard]] static constexpr std::uint64_t clean(std::uint64_t leaf) {
    return leaf & ~dirty_bit;
  }
  [[nodiscard]] static constexpr std::uint64_t soil(std::uint64_t leaf) { return leaf | dirty_bit; }

 private:
  [[nodiscard]] static constexpr std::uint64_t size_bit(unsigned hop) {
    return hop + 1 < hops ? large : 0;
  }
};

static_assert(PteFormat<VtdSecondStage<3>> && Geometry<VtdSecondStage<3>>::is_regular());
static_assert(PteFormat<VtdSecondStage<4>> && Geometry<VtdSecondStage<4>>::is_regular());
static_assert(PteFormat<VtdSecondStage<5>> && Geometry<VtdSecondStage<5>>::is_regular());
static_assert(Geometry<VtdSecondStage<3>>::va_bits == 39);
static_assert(Geometry<VtdSecondStage<4>>::va_bits == 48);
static_assert(Geometry<VtdSecondStage<5>>::va_bits == 57);
static_assert(Geometry<VtdSecondStage<3>>::leaf_sizes() ==
              ((4ULL << 10) | (2ULL << 20) | (1ULL << 30)));

}  // namespace accelmm::mmu
