// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>

// A second opinion on version 1 of the AMD IOMMU's host tables with 1 to 6 levels (the mode),
// written from the description only. Addresses are not sign-extended.
//
//   level           6      5      4      3      2      1
//   address bits  63-57  56-48  47-39  38-30  29-21  20-12
//
// An entry is 8 bytes, little-endian: bit 0 present, bits 9-11 the next level, bits 12-51 the
// address, bit 61 readable, bit 62 writable (both must be set on the whole way). Next level 0 is a
// page of the level's size, not 512 GiB (which hardware gets wrong) and not at level 6. Next level
// 7 is a page of a larger power of two: address bits 12 to n-2 are ones and bit n-1 is zero for 2^n
// bytes; all entries that it covers are the same. Levels are not skipped.

namespace naive_amd_iommu_v1 {

struct Translation {
  std::uint64_t bus_address;
  std::uint64_t leaf_size;
  bool readable;
  bool writable;
};

/// `read(address, bytes)` gives an entry.
template <class Read>
std::optional<Translation> translate(const Read& read, std::uint64_t root, std::uint64_t address,
                                     unsigned levels) {
  if (levels < 6 && address >> (12 + 9 * levels) != 0) return std::nullopt;
  bool readable = true;
  bool writable = true;
  std::uint64_t table = root;
  for (unsigned level = levels; level > 0; --level) {
    const unsigned shift = 3 + 9 * level;
    const std::uint64_t entry = read(table + (address >> shift & 0x1ff) * 8, 8);
    if ((entry & 1) == 0) return std::nullopt;
    if ((entry >> 61 & 1) == 0) readable = false;
    if ((entry >> 62 & 1) == 0) writable = false;
    const std::uint64_t where = entry & 0x000f'ffff'ffff'f000;
    const std::uint64_t next = entry >> 9 & 7;
    std::uint64_t size = 1ULL << shift;
    std::uint64_t page = where;
    switch (next) {
      case 0:
        break;
      case 7:
        size = 0x2000;
        for (std::uint64_t bit = 0x1000; (where & bit) != 0; bit *= 2, size *= 2) page -= bit;
        if (size <= 1ULL << shift || size >= 1ULL << (shift + 9)) return std::nullopt;
        break;
      default:
        if (next != level - 1) return std::nullopt;
        table = where;
        continue;
    }
    if (level == 6 || size == 1ULL << 39 || page % size != 0) return std::nullopt;
    if (!readable && !writable) return std::nullopt;
    return Translation{page + address % size, size, readable, writable};
  }
  return std::nullopt;
}

}  // namespace naive_amd_iommu_v1
