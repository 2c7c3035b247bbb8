// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace accelmm::mm {

/// One bit a page: set where the page is allocated. The truth about who may be freed.
///
/// Owns      nothing: the words belong to the caller.
/// Threads   externally synchronised.
/// Invariant the bits behind the last page are set, so that no run of free pages crosses the end.
/// Cost      one word for 64 pages.
class PageBits {
 public:
  static constexpr std::uint64_t none = ~std::uint64_t{0};

  [[nodiscard]] static constexpr std::uint64_t words_for(std::uint64_t pages) {
    return (pages + 63) / 64;
  }

  PageBits() = default;
  /// Pre: `words` points to words_for(pages) words. All pages become free.
  PageBits(std::uint64_t* words, std::uint64_t pages);

  [[nodiscard]] bool is_set(std::uint64_t page) const {
    return ((words_[page >> 6] >> (page & 63)) & 1) != 0;
  }
  void set(std::uint64_t page) { words_[page >> 6] |= std::uint64_t{1} << (page & 63); }
  void clear(std::uint64_t page) { words_[page >> 6] &= ~(std::uint64_t{1} << (page & 63)); }

  // Pre for all: begin < end <= pages.
  [[nodiscard]] bool all_set(std::uint64_t begin, std::uint64_t end) const;
  [[nodiscard]] bool none_set(std::uint64_t begin, std::uint64_t end) const;
  void set(std::uint64_t begin, std::uint64_t end);
  void clear(std::uint64_t begin, std::uint64_t end);

  /// The first page of the lowest run of `count` clear bits at a multiple of 2^align_order, or
  /// none. Pre: 1 <= count <= 64.
  [[nodiscard]] std::uint64_t find_clear_run(std::uint64_t count, unsigned align_order) const;

  /// The length of the longest run of clear bits.
  [[nodiscard]] std::uint64_t longest_clear_run() const;

  /// Checks the bits behind the end, and returns the number of clear bits.
  [[nodiscard]] std::uint64_t validate() const;

 private:
  std::uint64_t* words_ = nullptr;
  std::uint64_t pages_ = 0;
};

}  // namespace accelmm::mm
