// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>

// A second opinion on Gaudi2's HMMU, which maps the device's own memory, written from the
// description only.
//
// That memory lies in N (5 or 6) stacks and is handled in pages of N * 8 MiB, no power of two. The
// MMU works with pages of 64 MiB: an address in [0x1001'0000'0000'0000, 0x1002'0000'0000'0000) is
// scrambled before it is walked or stored. Page n of its low 48 bits begins at n * 64 MiB, the
// offset in it stays.
//
//   hop                        0      1      2      3      4
//   scrambled address bits   63-57  56-48  47-39  38-30  29-26
//
// An entry is 8 bytes, little-endian: bit 0 present, bit 11 ends the walk (in hop 3, 1 GiB or 16
// pages, and in hop 4, one page), bits 12-63 the next table or the scrambled address of the page.
// No permissions. All other bits are zero. Addresses and sizes answered are not scrambled.

namespace naive_gaudi2_hmmu {

struct Translation {
  std::uint64_t bus_address;
  std::uint64_t leaf_size;
  bool readable;
  bool writable;
};

inline bool is_scrambled(std::uint64_t address) {
  return address >> 48 == 0x1001;
}

inline std::uint64_t scramble(std::uint64_t address, unsigned stacks) {
  if (!is_scrambled(address)) return address;
  const std::uint64_t page_size = stacks * 0x80'0000ULL;
  const std::uint64_t low = address & 0xffff'ffff'ffff;
  return (address - low) | (low / page_size * 0x400'0000) | low % page_size;
}

inline std::uint64_t descramble(std::uint64_t scrambled, unsigned stacks) {
  if (!is_scrambled(scrambled)) return scrambled;
  const std::uint64_t low = scrambled & 0xffff'ffff'ffff;
  return scrambled - low + low / 0x400'0000 * (stacks * 0x80'0000ULL) + low % 0x400'0000;
}

/// `read(address, bytes)` gives an entry.
template <class Read>
std::optional<Translation> translate(const Read& read, std::uint64_t root, std::uint64_t address,
                                     unsigned stacks) {
  const std::uint64_t walked = scramble(address, stacks);
  const std::uint64_t index[5] = {walked >> 57, walked >> 48 & 0x1ff, walked >> 39 & 0x1ff,
                                  walked >> 30 & 0x1ff, walked >> 26 & 0xf};
  std::uint64_t table = root;
  for (int hop = 0; hop < 5; ++hop) {
    const std::uint64_t entry = read(table + index[hop] * 8, 8);
    const std::uint64_t where = entry & ~0xfffULL;
    if ((entry & 0xfff) == 1 && hop < 4) {
      table = where;
      continue;
    }
    const std::uint64_t span = hop == 4 ? 0x400'0000 : 0x4000'0000;
    if ((entry & 0xfff) != 0x801 || hop < 3 || where % span != 0) return std::nullopt;
    const std::uint64_t pages = span / 0x400'0000;
    const std::uint64_t page_size = is_scrambled(address) ? stacks * 0x80'0000ULL : 0x400'0000;
    return Translation{descramble(where + walked % span, stacks), pages * page_size, true, true};
  }
  return std::nullopt;
}

}  // namespace naive_gaudi2_hmmu
