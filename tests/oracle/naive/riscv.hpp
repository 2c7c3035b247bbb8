// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>

// A second opinion on RISC-V's Sv39, Sv48 and Sv57 (3, 4, 5 levels) with Svnapot, as a user-mode
// access sees them that does not set the accessed and dirty bits itself, written from the
// description only. Addresses are sign-extended from 39, 48 or 57 bits.
//
// An entry is 8 bytes, little-endian: bit 0 valid; bits 1, 2, 3 readable, writable, executable, all
// clear in a link; writable without readable is reserved. Of a leaf, which may stand at any level:
// bit 4 for user mode, 6 accessed, 7 dirty (without it no write), 61-62 memory type (3 reserved),
// 63 part of a naturally aligned group. These bits are zero in a link. Bits 10-53 are the address
// shifted right by 2, aligned to the leaf's size; of a group its low 4 bits are 1000b, and say that
// the group has 64 KiB, at the last level only; all its entries are the same. Bits 54-60 are zero.

namespace naive_riscv {

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
  const std::uint64_t half = 1ULL << (11 + 9 * levels);
  if (address >= half && address < 0 - half) return std::nullopt;
  std::uint64_t table = root;
  std::uint64_t size = 0x1000;
  for (unsigned level = 1; level < levels; ++level) size *= 512;
  for (; size >= 0x1000; size /= 512) {
    const std::uint64_t entry = read(table + address / size % 512 * 8, 8);
    const std::uint64_t page = entry >> 10 & 0xfff'ffff'ffff;
    const bool group = entry >> 63 != 0;
    if ((entry & 1) == 0 || (entry >> 54 & 0x7f) != 0) return std::nullopt;
    switch (entry >> 1 & 7) {
      case 0:  // a link
        if ((entry & 0xd0) != 0 || entry >> 54 != 0) return std::nullopt;
        table = page << 12;
        continue;
      case 2:
      case 6:
        return std::nullopt;
      default:
        break;
    }
    if ((entry & 0x50) != 0x50 || (entry >> 61 & 3) == 3) return std::nullopt;
    const bool readable = (entry & 2) != 0;
    const bool writable = (entry & 4) != 0 && (entry & 0x80) != 0;
    if (!readable && !writable) return std::nullopt;
    if (group) {
      if (size != 0x1000 || page % 16 != 8) return std::nullopt;
      return Translation{((page - 8) << 12) + address % 0x1'0000, 0x1'0000, readable, writable};
    }
    if ((page << 12) % size != 0) return std::nullopt;
    return Translation{(page << 12) + address % size, size, readable, writable};
  }
  return std::nullopt;
}

}  // namespace naive_riscv
