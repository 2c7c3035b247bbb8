// SPDX-License-Identifier: Apache-2.0
//
// The functions on the bits of a chunk, beside the same asked of each page in turn.
#include "mm/chunk_bits.hpp"

#include "mm/bit_tree.hpp"

#include <algorithm>
#include <random>
#include <set>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::mm {
namespace {

bool is_set(const ChunkBits& bits, unsigned page) {
  return (bits[page / 64] >> (page % 64) & 1) != 0;
}

bool all_set(const ChunkBits& bits, unsigned begin, unsigned end) {
  for (unsigned page = begin; page < end; ++page)
    if (!is_set(bits, page)) return false;
  return true;
}

unsigned naive_order(const ChunkBits& bits) {
  for (unsigned order = chunk_order + 1; order-- > 0;)
    for (unsigned page = 0; page < chunk_pages; page += 1U << order)
      if (all_set(bits, page, page + (1U << order))) return order;
  return no_order;
}

// The smallest free block of at least `order` whose parent is not free; the lowest.
ChunkBlock naive_block(const ChunkBits& bits, unsigned order) {
  for (unsigned o = order; o <= chunk_order; ++o)
    for (unsigned page = 0; page < chunk_pages; page += 1U << o) {
      const unsigned parent = page & ~((2U << o) - 1);
      const bool parent_free = o < chunk_order && all_set(bits, parent, parent + (2U << o));
      if (all_set(bits, page, page + (1U << o)) && !parent_free) return {page, o};
    }
  return {no_page, no_order};
}

// Chunks from empty to full, by runs of all lengths.
std::vector<ChunkBits> some_chunks() {
  std::mt19937_64 random(20261);
  std::vector<ChunkBits> chunks(3);
  chunks[1].fill(~std::uint64_t{0});
  chunks[2] = {1};
  for (int i = 0; i < 3000; ++i) {
    ChunkBits bits = {};
    const auto runs = random() % 30;
    for (unsigned r = 0; r < runs; ++r) {
      const auto begin = static_cast<unsigned>(random() % chunk_pages);
      const auto length = static_cast<unsigned>(1 + random() % (1U << random() % 10));
      for (unsigned page = begin; page < std::min(begin + length, chunk_pages); ++page)
        bits[page / 64] |= std::uint64_t{1} << (page % 64);
    }
    if (i % 3 == 0)
      for (std::uint64_t& word : bits) word = ~word;
    chunks.push_back(bits);
  }
  return chunks;
}

TEST(ChunkBits, TheLargestOrderIsThatOfTheLargestAlignedBlock) {
  for (const ChunkBits& bits : some_chunks()) {
    const unsigned order = naive_order(bits);
    ASSERT_EQ(order, largest_order(bits));
    if (order == no_order) continue;
    for (unsigned most = 0; most <= chunk_order; ++most)
      ASSERT_EQ(std::min(order, most), largest_order(bits, most));
  }
}

TEST(ChunkBits, TheBestBlockIsTheLowestOfTheSmallestThatServe) {
  for (const ChunkBits& bits : some_chunks())
    for (unsigned order = 0; order <= chunk_order; ++order) {
      const ChunkBlock expected = naive_block(bits, order);
      const ChunkBlock found = best_block(bits, order);
      ASSERT_EQ(expected.first_page, found.first_page);
      ASSERT_EQ(expected.order, found.order);
    }
}

TEST(ChunkBits, TheCountIsThatOfThePages) {
  for (const ChunkBits& bits : some_chunks()) {
    unsigned pages = 0;
    for (unsigned page = 0; page < chunk_pages; ++page) pages += is_set(bits, page) ? 1U : 0U;
    ASSERT_EQ(pages, count(bits));
  }
}

// Bit o of a byte: an aligned block of 2^o pages is set whose parent, in the same word, is not.
unsigned naive_orders(const ChunkBits& bits, unsigned word) {
  unsigned orders = 0;
  for (unsigned o = 0; o <= 6; ++o)
    for (unsigned page = word * 64; page < word * 64 + 64; page += 1U << o) {
      const unsigned parent = page & ~((2U << o) - 1);
      const bool parent_set = o < 6 && all_set(bits, parent, parent + (2U << o));
      if (all_set(bits, page, page + (1U << o)) && !parent_set) orders |= 1U << o;
    }
  return orders;
}

TEST(BlockOrders, SayOfEachWordWhichBlocksItHas) {
  for (const ChunkBits& bits : some_chunks()) {
    const BlockOrders all = BlockOrders::of(bits);
    BlockOrders one_by_one = BlockOrders::all_free();
    for (unsigned w = 0; w < chunk_words; ++w) {
      ASSERT_EQ(naive_orders(bits, w), all.bytes() >> (w * 8) & 0xff) << w;
      one_by_one.note(w, bits[w]);
    }
    ASSERT_EQ(all, one_by_one);
    ASSERT_EQ(naive_order(bits), all.largest());
  }
}

TEST(BlockOrders, LeadToTheBestBlock) {
  for (const ChunkBits& bits : some_chunks()) {
    const BlockOrders all = BlockOrders::of(bits);
    for (unsigned order = 0; order <= chunk_order; ++order) {
      const ChunkBlock expected = naive_block(bits, order);
      ChunkBlock found{no_page, no_order};
      const unsigned part = order < 6 ? all.smallest_part(order) : 6;
      if (part < 6) {
        const unsigned w = all.word_with(part);
        found = best_block_of_word(bits[w], part);
        found.first_page += w * 64;
      } else {
        found = all.best_of_whole_words(std::max(order, 6U));
      }
      ASSERT_EQ(expected.first_page, found.first_page) << order;
      ASSERT_EQ(expected.order, found.order) << order;
    }
  }
}

// What was noted before pages were freed without the lock: the block that is there now may be larger.
TEST(BlockOrders, ABlockOfAWordIsFoundThoughMoreOfItIsFreeThanWasNoted) {
  EXPECT_EQ(0U, best_block_of_word(0xff, 2).first_page);
  EXPECT_EQ(3U, best_block_of_word(0xff, 2).order);
  EXPECT_EQ(6U, best_block_of_word(~std::uint64_t{0}, 0).order);
}

TEST(ChunkBits, MasksCoverEachPageOfARangeOnce) {
  for (unsigned begin = 0; begin < chunk_pages; begin += 7)
    for (unsigned end = begin + 1; end <= chunk_pages; end += 5) {
      ChunkBits bits;
      for (unsigned w = 0; w < chunk_words; ++w) bits[w] = mask_of(w, begin, end);
      ASSERT_EQ(end - begin, count(bits));
      ASSERT_TRUE(all_set(bits, begin, end));
    }
}

TEST(BitTree, FindsTheNextAndThePreviousMemberAsASetDoes) {
  for (const std::uint64_t size : {1U, 63U, 64U, 65U, 4096U, 4097U, 70'000U}) {
    std::vector<std::uint64_t> words(BitTree::words_for(size));
    BitTree tree(words.data(), size);
    std::set<std::uint64_t> members;
    std::mt19937_64 random(size);
    for (int i = 0; i < 2000; ++i) {
      const std::uint64_t at = random() % size;
      if (members.erase(at) != 0) {
        tree.erase(at);
      } else {
        members.insert(at);
        tree.insert(at);
      }
      const std::uint64_t from = random() % (size + 2);
      const auto after = members.lower_bound(from);
      ASSERT_EQ(after == members.end() ? BitTree::none : *after, tree.next(from));
      ASSERT_EQ(after == members.begin() ? BitTree::none : *std::prev(after), tree.previous(from));
    }
    ASSERT_EQ(members.size(), tree.validate());
  }
}

}  // namespace
}  // namespace accelmm::mm
