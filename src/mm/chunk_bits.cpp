// SPDX-License-Identifier: Apache-2.0
#include "mm/chunk_bits.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

namespace accelmm::mm {

namespace {

constexpr unsigned word_order = BlockOrders::word_order;

// All words of a chunk, worked on side by side.
using Lanes [[gnu::vector_size(sizeof(ChunkBits))]] = std::uint64_t;

void load(Lanes& lanes, const ChunkBits& bits) {
  std::memcpy(&lanes, bits.data(), sizeof lanes);
}

std::uint64_t any(const Lanes& lanes) {
  return ((lanes[0] | lanes[1]) | (lanes[2] | lanes[3])) |
         ((lanes[4] | lanes[5]) | (lanes[6] | lanes[7]));
}

// Makes of the free blocks of `order`, named by their first pages, those of order + 1.
void merge(Lanes& blocks, unsigned order) {
  blocks &= (blocks >> (1U << order)) & aligned_in_word[order + 1];
}

// Bit w is set where word w is free as a whole.
unsigned whole_words(const ChunkBits& bits) {
  unsigned whole = 0;
  for (unsigned w = 0; w < chunk_words; ++w)
    whole |= static_cast<unsigned>(bits[w] == ~std::uint64_t{0}) << w;
  return whole;
}

constexpr std::array<unsigned, 4> aligned_words = {0xff, 0x55, 0x11, 0x01};

constexpr unsigned merged_words(unsigned whole, unsigned order) {
  const unsigned step = 1U << (order - word_order);
  return whole & (whole >> step) & aligned_words[order - word_order + 1];
}

// best_block() for blocks of at least 64 pages, of which `whole` has those of `order`.
ChunkBlock best_of_words(unsigned whole, unsigned order) {
  for (; whole != 0; ++order) {
    const unsigned above = order < chunk_order ? merged_words(whole, order) : 0;
    const unsigned step = order < chunk_order ? 1U << (order - word_order) : 0;
    const unsigned alone = whole & ~(above | above << step);
    if (alone != 0) return {static_cast<unsigned>(std::countr_zero(alone)) * 64, order};
    whole = above;
  }
  return {no_page, no_order};
}

constexpr unsigned order_of_words(unsigned whole, unsigned at_most) {
  unsigned order = word_order;
  for (; order < at_most; ++order) {
    whole = merged_words(whole, order);
    if (whole == 0) break;
  }
  return order;
}

}  // namespace

// Sums of 2, of 4 and of 8 neighbouring bits, in all words at once: the processor's own instruction
// is not on every x86-64.
unsigned count(const ChunkBits& bits) {
  Lanes sums;
  load(sums, bits);
  sums -= (sums >> 1) & 0x5555'5555'5555'5555;
  sums = (sums & 0x3333'3333'3333'3333) + ((sums >> 2) & 0x3333'3333'3333'3333);
  sums = (sums + (sums >> 4)) & 0x0f0f'0f0f'0f0f'0f0f;
  // A byte holds at most 64 after eight words are added, the product's at most 512: in 16 bits.
  const std::uint64_t bytes =
      ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
  constexpr std::uint64_t even = 0x00ff'00ff'00ff'00ff;
  return static_cast<unsigned>((((bytes & even) + ((bytes >> 8) & even)) * 0x0001'0001'0001'0001) >>
                               48);
}

unsigned largest_order(const ChunkBits& bits, unsigned at_most) {
  if (at_most >= word_order)
    if (const unsigned whole = whole_words(bits); whole != 0) return order_of_words(whole, at_most);
  Lanes blocks;
  load(blocks, bits);
  if (any(blocks) == 0) return no_order;
  for (unsigned order = 0; order < std::min(at_most, word_order); ++order) {
    merge(blocks, order);
    if (any(blocks) == 0) return order;
  }
  return std::min(at_most, word_order);
}

ChunkBlock best_block(const ChunkBits& bits, unsigned order) {
  if (order > word_order) {
    unsigned whole = whole_words(bits);
    for (unsigned o = word_order; o < order; ++o) whole = merged_words(whole, o);
    return best_of_words(whole, order);
  }
  Lanes blocks;
  load(blocks, bits);
  for (unsigned o = 0; o < order; ++o) merge(blocks, o);
  for (unsigned o = order; o < word_order; ++o) {
    Lanes above = blocks;
    merge(above, o);
    const Lanes alone = blocks & ~(above | above << (1U << o));
    if (any(alone) != 0) {
      unsigned w = 0;
      while (alone[w] == 0) ++w;
      return {w * 64 + static_cast<unsigned>(std::countr_zero(alone[w])), o};
    }
    blocks = above;
  }
  return best_of_words(whole_words(bits), word_order);
}

BlockOrders BlockOrders::of(const ChunkBits& bits) {
  Lanes blocks;
  Lanes found = {};
  load(blocks, bits);
#pragma GCC unroll 6
  for (unsigned order = 0; order < word_order; ++order) {
    const Lanes above = blocks & (blocks >> (1U << order)) & aligned_in_word[order + 1];
    const Lanes alone = blocks ^ (above | above << (1U << order));
    // The highest bit of x | -x is set where x is not 0.
    found |= ((alone | -alone) >> 63) << order;
    blocks = above;
  }
  found |= blocks << word_order;
  std::uint64_t bytes = 0;
  for (unsigned w = 0; w < chunk_words; ++w) bytes |= found[w] << (w * 8);
  return BlockOrders(bytes);
}

ChunkBlock BlockOrders::best_of_whole_words(unsigned order) const {
  unsigned whole = whole_words();
  for (unsigned o = word_order; o < order; ++o) whole = merged_words(whole, o);
  return best_of_words(whole, order);
}

}  // namespace accelmm::mm
