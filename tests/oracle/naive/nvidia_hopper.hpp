// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>

// A second opinion on the page tables of NVIDIA's Hopper (MMU VER3), as an unprivileged access sees
// them, written from the description only. Addresses have 57 bits.
//
//   hop            0    1      2      3      4      64 KiB   4 KiB
//   address bits   56  55-47  46-38  37-29  28-21   20-16   20-12
//
// An entry is 8 bytes, little-endian, of hop 4 it is 16. Bit 0 is set in pages (hop 3: 512 MiB, hop
// 4: 2 MiB, and the last tables) and clear in links. Of a link: bits 1-2 where the table is (0
// nowhere), bits 3-5 caching, bits 12-51 its address. The two words of a link of hop 4 lead to a
// table of 32 pages of 64 KiB, which has 256 bytes (its address has bits 8-51), and to one of 512
// pages of 4 KiB. The first answers unless its entry is all zero or is not there; then the second.
// Of a page: bits 1-2 where it is (0 this device's memory, address bits 12-39), bits 3-7 a set of
// {uncached, privileged, read-only, no atomics, no access counters}, bits 8-11 its kind, bits 12-51
// its address, bits 61-63 the peer (bits 1-2 are 1).

namespace naive_nvidia_hopper {

struct Translation {
  std::uint64_t bus_address;
  std::uint64_t leaf_size;
  bool readable;
  bool writable;
};

inline std::optional<Translation> page(std::uint64_t entry, std::uint64_t address,
                                       std::uint64_t size) {
  if ((entry & 1) == 0 || (entry >> 4 & 1) != 0) return std::nullopt;
  const std::uint64_t where = entry & 0x000f'ffff'ffff'f000;
  const bool in_this_device = (entry >> 1 & 3) == 0;
  if (where % size != 0 || (in_this_device && where >> 40 != 0)) return std::nullopt;
  return Translation{where + address % size, size, true, (entry >> 5 & 1) == 0};
}

/// `read(address, bytes)` gives 8 bytes of an entry.
template <class Read>
std::optional<Translation> translate(const Read& read, std::uint64_t root, std::uint64_t address) {
  if (address >> 57 != 0) return std::nullopt;
  std::uint64_t table = root;
  for (int hop = 0; hop < 4; ++hop) {
    static constexpr int low_bit[] = {56, 47, 38, 29};
    const std::uint64_t entry = read(table + (address >> low_bit[hop]) % 512 * 8, 8);
    if ((entry & 1) != 0) return hop == 3 ? page(entry, address, 1ULL << 29) : std::nullopt;
    if ((entry >> 1 & 3) == 0) return std::nullopt;
    table = entry & 0x000f'ffff'ffff'f000;
  }
  const std::uint64_t dual = table + (address >> 21) % 256 * 16;
  const std::uint64_t big = read(dual, 8);
  if ((big & 1) != 0) return page(big, address, 1ULL << 21);
  if ((big >> 1 & 3) != 0) {
    const std::uint64_t big_table = big & 0x000f'ffff'ffff'ff00;
    const std::uint64_t entry = read(big_table + (address >> 16) % 32 * 8, 8);
    if (entry != 0) return page(entry, address, 1ULL << 16);
  }
  const std::uint64_t small = read(dual + 8, 8);
  if ((small >> 1 & 3) == 0) return std::nullopt;
  const std::uint64_t small_table = small & 0x000f'ffff'ffff'f000;
  return page(read(small_table + (address >> 12) % 512 * 8, 8), address, 1ULL << 12);
}

}  // namespace naive_nvidia_hopper
