// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>

// A second opinion on stage 1 of AArch64 with a granule of 4, 16 or 64 KiB (shift 12, 14, 16) and
// addresses of at most 48 bits from 0, written from the description only.
//
// An entry is 8 bytes, little-endian, a table as large as the granule. Levels count to 3; a level's
// index has shift - 3 bits, the first's what is left. Bit 0 valid; bit 1 set: a table, at level 3
// the page; bit 1 clear: a block at level 2, with 4 KiB also at level 1, else reserved. Of a leaf:
// bit 6 for EL0, bit 7 read-only, bit 10 accessed (must be set), bit 52 part of a group that maps
// consecutive memory, aligned to the group's size. Of a table: bit 61 takes EL0's access, bit 62
// writing. Bits shift-47 are the address.
//
//   entries of a group   level 1   2    3
//             4 KiB          16   16   16
//            16 KiB           -   32  128
//            64 KiB           -   32   32

namespace naive_aarch64 {

enum class From { el1, el0 };

struct Translation {
  std::uint64_t bus_address;
  std::uint64_t leaf_size;  // the group's where the entry is part of one
  bool readable;
  bool writable;
};

/// `read(address, bytes)` gives an entry.
template <class Read>
std::optional<Translation> translate(const Read& read, std::uint64_t root, std::uint64_t address,
                                     unsigned granule_shift, unsigned address_bits, From from) {
  if (address >> address_bits != 0) return std::nullopt;
  const unsigned stride = granule_shift - 3;
  int level = 3;
  while (granule_shift + stride * static_cast<unsigned>(4 - level) < address_bits) --level;
  bool el0 = true;
  bool writable = true;
  for (std::uint64_t table = root;; ++level) {
    const unsigned shift = granule_shift + stride * static_cast<unsigned>(3 - level);
    const std::uint64_t entry = read(table + (address >> shift) % (1ULL << stride) * 8, 8);
    const std::uint64_t where = (entry & 0x0000'ffff'ffff'ffff) >> granule_shift << granule_shift;
    if ((entry & 1) == 0) return std::nullopt;
    if ((entry & 2) != 0 && level < 3) {
      if ((entry >> 61 & 1) != 0) el0 = false;
      if ((entry >> 62 & 1) != 0) writable = false;
      table = where;
      continue;
    }
    if ((entry & 2) == 0 && level != 2 && (level != 1 || granule_shift != 12)) return std::nullopt;
    const std::uint64_t size = 1ULL << shift;
    if (where % size != 0 || (entry >> 10 & 1) == 0) return std::nullopt;
    if ((entry >> 6 & 1) == 0) el0 = false;
    if ((entry >> 7 & 1) != 0) writable = false;
    if (from == From::el0 && !el0) return std::nullopt;
    std::uint64_t group = 1;
    if ((entry >> 52 & 1) != 0) group = granule_shift == 12 ? 16 : 32;
    if (group != 1 && granule_shift == 14 && level == 3) group = 128;
    if (where / size % group != address / size % group) return std::nullopt;
    return Translation{where + address % size, size * group, true, writable};
  }
}

}  // namespace naive_aarch64
