// SPDX-License-Identifier: Apache-2.0
#include <accelmm/fragmentation.hpp>
#include <accelmm/page_allocator.hpp>

#include <cstdint>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

constexpr std::uint64_t page = 4096;
constexpr std::uint64_t chunk = 512 * page;

PageAllocator allocator_of(std::uint64_t bytes) {
  return PageAllocator::create({.size = ByteCount(bytes)}).value();
}

TEST(Fragmentation, OfAnEmptyRegionIsOneBlock) {
  const auto pages = allocator_of(std::uint64_t{1} << 40);
  const Fragmentation found = pages.fragmentation();
  EXPECT_EQ(ByteCount(std::uint64_t{1} << 40), found.free());
  EXPECT_EQ(1U, found.blocks(28));  // 2^28 pages of 4 KiB
  EXPECT_EQ(std::uint64_t{1} << 19, found.whole_chunks());
  EXPECT_EQ(0.0, found.external(18));
  EXPECT_EQ(0.0, found.scattered());
  EXPECT_EQ(1.0, found.whole_share());
}

TEST(Fragmentation, OfAFullRegionIsNone) {
  auto pages = allocator_of(4 * chunk);
  ASSERT_TRUE(pages.allocate(ByteCount(4 * chunk)));
  const Fragmentation found = pages.fragmentation();
  EXPECT_EQ(ByteCount(0), found.free());
  EXPECT_EQ(0.0, found.external(0));
  EXPECT_EQ(0.0, found.scattered());
  EXPECT_EQ(1.0, found.whole_share());
}

// Pages 0, 2, 4... of the first of two chunks taken: half of it is free, and serves nothing larger
// than a page. 256 of 768 free pages are so.
TEST(Fragmentation, ExternalIsTheShareThatALargerRequestCannotUse) {
  std::vector<std::uint64_t> free(16, ~std::uint64_t{0});
  for (unsigned w = 0; w < 8; ++w) free[w] = 0xaaaa'aaaa'aaaa'aaaa;
  const Fragmentation found = fragmentation_of(free, 1024, ByteCount(page));
  EXPECT_EQ(256U, found.blocks(0));
  EXPECT_EQ(1U, found.blocks(9));
  EXPECT_EQ(0.0, found.external(0));
  EXPECT_DOUBLE_EQ(256.0 / 768, found.external(1));
  EXPECT_DOUBLE_EQ(256.0 / 768, found.external(9));
  EXPECT_EQ(1.0, found.external(10));
  // The last page of the first chunk is free, and its run goes on into the second.
  EXPECT_EQ(ByteCount(513 * page), found.largest_free());
  EXPECT_DOUBLE_EQ(1.0 - 513.0 / 768, found.scattered());
  EXPECT_EQ(1U, found.partial_chunks());
}

TEST(Fragmentation, CompactionMovesTheEmptiestChunksIntoTheOthers) {
  // Four chunks, with 10, 100, 500 and 512 pages allocated: 926 free pages in partial chunks hold one
  // more chunk, not two.
  std::vector<std::uint64_t> free(32, 0);
  const unsigned allocated[] = {100, 10, 500, 512};
  for (unsigned c = 0; c < 4; ++c)
    for (unsigned p = allocated[c]; p < 512; ++p)
      free[c * 8 + p / 64] |= std::uint64_t{1} << (p % 64);
  const Fragmentation found = fragmentation_of(free, 2048, ByteCount(page));
  EXPECT_EQ(ByteCount(0), found.compaction_debt(0));
  EXPECT_EQ(ByteCount(10 * page), found.compaction_debt(1));
  EXPECT_EQ(std::nullopt, found.compaction_debt(2));
  EXPECT_EQ(std::nullopt, found.compaction_debt(std::numeric_limits<std::uint64_t>::max()));
}

TEST(Fragmentation, CompactionMayMoveFullChunksWhereOthersHaveRoom) {
  // A shorter last chunk can never be whole, but takes what moves.
  std::vector<std::uint64_t> free(16, 0);
  for (unsigned w = 8; w < 15; ++w) free[w] = ~std::uint64_t{0};
  const Fragmentation small = fragmentation_of(free, 512 + 448, ByteCount(page));
  EXPECT_EQ(std::nullopt, small.compaction_debt(1));  // 448 free pages for 512
}

TEST(GrantTally, CountsWhatRoundingCosts) {
  GrantTally tally;
  EXPECT_EQ(0.0, tally.internal());
  tally.add(ByteCount(3), ByteCount(4));
  tally.add(ByteCount(6), ByteCount(8));
  EXPECT_DOUBLE_EQ(0.25, tally.internal());
}

TEST(GrantTally, TellsMeanAndP99OfExtents) {
  GrantTally tally;
  EXPECT_EQ(0.0, tally.mean_extents());
  EXPECT_EQ(0U, tally.p99_extents());
  for (int i = 0; i < 98; ++i) tally.add_extents(1);
  tally.add_extents(7);
  tally.add_extents(1000);
  EXPECT_DOUBLE_EQ((98.0 + 7 + 1000) / 100, tally.mean_extents());
  EXPECT_EQ(7U, tally.p99_extents());
  tally.add_extents(2000);
  tally.add_extents(2000);
  EXPECT_EQ(GrantTally::most_extents, tally.p99_extents());
}

TEST(GrantTally, TellsHowOftenZerosWereThere) {
  GrantTally tally;
  EXPECT_EQ(1.0, tally.zero_hit_rate());
  tally.add_zeros(ByteCount(8192), ByteCount(4096));
  EXPECT_DOUBLE_EQ(0.5, tally.zero_hit_rate());
}

}  // namespace
}  // namespace accelmm
