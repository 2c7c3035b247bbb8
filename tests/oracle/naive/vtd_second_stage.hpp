// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>

// A second opinion on the second stage of Intel's VT-d with 3, 4 or 5 levels, written from the
// description only. Addresses have 39, 48 or 57 bits and are not sign-extended.
//
//   level           5      4      3      2      1
//   address bits  56-48  47-39  38-30  29-21  20-12
//
// An entry is 8 bytes, little-endian: bit 0 readable, bit 1 writable, and present where one of both
// is set; what is allowed must be so on the whole way. Bit 7 ends the walk at level 3 (1 GiB) and 2
// (2 MiB) and is reserved above; bits 12-51 are the address, reserved below a large page's size.

namespace naive_vtd_second_stage {

struct Translation {
  std::uint64_t bus_address;
  std::uint64_t leaf_size;
  bool readable;
  bool writable;
};

/// `read(address, bytes)` gives an entry.
template <class Read>
std::optional<Translation> translate(const Read& read, std::uint64_t root, std::uint64_t address,
                                     int levels) {
  static constexpr int shifts[] = {12, 21, 30, 39, 48};
  if (address >> (shifts[levels - 1] + 9) != 0) return std::nullopt;
  std::uint64_t allowed = 3;
  std::uint64_t table = root;
  for (int level = levels; level > 0; --level) {
    const int shift = shifts[level - 1];
    const std::uint64_t entry = read(table + (address >> shift) % 512 * 8, 8);
    if ((entry & 3) == 0) return std::nullopt;
    allowed &= entry;
    const std::uint64_t where = entry & 0x000f'ffff'ffff'f000;
    switch (level) {
      case 5:
      case 4:
        if ((entry & 0x80) != 0) return std::nullopt;
        table = where;
        continue;
      case 3:
      case 2:
        if ((entry & 0x80) != 0) break;
        table = where;
        continue;
      default:
        break;
    }
    const std::uint64_t size = 1ULL << shift;
    if (allowed == 0 || where % size != 0) return std::nullopt;
    return Translation{where + address % size, size, (allowed & 1) != 0, (allowed & 2) != 0};
  }
  return std::nullopt;
}

}  // namespace naive_vtd_second_stage
