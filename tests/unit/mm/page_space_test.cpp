// SPDX-License-Identifier: Apache-2.0
#include "mm/page_space.hpp"

#include <functional>

#include <gtest/gtest.h>

namespace accelmm::mm {
namespace {

constexpr std::uint64_t pages = 64 * chunk_pages;

// Runs of many sizes, every other one freed again.
void fill(PageSpace& space) {
  for (std::uint64_t count = 1; count < 600; count += 37) {
    const std::uint64_t first = space.take_anywhere(count, 0, count % lifetimes);
    ASSERT_NE(PageSpace::none, first);
    if (count % 2 == 0) continue;
    ASSERT_TRUE(space.claim({first, first + count}));
    space.give({first, first + count}, ChunkMap::Zeros::none);
  }
  space.validate();
}

// A filed chunk, the most interesting to damage.
std::uint64_t filed_chunk(PageSpace& space) {
  for (std::uint64_t c = 0; c < space.map().chunks(); ++c)
    if (space.map().chunk(c).order != no_order) return c;
  return PageSpace::none;
}

TEST(PageSpace, RecountOfAnUndamagedSpaceChangesNothing) {
  PageSpace space(pages, ChunkMap::Zeros::none);
  fill(space);
  const std::uint64_t free = space.free_pages();
  const std::uint64_t longest = space.longest_run();
  EXPECT_EQ(0U, space.recount());
  space.validate();
  EXPECT_EQ(free, space.free_pages());
  EXPECT_EQ(longest, space.longest_run());
}

TEST(PageSpace, RecountMendsWhatIsFiledWrongly) {
  const std::function<void(ChunkMap::Chunk&)> damages[] = {
      [](ChunkMap::Chunk& chunk) { chunk.free_pages = 3; },
      [](ChunkMap::Chunk& chunk) { chunk.order = no_order; },
      [](ChunkMap::Chunk& chunk) { chunk.order = static_cast<std::uint8_t>(chunk.order ^ 1); },
      [](ChunkMap::Chunk& chunk) { chunk.order = 13; },
  };
  for (const auto& damage : damages) {
    PageSpace space(pages, ChunkMap::Zeros::none);
    fill(space);
    const std::uint64_t free = space.free_pages();
    damage(space.map().chunk(filed_chunk(space)));
    EXPECT_EQ(1U, space.recount());
    space.validate();
    EXPECT_EQ(free, space.free_pages());
    EXPECT_EQ(0U, space.recount());
  }
}

TEST(PageSpace, AClaimThatFailsLeavesEveryChunkAsItWas) {
  PageSpace space(pages, ChunkMap::Zeros::none);
  const std::uint64_t first = space.take_anywhere(4 * chunk_pages + 7, 0, 0);
  ASSERT_EQ(0U, first);
  // The last page is free, the chunks before it are allocated.
  EXPECT_FALSE(space.claim({0, 4 * chunk_pages + 8}));
  EXPECT_FALSE(space.claim({chunk_pages - 1, 5 * chunk_pages}));
  EXPECT_FALSE(space.claim({4 * chunk_pages + 7, 4 * chunk_pages + 8}));
  space.validate();
  EXPECT_TRUE(space.claim({3, 2 * chunk_pages + 5}));
  space.give({3, 2 * chunk_pages + 5}, ChunkMap::Zeros::none);
  EXPECT_FALSE(space.claim({0, 4 * chunk_pages + 7}));
  EXPECT_TRUE(space.claim({0, 3}));
  space.give({0, 3}, ChunkMap::Zeros::none);
  EXPECT_TRUE(space.claim({2 * chunk_pages + 5, 4 * chunk_pages + 7}));
  space.give({2 * chunk_pages + 5, 4 * chunk_pages + 7}, ChunkMap::Zeros::none);
  EXPECT_EQ(pages, space.free_pages());
  space.validate();
}

}  // namespace
}  // namespace accelmm::mm
