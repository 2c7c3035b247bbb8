// SPDX-License-Identifier: Apache-2.0
#include <accelmm/page_allocator.hpp>
#include <accelmm/slab.hpp>

#include <vector>

#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

TEST(SlabOverPages, TakesItsSlabsFromThePageAllocatorAndGivesThemBack) {
  auto pages = PageAllocator::create({.size = 16_MiB});
  ASSERT_TRUE(pages);
  PageAllocatorSource source(*pages);
  auto slab = Slab::create({.source = &source, .region = 16_MiB});
  ASSERT_TRUE(slab);
  std::vector<RegionOffset> offsets(1000);
  for (const ByteCount size : {16_B, 1_KiB, 5_KiB}) {
    ASSERT_TRUE(slab->allocate_bulk(size, offsets));
    const auto statistics = slab->statistics();
    EXPECT_EQ(16_MiB, pages->statistics().free + statistics.from_source);
    ASSERT_TRUE(slab->free_bulk(offsets));
  }
  slab->trim();
  EXPECT_EQ(16_MiB, pages->statistics().free);
  pages->validate();
}

TEST(SlabOverPages, FillsTheRegionToItsLastSlabAndThenSaysThatThereIsNoMemory) {
  auto pages = PageAllocator::create({.size = 1_MiB});
  ASSERT_TRUE(pages);
  PageAllocatorSource source(*pages);
  auto slab = Slab::create({.source = &source, .region = 1_MiB});
  ASSERT_TRUE(slab);
  std::vector<RegionOffset> offsets(1024);
  ASSERT_TRUE(slab->allocate_bulk(1_KiB, offsets));
  EXPECT_EQ(0_B, pages->statistics().free);
  EXPECT_EQ(Errc::no_memory, slab->allocate(1_KiB).error().code);
  ASSERT_TRUE(slab->free(offsets.back()));
  EXPECT_EQ(offsets.back(), slab->allocate(1_KiB)->offset);
  ASSERT_TRUE(slab->free_bulk(offsets));
  // What one class has left over serves another.
  EXPECT_TRUE(slab->allocate(16_KiB));
  slab->validate();
}

}  // namespace
}  // namespace accelmm::test
