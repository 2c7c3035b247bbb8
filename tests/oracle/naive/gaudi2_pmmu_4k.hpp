// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>

// A second opinion on Gaudi2's PMMU on hosts with pages of 4 KiB, written from the description only.
//
//   hop             0      1      2      3      4      5
//   address bits  63-57  56-48  47-39  38-30  29-21  20-12
//
// An entry is 8 bytes, little-endian: bit 0 present, bit 11 ends the walk (in hop 4, 2 MiB, and in
// hop 5, 4 KiB, where it must be set), bits 12-63 the address of the next table or of the page. No
// permissions. All other bits are zero.

namespace naive_gaudi2_pmmu_4k {

struct Translation {
  std::uint64_t bus_address;
  std::uint64_t leaf_size;
  bool readable;
  bool writable;
};

/// `read(address, bytes)` gives an entry.
template <class Read>
std::optional<Translation> translate(const Read& read, std::uint64_t root, std::uint64_t address) {
  std::uint64_t table = root;
  for (int hop = 0; hop < 6; ++hop) {
    std::uint64_t index = 0;
    switch (hop) {
      case 0:
        index = address >> 57;
        break;
      case 1:
        index = (address >> 48) % 512;
        break;
      case 2:
        index = (address >> 39) % 512;
        break;
      case 3:
        index = (address >> 30) % 512;
        break;
      case 4:
        index = (address >> 21) % 512;
        break;
      default:
        index = (address >> 12) % 512;
        break;
    }
    const std::uint64_t entry = read(table + 8 * index, 8);
    const std::uint64_t low = entry % 0x1000;
    const std::uint64_t high = entry - low;
    if (low == 0x001 && hop < 5) {
      table = high;
    } else if (low == 0x801 && hop == 5) {
      return Translation{high + address % 0x1000, 0x1000, true, true};
    } else if (low == 0x801 && hop == 4 && high % 0x20'0000 == 0) {
      return Translation{high + address % 0x20'0000, 0x20'0000, true, true};
    } else {
      return std::nullopt;
    }
  }
  return std::nullopt;
}

}  // namespace naive_gaudi2_pmmu_4k
