// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>

// A second opinion on Gaudi2's PMMU on hosts with pages of 64 KiB, written from the description only.
//
//   hop             0      1      2      3      4      5
//   address bits  63-56  55-48  47-40  39-32  31-24  23-16
//
// Each hop uses 256 entries, the first half of a table of 4 KiB. An entry is 8 bytes,
// little-endian: bit 0 present, bit 11 ends the walk (in hop 4, 16 MiB, and in hop 5, 64 KiB, where
// it must be set), bits 12-63 the address of the next table, bits 16-63 that of the page. No
// permissions. All other bits are zero.

namespace naive_gaudi2_pmmu_64k {

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
  std::uint64_t covered = 0x100'0000'0000'0000;  // by one entry of the hop
  for (int hop = 0; hop < 6; ++hop, covered /= 256) {
    const std::uint64_t entry = read(table + address / covered % 256 * 8, 8);
    const bool present = (entry & 1) != 0;
    const bool last = (entry & 0x800) != 0;
    if (!present || (entry & 0x7fe) != 0) return std::nullopt;
    if (!last) {
      table = entry & 0xffff'ffff'ffff'f000;
      continue;
    }
    if (hop < 4) return std::nullopt;
    const std::uint64_t page = entry - 0x801;
    if (page % covered != 0) return std::nullopt;
    return Translation{page + address % covered, covered, true, true};
  }
  return std::nullopt;
}

}  // namespace naive_gaudi2_pmmu_64k
