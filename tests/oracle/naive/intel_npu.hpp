// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>

// A second opinion on the page tables of Intel's NPU (a subset of stage 1 of Arm's SMMUv3), written
// from the description only. Addresses have 48 bits.
//
//   hop             0      1      2      3
//   address bits  47-39  38-30  29-21  20-12
//
// An entry is 8 bytes, little-endian: bits 0 and 1 are both set in links and in pages; what is
// unmapped has neither, and 0xdeadb000 for an address. Of a page: bit 2 coherent with the last
// level cache, bit 6 for the user (must be set), bit 7 read-only, bit 10 accessed (must be set), bit
// 11 not global, bit 52 one of 16 entries, aligned, that map 64 KiB of consecutive, aligned memory.
// Bits 12-47 are the address. A link has bits 0, 1 and the address only.

namespace naive_intel_npu {

struct Translation {
  std::uint64_t bus_address;
  std::uint64_t leaf_size;
  bool readable;
  bool writable;
};

/// `read(address, bytes)` gives an entry.
template <class Read>
std::optional<Translation> translate(const Read& read, std::uint64_t root, std::uint64_t address) {
  if (address >= 0x1'0000'0000'0000) return std::nullopt;
  std::uint64_t table = root;
  for (const int shift : {39, 30, 21}) {
    const std::uint64_t entry = read(table + (address >> shift) % 512 * 8, 8);
    if ((entry & 0xffff'0000'0000'0fff) != 3) return std::nullopt;
    table = entry - 3;
  }
  const std::uint64_t entry = read(table + (address >> 12) % 512 * 8, 8);
  if ((entry & 0xffef'0000'0000'0338) != 0) return std::nullopt;
  if ((entry & 0x443) != 0x443) return std::nullopt;
  const std::uint64_t page = entry & 0x0000'ffff'ffff'f000;
  const bool writable = (entry & 0x80) == 0;
  switch (entry >> 52 & 1) {
    case 0:
      return Translation{page + address % 4096, 4096, true, writable};
    default:
      if (page / 4096 % 16 != address / 4096 % 16) return std::nullopt;
      return Translation{page + address % 4096, 65536, true, writable};
  }
}

}  // namespace naive_intel_npu
