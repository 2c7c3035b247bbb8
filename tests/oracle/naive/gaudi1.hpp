// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>

// A second opinion on Gaudi's MMU v1.1, written from the description below only.
//
//   hop             0      1      2      3      4
//   address bits  49-48  47-39  38-30  29-21  20-12
//
// An entry is 8 bytes, little-endian: bit 0 present, bit 11 ends the walk (in hop 3, 2 MiB, and in
// hop 4, 4 KiB, where it must be set), bits 12-63 the address of the next table or of the page. No
// permissions: what is mapped can be read and written. All other bits are zero; bit 2, swapped
// out, is never set in a table that a device may walk.

namespace naive_gaudi1 {

struct Translation {
  std::uint64_t bus_address;
  std::uint64_t leaf_size;
  bool readable;
  bool writable;
};

/// `read(address, bytes)` gives an entry.
template <class Read>
std::optional<Translation> translate(const Read& read, std::uint64_t root, std::uint64_t address) {
  if (address >= 1ULL << 50) return std::nullopt;
  const std::uint64_t index[5] = {
      address >> 48,         address >> 39 & 0x1ff, address >> 30 & 0x1ff,
      address >> 21 & 0x1ff, address >> 12 & 0x1ff,
  };
  std::uint64_t table = root;
  for (int hop = 0; hop < 5; ++hop) {
    const std::uint64_t entry = read(table + index[hop] * 8, 8);
    const std::uint64_t where = entry & ~0xfffULL;
    switch (entry & 0xfff) {
      case 0x001:
        if (hop == 4) return std::nullopt;
        table = where;
        break;
      case 0x801: {
        if (hop < 3) return std::nullopt;
        const std::uint64_t size = hop == 3 ? 0x20'0000 : 0x1000;
        if (where % size != 0) return std::nullopt;
        return Translation{where + address % size, size, true, true};
      }
      default:
        return std::nullopt;
    }
  }
  return std::nullopt;
}

}  // namespace naive_gaudi1
