// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

// A second opinion on NPU1, written from the format's description only: it shares no code and no
// constant with the library, and reads nothing but the bytes of the tables, as a device would.
//
//   hop             0      1      2      3      4
//   address bits  49-48  47-39  38-30  29-21  20-12
//
// An entry is 8 bytes, little-endian: bit 0 valid, bit 3 readable, bit 4 writable, bit 11 ends the
// walk (only in the last two hops), bits 12-63 the address of the next table or of the page; all
// other bits are zero.

namespace naive_npu1 {

enum class Verdict { nothing, page, corrupt };

struct Answer {
  Verdict verdict = Verdict::nothing;
  std::uint64_t bus = 0;
  std::uint64_t page_bytes = 0;
  bool readable = false;
  bool writable = false;
  bool operator==(const Answer&) const = default;
};

struct TableBytes {
  const std::byte* bytes;
  std::uint64_t bus_begin;
  std::uint64_t size;
};

// Device hardware reads an aligned entry at once: so does this, although the CPU may be writing it.
inline bool read_entry(const TableBytes& tables, std::uint64_t bus, std::uint64_t& entry) {
  if (bus % 8 != 0 || bus < tables.bus_begin || bus - tables.bus_begin > tables.size - 8)
    return false;
  const void* where = tables.bytes + (bus - tables.bus_begin);
  entry = __atomic_load_n(static_cast<const std::uint64_t*>(where), __ATOMIC_ACQUIRE);
  return true;
}

inline Answer walk(const TableBytes& tables, std::uint64_t root, std::uint64_t va) {
  if (va >= 1ULL << 50) return {};
  const unsigned index[5] = {
      static_cast<unsigned>(va / 0x1'0000'0000'0000),
      static_cast<unsigned>(va / 0x80'0000'0000 % 512),
      static_cast<unsigned>(va / 0x4000'0000 % 512),
      static_cast<unsigned>(va / 0x20'0000 % 512),
      static_cast<unsigned>(va / 0x1000 % 512),
  };
  std::uint64_t table = root;
  for (int hop = 0; hop < 5; ++hop) {
    std::uint64_t entry = 0;
    if (!read_entry(tables, table + index[hop] * 8, entry)) return {Verdict::corrupt};
    if (entry == 0) return {};
    const std::uint64_t low = entry % 4096;
    if (low == 1) {  // a link
      if (hop == 4) return {Verdict::corrupt};
      table = entry - low;
      continue;
    }
    const bool readable = (low & 0x008) != 0;
    const bool writable = (low & 0x010) != 0;
    if ((low & ~0x018ULL) != 0x801 || !(readable || writable)) return {Verdict::corrupt};
    if (hop < 3) return {Verdict::corrupt};
    const std::uint64_t page = hop == 3 ? 0x20'0000 : 0x1000;
    if ((entry - low) % page != 0) return {Verdict::corrupt};
    return {Verdict::page, entry - low + va % page, page, readable, writable};
  }
  return {Verdict::corrupt};
}

// Counts the bytes that can be reached, or nothing valid (corrupt) as ~0.
inline std::uint64_t reachable_bytes(const TableBytes& tables, std::uint64_t table, int hop = 0) {
  std::uint64_t sum = 0;
  for (unsigned i = 0; i < (hop == 0 ? 4U : 512U); ++i) {
    std::uint64_t entry = 0;
    if (!read_entry(tables, table + i * 8, entry)) return ~0ULL;
    if (entry == 0) continue;
    if (entry % 4096 == 1 && hop < 4) {
      const std::uint64_t below = reachable_bytes(tables, entry - 1, hop + 1);
      if (below == ~0ULL || below == 0) return ~0ULL;  // an empty table must not be linked
      sum += below;
    } else if (hop >= 3 && (entry & 0x801) == 0x801) {
      sum += hop == 3 ? 0x20'0000 : 0x1000;
    } else {
      return ~0ULL;
    }
  }
  return sum;
}

}  // namespace naive_npu1
