// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>

// A second opinion on version 1 of Rockchip's IOMMU (RK3288, RK3399), written from the description
// only. Addresses have 32 bits: 31-22 index the directory, 21-12 a table; both have 1024 entries.
//
// An entry is 4 bytes, little-endian. Of the directory: bit 0 valid, bits 12-31 the table, the rest
// reserved. Of a table: bit 0 valid, bit 1 readable, bit 2 writable, bits 3-8 cache attributes,
// bits 9-11 reserved, bits 12-31 the page of 4 KiB.

namespace naive_rockchip_v1 {

struct Translation {
  std::uint64_t bus_address;
  std::uint64_t leaf_size;
  bool readable;
  bool writable;
};

/// `read(address, bytes)` gives an entry.
template <class Read>
std::optional<Translation> translate(const Read& read, std::uint64_t root, std::uint64_t address) {
  if (address > 0xffff'ffff) return std::nullopt;
  const std::uint64_t directory_entry = read(root + (address >> 22) * 4, 4);
  if ((directory_entry & 0xfff) != 1) return std::nullopt;
  const std::uint64_t table = directory_entry & 0xffff'f000;
  const std::uint64_t entry = read(table + (address >> 12 & 0x3ff) * 4, 4);
  if ((entry & 0xe00) != 0) return std::nullopt;
  const std::uint64_t bus_address = (entry & 0xffff'f000) + (address & 0xfff);
  switch (entry & 7) {
    case 3:
      return Translation{bus_address, 4096, true, false};
    case 5:
      return Translation{bus_address, 4096, false, true};
    case 7:
      return Translation{bus_address, 4096, true, true};
    default:
      return std::nullopt;
  }
}

}  // namespace naive_rockchip_v1
