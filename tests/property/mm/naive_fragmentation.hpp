// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/check.hpp>
#include <accelmm/fragmentation.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <utility>
#include <vector>

namespace accelmm::test {

/// What Fragmentation says, from one byte a page (1: free) and by the definitions alone.
class NaiveFragmentation {
 public:
  NaiveFragmentation(const std::vector<std::uint8_t>& free, std::uint64_t page)
      : free_(free), page_(page), places_(places_of(free)) {}

  void judge(const Fragmentation& said) const {
    const std::uint64_t free_pages = count(0, free_.size());
    ACCELMM_CHECK(said.total() == ByteCount(free_.size() * page_));
    ACCELMM_CHECK(said.free() == ByteCount(free_pages * page_));
    ACCELMM_CHECK(said.largest_free() == ByteCount(longest() * page_));
    ACCELMM_CHECK(said.whole_chunks() == blocks_at(9));
    for (unsigned order = 0; order < Fragmentation::orders; ++order) {
      ACCELMM_CHECK(said.blocks(order) == maximal_blocks(order));
      const double usable = static_cast<double>(blocks_at(order) << order);
      const double external =
          free_pages == 0 ? 0.0 : 1.0 - usable / static_cast<double>(free_pages);
      ACCELMM_CHECK(std::abs(said.external(order) - external) < 1e-9);
    }
    for (std::uint64_t chunks = 0; chunks <= 5; ++chunks) judge_debt(said, chunks);
  }

 private:
  [[nodiscard]] std::uint64_t count(std::size_t begin, std::size_t end) const {
    return static_cast<std::uint64_t>(std::count(free_.begin() + static_cast<std::ptrdiff_t>(begin),
                                                 free_.begin() + static_cast<std::ptrdiff_t>(end),
                                                 1));
  }
  // For each order, which of its aligned places are free, part of a larger block or not.
  [[nodiscard]] static std::vector<std::vector<std::uint8_t>> places_of(
      const std::vector<std::uint8_t>& free) {
    std::vector<std::vector<std::uint8_t>> places{free};
    for (unsigned order = 1; order < Fragmentation::orders + 1; ++order) {
      const std::vector<std::uint8_t>& halves = places.back();
      std::vector<std::uint8_t> wholes(halves.size() / 2);
      for (std::size_t i = 0; i < wholes.size(); ++i) wholes[i] = halves[2 * i] & halves[2 * i + 1];
      places.push_back(std::move(wholes));
    }
    return places;
  }
  [[nodiscard]] std::uint64_t blocks_at(unsigned order) const {
    return static_cast<std::uint64_t>(std::ranges::count(places_[order], 1));
  }
  [[nodiscard]] std::uint64_t maximal_blocks(unsigned order) const {
    return blocks_at(order) - 2 * blocks_at(order + 1);
  }
  [[nodiscard]] std::uint64_t longest() const {
    std::uint64_t longest = 0;
    std::uint64_t run = 0;
    for (const std::uint8_t free : free_)
      longest = std::max(longest, run = free != 0 ? run + 1 : 0);
    return longest;
  }
  // The emptiest chunks that are not whole, and whether their pages fit into what is free elsewhere
  // without breaking a whole chunk.
  void judge_debt(const Fragmentation& said, std::uint64_t chunks) const {
    std::vector<std::uint64_t> allocated;  // of each full-sized chunk that is not whole
    std::uint64_t room = 0;
    for (std::size_t at = 0; at < free_.size(); at += 512) {
      const std::size_t end = std::min<std::size_t>(at + 512, free_.size());
      const std::uint64_t free = count(at, end);
      if (free == 512) continue;
      room += free;
      if (end - at == 512) allocated.push_back(512 - free);
    }
    std::ranges::sort(allocated);
    std::optional<ByteCount> debt = ByteCount(0);
    std::uint64_t moved = 0;
    for (std::uint64_t i = 0; i < chunks; ++i) {
      if (i == allocated.size()) return ACCELMM_CHECK(!said.compaction_debt(chunks));
      moved += allocated[i];
      room -= 512 - allocated[i];
    }
    if (moved > room) debt.reset();
    if (debt) debt = ByteCount(moved * page_);
    ACCELMM_CHECK(said.compaction_debt(chunks) == debt);
  }

  const std::vector<std::uint8_t>& free_;
  std::uint64_t page_;
  std::vector<std::vector<std::uint8_t>> places_;
};

}  // namespace accelmm::test
