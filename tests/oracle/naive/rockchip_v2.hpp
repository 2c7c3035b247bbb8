// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>

// A second opinion on version 2 of Rockchip's IOMMU (RK356x, RK3588), written from the description
// only. Addresses have 32 bits: 31-22 index the directory, 21-12 a table; both have 1024 entries.
// Tables and pages lie below 2^40.
//
// An entry is 4 bytes, little-endian, in the directory and in tables: bit 0 valid, bits 12-31 the
// address bits 12-31, bits 8-11 the address bits 32-35, bits 4-7 the address bits 36-39. In tables
// bit 1 readable, bit 2 writable, bit 3 secure; these are reserved in the directory. A page has
// 4 KiB.

namespace naive_rockchip_v2 {

struct Translation {
  std::uint64_t bus_address;
  std::uint64_t leaf_size;
  bool readable;
  bool writable;
};

/// `read(address, bytes)` gives an entry.
template <class Read>
std::optional<Translation> translate(const Read& read, std::uint64_t root, std::uint64_t address) {
  if (address >> 32 != 0) return std::nullopt;
  std::uint64_t where = root;
  for (int step = 0; step < 2; ++step) {
    const std::uint64_t index = step == 0 ? address / 0x40'0000 : address / 0x1000 % 1024;
    const std::uint64_t entry = read(where + 4 * index, 4);
    if (entry % 2 == 0) return std::nullopt;
    where = entry / 0x1000 * 0x1000;
    where += entry / 0x100 % 16 * 0x1'0000'0000;
    where += entry / 0x10 % 16 * 0x10'0000'0000;
    const std::uint64_t flags = entry / 2 % 8;
    if (step == 0) {
      if (flags != 0) return std::nullopt;
      continue;
    }
    if (flags == 0 || flags > 3) return std::nullopt;
    return Translation{where + address % 0x1000, 0x1000, flags % 2 != 0, flags >= 2};
  }
  return std::nullopt;
}

}  // namespace naive_rockchip_v2
