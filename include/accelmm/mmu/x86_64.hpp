// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/mmu/format.hpp>

#include <cstdint>

namespace accelmm::mmu {

/// What an entry of x86-64 tables says, at every hop.
///
///     63 52 51          12 11 9   8   7    6    5    4    3    2    1    0
///    +-----+--------------+-----+---+----+----+----+----+----+----+----+----+
///    |  0  | page         |  0  | 0 | 0  | D  | 1  |PCD |PWT | 1  | RW | P  |  leaf of 4 KiB
///    +-----+--------------+-----+---+----+----+----+----+----+----+----+----+
///    |  0  | large page   |  0  | 0 | PS | D  | 1  |PCD |PWT | 1  | RW | P  |  leaf of 2 MiB, 1 GiB
///    +-----+--------------+-----+---+----+----+----+----+----+----+----+----+
///    |  0  | table        |  0  | 0 | 0  | 0  | 1  | 0  | 0  | 1  | 1  | P  |  link
///    +-----+--------------+-----+---+----+----+----+----+----+----+----+----+
///                                 G   PS   D    A             U
///
/// A, and D where RW, are written by us, so that no walker has to write a table: a fresh leaf is
/// dirty until clean(). A read-only leaf may be dirty, from the time before it was protected; only
/// CPUs with shadow stacks see more in it. U is set because a device's requests count as a user's. XD stays zero: it is
/// reserved where its enable is off, and Access knows no execution. The memory types use entries 0, 1
/// and 3 of the PAT; so its index bit, which is bit 7 of a small leaf and 12 of a large one, stays
/// zero.
/// Source  Intel SDM vol. 3 section 4.5; Linux drivers/iommu/generic_pt/fmt/x86_64.h.
struct X86Entry : FormatDefaults {
  static constexpr unsigned bus_bits = 52;
  static constexpr bool has_dirty = true;

  static constexpr std::uint64_t present = std::uint64_t{1} << 0;
  static constexpr std::uint64_t writable = std::uint64_t{1} << 1;
  static constexpr std::uint64_t user = std::uint64_t{1} << 2;
  static constexpr std::uint64_t write_through = std::uint64_t{1} << 3;
  static constexpr std::uint64_t cache_disable = std::uint64_t{1} << 4;
  static constexpr std::uint64_t accessed = std::uint64_t{1} << 5;
  static constexpr std::uint64_t dirty_bit = std::uint64_t{1} << 6;
  static constexpr std::uint64_t large = std::uint64_t{1} << 7;
  static constexpr std::uint64_t address = 0x000F'FFFF'FFFF'F000;
  /// What the PAT must hold: write back, write combining, -, uncacheable (the order of Linux).
  static constexpr std::uint64_t pat = 0x0407'0506'0007'0106;

  /// Errors  invalid_argument: not one of Access's or MemoryType's values.
  ///         not_supported: memory to be written but not read.
  [[nodiscard]] static constexpr Result<std::uint64_t> leaf_bits(Attributes wanted) {
    if (!is_valid(wanted.access)) return fail(Errc::invalid_argument, "no such access");
    if (wanted.access == Access::write)
      return fail(Errc::not_supported, "format cannot forbid reading");
    const std::uint64_t bits = present | user | accessed |
                               (allows(wanted.access, Access::write) ? writable | dirty_bit : 0);
    switch (wanted.memory) {
      case MemoryType::write_back:
        return bits;
      case MemoryType::write_combined:
        return bits | write_through;
      case MemoryType::device:
        return bits | write_through | cache_disable;
    }
    return fail(Errc::invalid_argument, "no such memory type");
  }
  [[nodiscard]] static constexpr Attributes attributes(unsigned /*hop*/, std::uint64_t entry) {
    const Access access = (entry & writable) != 0 ? Access::read_write : Access::read;
    if ((entry & write_through) == 0) return access;
    return {access, (entry & cache_disable) != 0 ? MemoryType::device : MemoryType::write_combined};
  }
  [[nodiscard]] static constexpr bool dirty(std::uint64_t leaf) { return (leaf & dirty_bit) != 0; }
  [[nodiscard]] static constexpr std::uint64_t clean(std::uint64_t leaf) {
    return leaf & ~dirty_bit;
  }
  [[nodiscard]] static constexpr std::uint64_t soil(std::uint64_t leaf) { return leaf | dirty_bit; }
};

/// x86-64 tables of 4 or 5 levels: those of CPUs, of VT-d's first stage and of AMD's guest tables.
///
/// Each index has 9 bits, the page offset 12. Whoever walks the tables may extend the sign of an
/// address: then bit 47 (56) set means an address at the top of the 64 bits.
template <unsigned levels>
  requires(levels == 4 || levels == 5)
struct X86_64 : X86Entry {  // NOLINT(readability-identifier-naming): so the architecture is called
  static constexpr unsigned hops = levels;

  [[nodiscard]] static constexpr unsigned shift(unsigned hop) { return 12 + 9 * (hops - 1 - hop); }
  [[nodiscard]] static constexpr unsigned index_bits(unsigned /*hop*/) { return 9; }
  [[nodiscard]] static constexpr std::uint64_t leaf_sizes(unsigned hop) {
    return hop + 3 >= hops ? std::uint64_t{1} << shift(hop) : 0;
  }

  [[nodiscard]] static constexpr EntryKind classify(unsigned hop, std::uint64_t entry) {
    constexpr std::uint64_t always = present | user | accessed;
    constexpr std::uint64_t varies = writable | dirty_bit | write_through | cache_disable;
    if (entry == 0) return EntryKind::empty;
    const std::uint64_t bits = entry & ~address;
    if (hop + 1 < hops && bits == (always | writable)) return EntryKind::table;
    const bool aligned = (entry & address & ((std::uint64_t{1} << shift(hop)) - 1)) == 0;
    const bool disable_alone = (bits & (cache_disable | write_through)) == cache_disable;
    if ((bits & ~varies) != (always | size_bit(hop)) || leaf_sizes(hop) == 0 || !aligned ||
        disable_alone)
      return EntryKind::malformed;
    return EntryKind::leaf;
  }

  [[nodiscard]] static constexpr std::uint64_t make_leaf(unsigned hop, unsigned /*lg2*/,
                                                         BusAddr target, std::uint64_t bits) {
    return target.value() | bits | size_bit(hop);
  }
  [[nodiscard]] static constexpr std::uint64_t make_link(unsigned /*hop*/, BusAddr table) {
    return table.value() | present | writable | user | accessed;
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

 private:
  [[nodiscard]] static constexpr std::uint64_t size_bit(unsigned hop) {
    return hop + 1 < hops ? large : 0;
  }
};

static_assert(PteFormat<X86_64<4>> && Geometry<X86_64<4>>::is_regular());
static_assert(PteFormat<X86_64<5>> && Geometry<X86_64<5>>::is_regular());
static_assert(Geometry<X86_64<4>>::va_bits == 48 && Geometry<X86_64<5>>::va_bits == 57);
static_assert(Geometry<X86_64<5>>::leaf_sizes() == ((4ULL << 10) | (2ULL << 20) | (1ULL << 30)));

}  // namespace accelmm::mmu
