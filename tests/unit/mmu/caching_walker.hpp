// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <span>

namespace caching_npu1 {

/// A device's MMU that remembers all it may: leaves, tables of the last hop, and that an address is
/// not mapped. Nothing is looked at again before it is told to forget.
///
/// It knows NPU1 from the format's description only and shares no code with the library: see
/// naive_npu1_walker.hpp for the picture.
class Mmu {
 public:
  Mmu(std::span<const std::byte> tables, std::uint64_t bus_begin, std::uint64_t root)
      : tables_(tables), bus_begin_(bus_begin), root_(root) {}

  /// The bus address behind a device address, or nothing: a fault.
  std::optional<std::uint64_t> access(std::uint64_t va) {
    const std::uint64_t number = va / page_bytes;
    if (const auto known = pages_.find(number); known != pages_.end())
      return known->second == absent ? std::nullopt
                                     : std::optional(known->second + va % page_bytes);
    const std::uint64_t page = walk(va);
    pages_[number] = page;
    return page == absent ? std::nullopt : std::optional(page + va % page_bytes);
  }

  /// After a map: forgets only that addresses were not mapped, and the ways to them.
  void invalidate_soft(std::uint64_t begin, std::uint64_t end) {
    std::erase_if(pages_, [&](const auto& page) {
      return page.second == absent && is_within(page.first, page_bytes, begin, end);
    });
  }
  /// After an unmap: forgets everything of the range, and the tables on the way there.
  void invalidate(std::uint64_t begin, std::uint64_t end) {
    std::erase_if(pages_,
                  [&](const auto& page) { return is_within(page.first, page_bytes, begin, end); });
    std::erase_if(last_tables_, [&](const auto& table) {
      return is_within(table.first, table_span, begin, end);
    });
  }

 private:
  static constexpr std::uint64_t page_bytes = 0x1000;
  static constexpr std::uint64_t table_span = 0x20'0000;
  static constexpr std::uint64_t absent = ~std::uint64_t{0};

  static bool is_within(std::uint64_t number, std::uint64_t size, std::uint64_t begin,
                        std::uint64_t end) {
    return number * size < end && (number + 1) * size > begin;
  }
  [[nodiscard]] std::uint64_t read(std::uint64_t bus) const {
    if (bus < bus_begin_ || bus - bus_begin_ > tables_.size() - 8) return 0;
    std::uint64_t word = 0;
    std::memcpy(&word, tables_.data() + (bus - bus_begin_), sizeof word);
    return word;
  }

  // Where the page lies, or absent.
  std::uint64_t walk(std::uint64_t va) {
    const auto known = last_tables_.find(va / table_span);
    std::uint64_t table = known == last_tables_.end() ? root_ : known->second;
    for (unsigned hop = known == last_tables_.end() ? 0 : 4; hop < 5; ++hop) {
      const unsigned shift = hop == 0 ? 48 : 48 - 9 * hop;
      const std::uint64_t entry = read(table + (va >> shift) % (hop == 0 ? 4 : 512) * 8);
      const std::uint64_t target = entry - entry % 4096;
      if ((entry & 0x801) == 0x801) return target + (va % (std::uint64_t{1} << shift) & ~0xFFFULL);
      if ((entry & 1) == 0) return absent;
      table = target;
      if (hop == 3) last_tables_[va / table_span] = table;
    }
    return absent;
  }

  std::span<const std::byte> tables_;
  std::uint64_t bus_begin_;
  std::uint64_t root_;
  std::map<std::uint64_t, std::uint64_t> pages_;        // by number of the page
  std::map<std::uint64_t, std::uint64_t> last_tables_;  // by what they map
};

}  // namespace caching_npu1
