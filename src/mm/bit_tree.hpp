// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/check.hpp>

#include <array>
#include <bit>
#include <cstdint>

namespace accelmm::mm {

/// A set of integers [0, size) as a hierarchy of bitmaps: a bit of level k + 1 tells whether a word
/// of level k is non-zero, so that the lowest member is found by one load a level.
///
/// Owns      nothing: the words belong to the caller and must be zero at the start.
/// Threads   externally synchronised.
/// Invariant a summary bit is set exactly where its word is non-zero -> validate().
/// Cost      insert, erase, first, next O(levels), at most 6.
class BitTree {
 public:
  /// 64^6, so that six levels always do.
  static constexpr std::uint64_t max_size = std::uint64_t{1} << 36;
  static constexpr std::uint64_t none = ~std::uint64_t{0};

  /// How many words a tree of this size takes.
  [[nodiscard]] static constexpr std::uint64_t words_for(std::uint64_t size) {
    std::uint64_t total = 0;
    for (std::uint64_t words = words_of_bits(size);; words = words_of_bits(words)) {
      total += words;
      if (words <= 1) return total;
    }
  }

  BitTree() = default;
  /// Pre: 0 < size <= max_size; `words` points to words_for(size) zero words.
  BitTree(std::uint64_t* words, std::uint64_t size) : size_(size) {
    ACCELMM_CHECK(size > 0 && size <= max_size);
    for (std::uint64_t bits = size;; bits = words_of_bits(bits)) {
      words_[depth_] = words_of_bits(bits);
      levels_[depth_] = words;
      words += words_[depth_++];
      if (bits <= 64) return;
    }
  }

  [[nodiscard]] std::uint64_t size() const { return size_; }
  [[nodiscard]] bool contains(std::uint64_t i) const {
    return i < size_ && ((levels_[0][i >> 6] >> (i & 63)) & 1) != 0;
  }

  /// Pre: i is not a member.
  void insert(std::uint64_t i) {
    ACCELMM_DCHECK(i < size_ && !contains(i));
    for (unsigned level = 0; level < depth_; ++level, i >>= 6) {
      std::uint64_t& word = levels_[level][i >> 6];
      const bool was_empty = word == 0;
      word |= std::uint64_t{1} << (i & 63);
      if (!was_empty) return;
    }
  }

  /// Pre: i is a member.
  void erase(std::uint64_t i) {
    ACCELMM_DCHECK(contains(i));
    for (unsigned level = 0; level < depth_; ++level, i >>= 6) {
      std::uint64_t& word = levels_[level][i >> 6];
      word &= ~(std::uint64_t{1} << (i & 63));
      if (word != 0) return;
    }
  }

  [[nodiscard]] bool empty() const { return levels_[depth_ - 1][0] == 0; }

  /// The lowest member. Pre: not empty.
  [[nodiscard]] std::uint64_t first() const { return descend(depth_, 0); }

  /// The lowest member that is >= from, or none.
  [[nodiscard]] std::uint64_t next(std::uint64_t from) const {
    if (from >= size_) return none;
    std::uint64_t i = from;
    for (unsigned level = 0; level < depth_; ++level) {
      const std::uint64_t word = levels_[level][i >> 6] >> (i & 63);
      if (word != 0) return descend(level, i + ones_below(word));
      i = (i >> 6) + 1;  // nothing at or above i in its word: go on behind that word
      if (level + 1 == depth_ || (i >> 6) >= words_[level + 1]) return none;
    }
    return none;
  }

  /// The highest member that is < end, or none.
  [[nodiscard]] std::uint64_t previous(std::uint64_t end) const {
    if (end > size_) end = size_;
    for (unsigned level = 0; level < depth_ && end != 0; ++level) {
      std::uint64_t i = end - 1;
      std::uint64_t word = levels_[level][i >> 6] << (63 - (i & 63));
      if (word != 0) {
        i -= static_cast<std::uint64_t>(std::countl_zero(word));
        for (unsigned below = level; below-- > 0;) {
          word = levels_[below][i];
          i = (i << 6) | (63 - static_cast<std::uint64_t>(std::countl_zero(word)));
        }
        return i;
      }
      end = i >> 6;  // the words before that of i
    }
    return none;
  }

  /// Checks the summaries against the words below, and returns the number of members.
  [[nodiscard]] std::uint64_t validate() const {
    std::uint64_t members = 0;
    std::uint64_t bits = size_;
    for (unsigned level = 0; level < depth_; bits = words_of_bits(bits), ++level) {
      const std::uint64_t words = words_[level];
      for (std::uint64_t w = 0; w < words; ++w) {
        const std::uint64_t word = levels_[level][w];
        if (level == 0) members += static_cast<std::uint64_t>(std::popcount(word));
        if (level + 1 == depth_) continue;
        const bool summary = ((levels_[level + 1][w >> 6] >> (w & 63)) & 1) != 0;
        ACCELMM_CHECK(summary == (word != 0));
      }
      const std::uint64_t tail = bits & 63;
      ACCELMM_CHECK(tail == 0 || (levels_[level][words - 1] >> tail) == 0);
    }
    return members;
  }

  /// The members of word w, as bits.
  [[nodiscard]] std::uint64_t word(std::uint64_t w) const { return levels_[0][w]; }
  [[nodiscard]] std::uint64_t words() const { return words_[0]; }

 private:
  static constexpr unsigned max_depth = 6;

  [[nodiscard]] static constexpr std::uint64_t words_of_bits(std::uint64_t bits) {
    return (bits >> 6) + ((bits & 63) != 0 ? 1 : 0);
  }
  [[nodiscard]] static std::uint64_t ones_below(std::uint64_t word) {
    return static_cast<std::uint64_t>(std::countr_zero(word));
  }
  /// Follows bit `i` of `level` (a summary bit, or word 0 of the level above the top) down.
  [[nodiscard]] std::uint64_t descend(unsigned level, std::uint64_t i) const {
    while (level > 0) {
      --level;
      i = (i << 6) | ones_below(levels_[level][i]);
    }
    return i;
  }

  std::uint64_t size_ = 0;
  unsigned depth_ = 0;
  std::array<std::uint64_t*, max_depth> levels_{};
  std::array<std::uint64_t, max_depth> words_{};  // of each level
};

}  // namespace accelmm::mm
