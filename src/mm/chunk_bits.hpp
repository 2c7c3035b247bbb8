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
  /// Notes that all pages of word w are free, or none.
  void note_free(unsigned w) {
    bytes_ = (bytes_ & ~(std::uint64_t{0xff} << (w * 8))) | std::uint64_t{0x40} << (w * 8);
  }
  void note_taken(unsigned w) { bytes_ &= ~(std::uint64_t{0xff} << (w * 8)); }

  /// The order of the largest free block, 0 to 9, or no_order.
  [[nodiscard]] unsigned largest() const {
    const unsigned orders = any();
    if (orders >= 1U << word_order) return largest_of_words[whole_words()];
    return orders == 0 ? no_order : static_cast<unsigned>(std::bit_width(orders)) - 1;
  }
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

  /// Bit w of the result is bit 0 of byte w.
  [[nodiscard]] static constexpr unsigned gathered(std::uint64_t bytes) {
    return static_cast<unsigned>(((bytes & each_byte) * 0x0102'0408'1020'4080) >> 56);
  }
  /// The orders from 3 on of a word's blocks, by which of its bytes are free as a whole.
  static constexpr std::array<std::uint8_t, 256> of_whole_bytes = [] {
    std::array<std::uint8_t, 256> orders{};
    for (unsigned bytes = 0; bytes < 256; ++bytes) {
      unsigned blocks = bytes;
      constexpr std::array<unsigned, 3> aligned = {0x55, 0x11, 0x01};
      unsigned found = 0;
      for (unsigned o = 0; o < 3; ++o) {
        const unsigned above = blocks & (blocks >> (1U << o)) & aligned[o];
        if ((blocks ^ (above | above << (1U << o))) != 0) found |= 8U << o;
        blocks = above;
      }
      orders[bytes] = static_cast<std::uint8_t>(found | blocks << word_order);
    }
    return orders;
  }();

  /// The largest order by which of the words are free as a whole. Eight words make
  /// blocks as the eight bytes of a word do, of orders that are 3 higher.
  static constexpr std::array<std::uint8_t, 256> largest_of_words = [] {
    std::array<std::uint8_t, 256> orders{};
    for (unsigned words = 1; words < 256; ++words)
      orders[words] = static_cast<std::uint8_t>(std::bit_width(unsigned{of_whole_bytes[words]}) -
                                                1 - 3 + word_order);
    return orders;
  }();

  /// With no branch: what is free of a word is as good as random.
  [[nodiscard]] static std::uint64_t of_word(std::uint64_t free_pages) {
    const std::uint64_t twos = free_pages & (free_pages >> 1) & 0x5555'5555'5555'5555;
    const std::uint64_t fours = twos & (twos >> 2) & 0x1111'1111'1111'1111;
    const std::uint64_t bytes = fours & (fours >> 4) & each_byte;
    return static_cast<std::uint64_t>(free_pages != (twos | twos << 1)) |
           static_cast<std::uint64_t>(twos != (fours | fours << 2)) << 1 |
           static_cast<std::uint64_t>(fours != (bytes | bytes << 4)) << 2 |
           of_whole_bytes[gathered(bytes)];
  }
  /// The orders that any word has.
  [[nodiscard]] unsigned any() const {
    std::uint64_t all = bytes_ | bytes_ >> 32;
    all |= all >> 16;
    all |= all >> 8;
    return static_cast<unsigned>(all & 0xff);
  }
  /// Bit w is set where word w is free as a whole.
  [[nodiscard]] unsigned whole_words() const { return gathered(bytes_ >> word_order); }

  std::uint64_t bytes_ = 0;
};

/// The positions of a word that are multiples of 2^order.
inline constexpr std::array<std::uint64_t, 7> aligned_in_word = {
    0xffff'ffff'ffff'ffff, 0x5555'5555'5555'5555, 0x1111'1111'1111'1111, 0x0101'0101'0101'0101,
    0x0001'0001'0001'0001, 0x0000'0001'0000'0001, 0x0000'0000'0000'0001,
};

/// The smallest block of at least 2^order pages in 64, the lowest of these. Pre: there is one of less
/// than 64 pages, or all 64 are free.
[[nodiscard]] inline ChunkBlock best_block_of_word(std::uint64_t free_pages, unsigned order) {
  std::uint64_t blocks = free_pages;
  for (unsigned o = 0; o < order; ++o) blocks &= (blocks >> (1U << o)) & aligned_in_word[o + 1];
  for (; order < BlockOrders::word_order; ++order) {
    const std::uint64_t above = blocks & (blocks >> (1U << order)) & aligned_in_word[order + 1];
    const std::uint64_t alone = blocks ^ (above | above << (1U << order));
    if (alone != 0) return {static_cast<unsigned>(std::countr_zero(alone)), order};
    blocks = above;
  }
  return {0, BlockOrders::word_order};
}

}  // namespace accelmm::mm
