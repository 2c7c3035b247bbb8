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
      [](ChunkMap::Chunk& chunk) { chunk.blocks = BlockOrders::all_free(); },
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

TEST(PageSpace, AReleaseThatFailsLeavesEveryChunkAsItWas) {
  PageSpace space(pages, ChunkMap::Zeros::none);
  const std::uint64_t first = space.take(4 * chunk_pages + 7, 0, 2);
  ASSERT_EQ(0U, first);
  EXPECT_FALSE(space.release({0, 4 * chunk_pages + 8}, ChunkMap::Zeros::none));
  EXPECT_FALSE(space.release({0, 5 * chunk_pages}, ChunkMap::Zeros::none));
  EXPECT_FALSE(space.release({4 * chunk_pages + 7, 4 * chunk_pages + 8}, ChunkMap::Zeros::none));
  EXPECT_EQ(pages - 4 * chunk_pages - 7, space.free_pages());
  space.validate();
  EXPECT_TRUE(space.release({0, 4 * chunk_pages + 7}, ChunkMap::Zeros::none));
  EXPECT_FALSE(space.release({0, 4 * chunk_pages + 7}, ChunkMap::Zeros::none));
  EXPECT_EQ(pages, space.free_pages());
  space.validate();
}

// A run of chunks is whole words of states, and bytes before and behind: neighbours must not notice.
TEST(PageSpace, RunsOfChunksAtEveryPlaceLeaveTheirNeighboursAlone) {
  for (std::uint64_t before = 0; before < 9; ++before)
    for (std::uint64_t count = 2; count < 20; ++count) {
      PageSpace space(pages, ChunkMap::Zeros::all);
      const auto take = [&](std::uint64_t chunks) {
        const std::uint64_t first = space.take(chunks * chunk_pages, 0, 1);
        EXPECT_NE(PageSpace::none, first);
        return PageRun{first, first + chunks * chunk_pages};
      };
      if (before > 0) static_cast<void>(take(before));
      const PageRun run = take(count);
      const PageRun behind = take(3);
      ASSERT_EQ(before * chunk_pages, run.begin);
      ASSERT_EQ(run.end, behind.begin);
      for (std::uint64_t page = 0; page < behind.end; page += chunk_pages)
        ASSERT_TRUE(space.map().is_zero(page));  // known still when they are taken
      ASSERT_TRUE(space.release(run, ChunkMap::Zeros::none));
      for (std::uint64_t page = 0; page < behind.end; page += chunk_pages) {
        const bool mine = page >= run.begin && page < run.end;
        ASSERT_EQ(mine, !space.map().is_allocated(page));
        ASSERT_EQ(mine, !space.map().is_zero(page));
      }
      space.validate();
    }
}

}  // namespace
}  // namespace accelmm::mm
