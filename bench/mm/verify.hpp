// SPDX-License-Identifier: Apache-2.0
//
// What the benchmarks themselves know of the memory that is live. Nothing here asks an allocator.
#pragma once

#include "series.hpp"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace accelmm::bench {

/// A half-open range of addresses or offsets.
struct Interval {
  std::uint64_t begin;
  std::uint64_t end;
};

/// Whether no two intervals share a byte.
[[nodiscard]] inline bool disjoint(std::vector<Interval> intervals) {
  std::ranges::sort(intervals, {}, &Interval::begin);
  for (std::size_t i = 1; i < intervals.size(); ++i)
    if (intervals[i].begin < intervals[i - 1].end) return false;
  return true;
}

/// One bit for each 4 KiB page of a region, set where something is live.
class PageMap {
 public:
  explicit PageMap(std::uint64_t region_bytes) : words_(region_bytes / bytes_per_word) {}

  void clear() { std::ranges::fill(words_, 0); }

  /// Returns false if a page of it is outside the region or live already.
  [[nodiscard]] bool add(Interval live) {
    const std::uint64_t end = (live.end + page_bytes - 1) / page_bytes;
    if (live.begin >= live.end || end > words_.size() * 64) return false;
    bool free = true;
    for (std::uint64_t page = live.begin / page_bytes; page < end;) {
      const std::uint64_t count = std::min(end - page, 64 - page % 64);
      const std::uint64_t mask = (~std::uint64_t{0} >> (64 - count)) << (page % 64);
      std::uint64_t& word = words_[page / 64];
      free = free && (word & mask) == 0;
      word |= mask;
      page += count;
    }
    return free;
  }

  [[nodiscard]] std::uint64_t whole_free_chunks() const {
    std::uint64_t whole = 0;
    for (std::size_t i = 0; i + words_per_chunk <= words_.size(); i += words_per_chunk)
      whole += std::all_of(&words_[i], &words_[i] + words_per_chunk,
                           [](std::uint64_t word) { return word == 0; });
    return whole;
  }
  [[nodiscard]] std::uint64_t pages() const { return words_.size() * 64; }
  [[nodiscard]] std::uint64_t free_pages() const {
    std::uint64_t used = 0;
    for (const std::uint64_t word : words_) used += static_cast<unsigned>(std::popcount(word));
    return pages() - used;
  }
  [[nodiscard]] std::uint64_t longest_free_run() const {
    std::uint64_t longest = 0;
    std::uint64_t run = 0;
    for (const std::uint64_t word : words_) {
      if (word == 0) {
        run += 64;
        continue;
      }
      longest = std::max(longest, run + static_cast<unsigned>(std::countr_zero(word)));
      // Inside a word: how often the free bits can be and-ed with their neighbours.
      unsigned inside = 0;
      for (std::uint64_t free = ~word; free != 0; free &= free << 1) ++inside;
      longest = std::max<std::uint64_t>(longest, inside);
      run = static_cast<unsigned>(std::countl_zero(word));
    }
    return std::max(longest, run);
  }
  [[nodiscard]] Look look() const {
    const auto free = static_cast<double>(free_pages());
    const auto whole = static_cast<double>(whole_free_chunks() * words_per_chunk * 64);
    const auto longest = static_cast<double>(longest_free_run());
    return {.occupancy = 100.0 * (1.0 - free / static_cast<double>(pages())),
            .fragmentation = free > 0 ? 100.0 * (1.0 - whole / free) : 0.0,
            .scattered = free > 0 ? 100.0 * (1.0 - longest / free) : 0.0};
  }

 private:
  static constexpr std::uint64_t page_bytes = 4096;
  static constexpr std::uint64_t bytes_per_word = 64 * page_bytes;
  static constexpr std::size_t words_per_chunk = 8;  // 512 pages: 2 MiB
  std::vector<std::uint64_t> words_;
};

}  // namespace accelmm::bench
