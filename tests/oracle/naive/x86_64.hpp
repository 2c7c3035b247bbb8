// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>

// A second opinion on the x86-64 page tables with 4 or 5 levels, as a user-mode access sees them,
// written from the description only. Addresses are sign-extended from 48 or 57 bits.
//
//   level           5      4      3      2      1
//   address bits  56-48  47-39  38-30  29-21  20-12
//
// An entry is 8 bytes, little-endian: bit 0 present, bit 1 writable, bit 2 for user mode (both must
// be set on the whole way), bit 7 ends the walk at level 3 (1 GiB) and 2 (2 MiB) and is reserved
// above, bits 12-51 the address; below a large page's size they are reserved, but bit 12.

namespace naive_x86_64 {

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
  const std::uint64_t sign = address >> (levels == 5 ? 56 : 47);
  if (sign != 0 && sign != (levels == 5 ? 0xffU : 0x1'ffffU)) return std::nullopt;
  bool writable = true;
  std::uint64_t table = root;
  for (unsigned level = levels; level > 0; --level) {
    unsigned shift = 12;
    switch (level) {
      case 5:
        shift = 48;
        break;
      case 4:
        shift = 39;
        break;
      case 3:
        shift = 30;
        break;
      case 2:
        shift = 21;
        break;
      default:
        break;
    }
    const std::uint64_t entry = read(table + (address >> shift & 0x1ff) * 8, 8);
    if ((entry & 1) == 0 || (entry & 4) == 0) return std::nullopt;
    if ((entry & 2) == 0) writable = false;
    const bool large = (entry & 0x80) != 0 && level > 1;
    if (large && level > 3) return std::nullopt;
    const std::uint64_t where = entry & 0x000f'ffff'ffff'f000;
    if (!large && level > 1) {
      table = where;
      continue;
    }
    const std::uint64_t size = 1ULL << shift;
    const std::uint64_t page = large ? where & ~0x1000ULL : where;
    if (page % size != 0) return std::nullopt;
    return Translation{page + address % size, size, true, writable};
  }
  return std::nullopt;
}

}  // namespace naive_x86_64
