// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/fragmentation.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <span>
#include <vector>

namespace accelmm::replay {

/// What is live in a pool, as the replay itself knows it: no allocator is asked.
class Places {
 public:
  explicit Places(ByteCount pool) : bytes_(pool.value()) {}

  /// Returns whether the place was inside the pool and nothing of it was live.
  [[nodiscard]] bool add(std::uint64_t begin, std::uint64_t bytes) {
    if (begin > bytes_ || bytes > bytes_ - begin) return false;
    const auto next = ends_.upper_bound(begin);
    if (next != ends_.end() && next->first < begin + bytes) return false;
    if (next != ends_.begin() && std::prev(next)->second > begin) return false;
    ends_.emplace_hint(next, begin, begin + bytes);
    live_ += bytes;
    return true;
  }
  /// Removes a place, or a part of one. Returns whether all of it was live.
  [[nodiscard]] bool remove(std::uint64_t begin, std::uint64_t bytes) {
    auto at = ends_.upper_bound(begin);
    if (at == ends_.begin()) return false;
    --at;
    const std::uint64_t end = at->second;
    if (end < begin + bytes) return false;
    if (at->first == begin)
      ends_.erase(at);
    else
      at->second = begin;
    if (end > begin + bytes) ends_.emplace(begin + bytes, end);
    live_ -= bytes;
    return true;
  }
  [[nodiscard]] std::uint64_t live() const { return live_; }
  [[nodiscard]] double occupancy() const {
    return static_cast<double>(live_) / static_cast<double>(bytes_);
  }

  /// How the free pages lie. A page that something live touches is not free.
  /// Cost  one bit for each page of the pool.
  [[nodiscard]] Fragmentation fragmentation() {
    constexpr unsigned page_log2 = 12;
    const std::uint64_t pages = bytes_ >> page_log2;
    free_.assign((pages + 63) / 64, ~std::uint64_t{0});
    if (pages % 64 != 0) free_.back() = (std::uint64_t{1} << pages % 64) - 1;
    for (const auto& [begin, end] : ends_)
      clear(begin >> page_log2, std::min(pages, ((end - 1) >> page_log2) + 1));
    return fragmentation_of(free_, pages, ByteCount(std::uint64_t{1} << page_log2));
  }

 private:
  void clear(std::uint64_t page, std::uint64_t end) {
    while (page < end) {
      const std::uint64_t count = std::min(end - page, 64 - page % 64);
      free_[page / 64] &= ~((~std::uint64_t{0} >> (64 - count)) << page % 64);
      page += count;
    }
  }
  std::uint64_t bytes_;
  std::uint64_t live_ = 0;
  std::map<std::uint64_t, std::uint64_t> ends_;
  std::vector<std::uint64_t> free_;
};

}  // namespace accelmm::replay
