// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
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

/// The same after the pages [begin, end) became set, when it was `before` (no_order: none was set).
[[nodiscard]] unsigned grown_order(const ChunkBits& bits, unsigned begin, unsigned end,
                                   unsigned before);

/// A block of a chunk: 2^order pages that start at a multiple of 2^order.
struct ChunkBlock {
  unsigned first_page;
  unsigned order;
};

/// The best block to take 2^order pages from, first_page == no_page if there is none: the smallest
/// that is large enough, so that larger ones stay whole; the lowest of these.
[[nodiscard]] ChunkBlock best_block(const ChunkBits& bits, unsigned order);

}  // namespace accelmm::mm
