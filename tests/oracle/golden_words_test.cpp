// SPDX-License-Identifier: Apache-2.0
// The golden words against the two parties that are written from descriptions: the naive walkers,
// which read them, and the encodings, with which tests write tables.
#include "oracle/golden_words.hpp"

#include "oracle/encodings.hpp"
#include "oracle/naive_walk.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

/// The few words that one walk reads.
using Words = std::map<std::uint64_t, std::uint64_t>;

std::optional<Encoding> encoding_of(const GoldenWord& golden) {
  for (Encoding& encoding : encodings())
    if (encoding.format == golden.format && encoding.levels == golden.levels) return encoding;
  return std::nullopt;
}

std::string description(const GoldenWord& golden) {
  return golden.source + std::string(", word ") + std::to_string(golden.word);
}

std::uint64_t table_at(unsigned hop) {
  return 0x10'0000ULL * (hop + 1);
}

/// Puts `word` into the table of a hop, and links to that table from the root, for an address.
void put(Words& words, const Encoding& encoding, unsigned hop, unsigned part, std::uint64_t address,
         std::uint64_t word) {
  words[table_at(hop) + encoding.offset(hop, address) + part * encoding.word_bytes] = word;
  for (unsigned below = hop; below > 0;) {
    const auto above = static_cast<unsigned>(encoding.parent(below));
    words[table_at(above) + encoding.offset(above, address) +
          encoding.hops[below].part * encoding.word_bytes] =
        encoding.link_word(above, table_at(below));
    below = above;
  }
}

std::optional<NaiveAnswer> walk(const Words& words, const GoldenWord& golden, std::uint64_t address,
                                std::uint64_t root = table_at(0)) {
  const Read read = [&](std::uint64_t where, unsigned) {
    const auto found = words.find(where);
    return found == words.end() ? 0 : found->second;
  };
  return naive_walk(golden.format, golden.levels, read, root, address);
}

/// An address that golden words of leaves can map: the item of a group stands where it must.
std::uint64_t address_for(const GoldenWord& golden) {
  if (golden.format == Format::gaudi2_hmmu) return 0x1001'0000'6000'0000;
  const std::uint64_t start = golden.format == Format::rockchip_v1 ? 0x8000'0000 : 0;
  return golden.size == 0 ? start : start + golden.bus_address % golden.size;
}

TEST(GoldenWords, CoverEachFormatWithALinkAndALeaf) {
  for (const Encoding& encoding : encodings()) {
    std::set<std::pair<Format, Entry>> seen;
    for (const GoldenWord& golden : golden_words) seen.insert({golden.format, golden.entry});
    EXPECT_TRUE(seen.contains({encoding.format, Entry::link})) << encoding.name;
    EXPECT_TRUE(seen.contains({encoding.format, Entry::leaf})) << encoding.name;
  }
  for (const GoldenWord& golden : golden_words)
    EXPECT_TRUE(encoding_of(golden)) << description(golden);
}

TEST(GoldenWords, OfLeavesAreReadByTheNaiveWalkers) {
  for (const GoldenWord& golden : golden_words) {
    if (golden.entry != Entry::leaf) continue;
    SCOPED_TRACE(description(golden));
    const Encoding encoding = *encoding_of(golden);
    const std::uint64_t address = address_for(golden);
    Words words;
    std::uint64_t walked = address;
    if (golden.format == Format::gaudi2_hmmu) walked = 0x1001'0000'8000'0000;
    put(words, encoding, golden.hop, golden.part, walked, golden.word);
    const NaiveAnswer begin{golden.bus_address, golden.size, golden.allowed};
    EXPECT_EQ(walk(words, golden, address), begin);
    const NaiveAnswer inside{golden.bus_address + 0x7ff, golden.size, golden.allowed};
    EXPECT_EQ(walk(words, golden, address + 0x7ff), inside);
  }
}

TEST(GoldenWords, OfLinksLeadTheNaiveWalkersOn) {
  for (const GoldenWord& golden : golden_words) {
    if (golden.entry != Entry::link) continue;
    SCOPED_TRACE(description(golden));
    const Encoding encoding = *encoding_of(golden);
    unsigned hop = golden.hop + 1;
    while (static_cast<unsigned>(encoding.parent(hop)) != golden.hop ||
           encoding.hops[hop].part != golden.part)
      ++hop;
    // Whatever the next table links to is a leaf, or leads to one through links of the encoding.
    Words words;
    put(words, encoding, golden.hop, golden.part, 0, golden.word);
    unsigned leaf_hop = hop;
    std::uint64_t table = golden.bus_address;
    const auto has_leaf = [&](unsigned where) {
      for (const LeafKind& kind : encoding.leaves)
        if (kind.hop == where) return true;
      return false;
    };
    while (!has_leaf(leaf_hop)) {
      words[table] = encoding.link_word(leaf_hop, table_at(leaf_hop + 1));
      table = table_at(++leaf_hop);
    }
    for (const LeafKind& kind : encoding.leaves) {
      if (kind.hop != leaf_hop || encoding.entries_of(kind) != 1) continue;
      words[table] = encoding.leaf_word(kind, 0, Allowed::both);
      const NaiveAnswer expected{0x7ff, kind.size, Allowed::both};
      EXPECT_EQ(walk(words, golden, 0x7ff), expected);
    }
  }
}

