// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "mmu/store_loop.hpp"

#include <array>
#include <cstdint>
#include <unordered_map>
#include <vector>

namespace accelmm::bench {

/// How Linux's habanalabs driver maps: a page at a time, each from hop 0 down, with a look-up of each
/// table's record by its address in a hash table, a count of entries in each record, and tables that
/// are freed when their count is zero. Five hops of 4 KiB tables, as Gaudi's.
///
/// No lock, no check of the arguments, and its tables come zeroed from a list: that favours it.
class HabanalabsWalk {
 public:
  explicit HabanalabsWalk(std::size_t tables) : memory_(zeroed(tables * 4096 + (2 << 20))) {
    records_.reserve(tables);
    free_.reserve(tables);
    const auto first = reinterpret_cast<std::uint64_t>(memory_.get());
    for (std::size_t i = tables; i > 0; --i) free_.push_back(first + (i - 1) * 4096);
    root_ = take();
  }

  [[nodiscard]] bool map(std::uint64_t va, std::uint64_t bus, std::uint64_t length) {
    for (std::uint64_t at = 0; at < length; at += 4096)
      if (!map_page(va + at, bus + at)) return false;
    return true;
  }
  [[nodiscard]] bool unmap(std::uint64_t va, std::uint64_t length) {
    for (std::uint64_t at = 0; at < length; at += 4096)
      if (!unmap_page(va + at)) return false;
    return true;
  }

 private:
  struct Record {
    std::uint64_t address;
    std::uint32_t entries;
  };
  static constexpr std::array<unsigned, 5> shifts{48, 39, 30, 21, 12};

  [[nodiscard]] static std::uint64_t* entry_at(std::uint64_t table, unsigned hop,
                                               std::uint64_t va) {
    return reinterpret_cast<std::uint64_t*>(table) + (va >> shifts[hop] & 511);
  }
  [[nodiscard]] std::uint64_t take() {
    const std::uint64_t table = free_.back();
    free_.pop_back();
    records_[table] = {table, 0};
    return table;
  }

  [[nodiscard]] bool map_page(std::uint64_t va, std::uint64_t bus) {
    std::uint64_t table = root_;
    for (unsigned hop = 0; hop < 4; ++hop) {
      std::uint64_t* const entry = entry_at(table, hop, va);
      if ((*entry & 1) == 0) {
        if (free_.empty()) return false;
        *entry = take() | 1;
        ++records_.find(table)->second.entries;
      }
      table = records_.find(*entry & ~std::uint64_t{0xFFF})->second.address;
    }
    std::uint64_t* const entry = entry_at(table, 4, va);
    if ((*entry & 1) != 0) return false;
    *entry = bus | 0x801;
    ++records_.find(table)->second.entries;
    return true;
  }

  [[nodiscard]] bool unmap_page(std::uint64_t va) {
    std::array<std::uint64_t, 5> tables{root_};
    for (unsigned hop = 0; hop < 4; ++hop) {
      const std::uint64_t entry = *entry_at(tables[hop], hop, va);
      if ((entry & 1) == 0) return false;
      tables[hop + 1] = records_.find(entry & ~std::uint64_t{0xFFF})->second.address;
    }
    for (unsigned hop = 5; hop > 0; --hop) {
      *entry_at(tables[hop - 1], hop - 1, va) = 0;
      const auto record = records_.find(tables[hop - 1]);
      if (--record->second.entries > 0 || hop == 1) return true;
      free_.push_back(record->first);
      records_.erase(record);
    }
    return true;
  }

  Memory memory_;
  std::unordered_map<std::uint64_t, Record> records_;
  std::vector<std::uint64_t> free_;
  std::uint64_t root_;
};

}  // namespace accelmm::bench
