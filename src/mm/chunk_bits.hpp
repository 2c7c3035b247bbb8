// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace accelmm::mm {

/// A chunk is 512 pages: 2 MiB of 4 KiB pages, the leaf above them in every page-table format that
/// accelmm knows (docs/mmu.md), and one cache line of one bit a page.
inline constexpr unsigned chunk_order = 9;
inline constexpr unsigned chunk_pages = 1U << chunk_order;
inline constexpr unsigned chunk_words = chunk_pages / 64;

/// One bit a page of a chunk, set where the page is free.
using ChunkBits = std::array<std::uint64_t, chunk_words>;

/// What the functions below return for "none".
inline constexpr unsigned no_order = 15;
inline constexpr unsigned no_page = chunk_pages;

/// The mask of the pages [begin, end) that lie in word `word`. Pre: begin < end <= chunk_pages.
[[nodiscard]] inline std::uint64_t mask_of(unsigned word, unsigned begin, unsigned end) {
  constexpr std::uint64_t ones = ~std::uint64_t{0};
  const unsigned first = word * 64;
  if (end <= first || begin >= first + 64) return 0;
  const unsigned low = begin > first ? begin - first : 0;
  const unsigned high = end - first < 64 ? end - first : 64;
  return (ones << low) & (ones >> (64 - high));
}

/// Pages that are set.
[[nodiscard]] unsigned count(const ChunkBits& bits);

/// The order of the largest aligned block of set bits, 0 to 9, or no_order. Looks no higher than
/// `at_most`.
[[nodiscard]] unsigned largest_order(const ChunkBits& bits, unsigned at_most = chunk_order);

/// A block of a chunk: 2^order pages that start at a multiple of 2^order.
struct ChunkBlock {
  unsigned first_page;
  unsigned order;
};

/// The best block to take 2^order pages from, first_page == no_page if there is none: the smallest
/// that is large enough, so that larger ones stay whole; the lowest of these.
[[nodiscard]] ChunkBlock best_block(const ChunkBits& bits, unsigned order);

/// Which free blocks a chunk has, in 8 bytes: so that neither where the best block is, nor how large the
/// largest, needs a look at all 512 bits, and a change of some pages is a look at their words alone.
///
/// Byte w tells of the pages [64 w, 64 w + 64). Its bit o is set where they have a free block of 2^o
/// pages that is no part of a larger free block among these 64; bit 6 says that all 64 are free.
class BlockOrders {
 public:
  static constexpr unsigned word_order = 6;

  constexpr BlockOrders() = default;
  explicit constexpr BlockOrders(std::uint64_t bytes) : bytes_(bytes) {}
  /// Of a chunk whose bits are these.
  [[nodiscard]] static BlockOrders of(const ChunkBits& bits);
  [[nodiscard]] static constexpr BlockOrders all_free() {
    return BlockOrders(0x4040'4040'4040'4040);
  }
  friend bool operator==(BlockOrders a, BlockOrders b) = default;

  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

  /// Notes what word w is now.
  void note(unsigned w, std::uint64_t free_pages) {
    bytes_ = (bytes_ & ~(std::uint64_t{0xff} << (w * 8))) | of_word(free_pages) << (w * 8);
  }

  /// The order of the largest free block, 0 to 9, or no_order.
  [[nodiscard]] unsigned largest() const;
  /// The order of the smallest free block of 2^order pages or more that is less than a word, or
  /// word_order if there is none. Pre: order < word_order.
  [[nodiscard]] unsigned smallest_part(unsigned order) const {
    return static_cast<unsigned>(std::countr_zero((any() & (~0U << order)) | 1U << word_order));
  }
  /// The first word that has a free block of this order. Pre: there is one.
  [[nodiscard]] unsigned word_with(unsigned order) const {
    return static_cast<unsigned>(std::countr_zero(bytes_ >> order & each_byte)) / 8;
  }
  /// The best block of 2^order pages or more among those of whole words, as best_block(). Pre: order >=
  /// word_order.
  [[nodiscard]] ChunkBlock best_of_whole_words(unsigned order) const;

 private:
  static constexpr std::uint64_t each_byte = 0x0101'0101'0101'0101;

  [[nodiscard]] static std::uint64_t of_word(std::uint64_t free_pages);
  /// The orders that any word has.
  [[nodiscard]] unsigned any() const {
    std::uint64_t all = bytes_ | bytes_ >> 32;
    all |= all >> 16;
    all |= all >> 8;
    return static_cast<unsigned>(all & 0xff);
  }
  /// Bit w is set where word w is free as a whole.
  [[nodiscard]] unsigned whole_words() const {
    return static_cast<unsigned>(((bytes_ >> word_order & each_byte) * 0x0102'0408'1020'4080) >>
                                 56);
  }

  std::uint64_t bytes_ = 0;
};

/// The smallest block of at least 2^order pages in 64, the lowest of these. Pre: there is one of less
/// than 64 pages, or all 64 are free.
[[nodiscard]] ChunkBlock best_block_of_word(std::uint64_t free_pages, unsigned order);

}  // namespace accelmm::mm