TEST(GoldenWords, OfNothingAreRefusedByTheNaiveWalkers) {
  for (const GoldenWord& golden : golden_words) {
    if (golden.entry != Entry::nothing) continue;
    SCOPED_TRACE(description(golden));
    Words words;
    put(words, *encoding_of(golden), golden.hop, golden.part, 0, golden.word);
    EXPECT_EQ(walk(words, golden, 0), std::nullopt);
  }
}

// Both tables of a dual link are there: what the entry of the large page says of the small one.
TEST(GoldenWords, OfHopperHideTheSmallPageWhereTheLargeOneIsInvalidButNotZero) {
  const Encoding encoding = nvidia_hopper_encoding();
  GoldenWord hopper{};
  hopper.format = Format::nvidia_hopper;
  hopper.levels = encoding.levels;
  const NaiveAnswer small{0x1234'5000, 4 * kib, Allowed::both};
  const NaiveAnswer large{0x5678'0000, 64 * kib, Allowed::both};
  Words words;
  put(words, encoding, 6, 0, 0, encoding.leaf_word({6, 4 * kib}, 0x1234'5000, Allowed::both));
  for (const std::uint64_t invalid : {0x18U, 0x8U}) {  // nothing below, and sparse
    put(words, encoding, 5, 0, 0, invalid);
    EXPECT_EQ(walk(words, hopper, 0), std::nullopt);
  }
  put(words, encoding, 5, 0, 0, 0);
  EXPECT_EQ(walk(words, hopper, 0), small);
  put(words, encoding, 5, 0, 0, encoding.leaf_word({5, 64 * kib}, 0x5678'0000, Allowed::both));
  EXPECT_EQ(walk(words, hopper, 0), large);
}

TEST(GoldenWords, AreTheWordsOfTheEncodings) {
  // What differs from the encoding on purpose: executable, coherent, atomic, or elsewhere.
  const std::set<std::uint64_t> variants = {0x60'0012'3456'7f47, 0x4'8d15'9cdf,  0x12'3456'7c47,
                                            0x9'9999'9999'9645,  0xbb'bbbb'b00a, 0xbb'bbbb'b661};
  std::size_t compared = 0;
  for (const GoldenWord& golden : golden_words) {
    if (variants.contains(golden.word) || golden.entry == Entry::nothing) continue;
    SCOPED_TRACE(description(golden));
    const Encoding encoding = *encoding_of(golden);
    ++compared;
    if (golden.entry == Entry::link) {
      EXPECT_EQ(encoding.link_word(golden.hop, golden.bus_address), golden.word);
      continue;
    }
    std::uint64_t size = golden.size;
    std::uint64_t bus_address = golden.bus_address;
    if (golden.format == Format::gaudi2_hmmu) {
      size = size / 3 * 4;  // six stacks: pages of 48 MiB scrambled to 64
      bus_address = 0x1001'0000'0000'0000 + (bus_address & 0xffff'ffff'ffff) / 3 * 4;
    }
    EXPECT_EQ(encoding.leaf_word({golden.hop, size}, bus_address, golden.allowed), golden.word);
  }
  EXPECT_GT(compared, golden_words.size() / 2);
}

TEST(GoldenWords, ChangeTheirMeaningWithEachBitThatHasOne) {
  for (const GoldenWord& golden : golden_words) {
    if (golden.entry != Entry::leaf) continue;
    SCOPED_TRACE(description(golden));
    const Encoding encoding = *encoding_of(golden);
    std::uint64_t address = address_for(golden);
    std::uint64_t walked = address;
    if (golden.format == Format::gaudi2_hmmu) walked = 0x1001'0000'8000'0000;
    const std::uint64_t bits =
        encoding.leaf_flags | encoding.leaf_address_bits({golden.hop, golden.size});
    Words words;
    put(words, encoding, golden.hop, golden.part, walked, golden.word);
    const auto right = walk(words, golden, address);
    ASSERT_TRUE(right);
    for (unsigned bit = 0; bit < 64; ++bit) {
      if ((bits >> bit & 1) == 0) continue;
      put(words, encoding, golden.hop, golden.part, walked, golden.word ^ 1ULL << bit);
      EXPECT_NE(walk(words, golden, address), right) << "bit " << bit;
    }
  }
}

TEST(GoldenScrambles, AreThoseOfTheNaiveWalker) {
  for (const GoldenScramble& golden : golden_scrambles) {
    SCOPED_TRACE(golden.source);
    EXPECT_EQ(naive_gaudi2_hmmu::scramble(golden.plain, golden.stacks), golden.scrambled);
    EXPECT_EQ(naive_gaudi2_hmmu::descramble(golden.scrambled, golden.stacks), golden.plain);
  }
}

}  // namespace
}  // namespace accelmm::test
