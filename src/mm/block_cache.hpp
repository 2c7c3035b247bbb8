// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/check.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace accelmm::mm {

/// A stack of free blocks of one order, newest on top. Disabled, with room for none, until enable().
///
/// Owns      nothing but its numbers: up to `most` of them.
/// Threads   externally synchronised.
/// Pre       push: not full; pop: not empty.
class BlockCache {
 public:
  static constexpr std::size_t most = 64;  // eight cache lines, of which a hot pair uses one

  void enable(std::size_t limit) {
    ACCELMM_CHECK(limit <= most);
    limit_ = limit;
  }
  [[nodiscard]] bool full() const { return count_ == limit_; }
  [[nodiscard]] bool empty() const { return count_ == 0; }
  [[nodiscard]] std::span<const std::uint64_t> pages() const { return {pages_.data(), count_}; }

  void push(std::uint64_t first_page) {
    ACCELMM_DCHECK(!full());
    pages_[count_++] = first_page;
  }
  [[nodiscard]] std::uint64_t pop() {
    ACCELMM_DCHECK(!empty());
    return pages_[--count_];
  }

 private:
  std::size_t limit_ = 0;
  std::size_t count_ = 0;
  std::array<std::uint64_t, most> pages_{};
};

}  // namespace accelmm::mm
