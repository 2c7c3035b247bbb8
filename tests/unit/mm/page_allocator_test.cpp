// SPDX-License-Identifier: Apache-2.0
#include "unit/mm/failing_new.hpp"

#include <accelmm/page_allocator.hpp>

#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

constexpr std::uint64_t page_bytes = 4096;

PageAllocator make(ByteCount size, ByteCount page = ByteCount(page_bytes)) {
  auto made = PageAllocator::create({.size = size, .page = page});
  EXPECT_TRUE(made.has_value());
  return std::move(made).value();
}

ByteCount pages(std::uint64_t count) {
  return ByteCount(count * page_bytes);
}
Extent page_extent(std::uint64_t first, std::uint64_t count) {
  return {RegionOffset(first * page_bytes), pages(count)};
}
std::uint64_t free_pages(const PageAllocator& allocator) {
  return allocator.statistics().free.value() / page_bytes;
}
std::uint64_t longest_run(const PageAllocator& allocator) {
  return allocator.statistics().largest_free.value() / page_bytes;
}

TEST(PageAllocator, RefusesARegionThatIsNotWholePages) {
  EXPECT_EQ(Errc::invalid_argument, PageAllocator::create({.size = 0_B}).error().code);
  EXPECT_EQ(Errc::invalid_argument, PageAllocator::create({.size = 4097_B}).error().code);
  EXPECT_EQ(Errc::invalid_argument,
            PageAllocator::create({.size = 4_KiB, .page = ByteCount(8192)}).error().code);
}

TEST(PageAllocator, RefusesMoreThanTwoToThe36Pages) {
  const ByteCount beyond((std::uint64_t{1} << 36) + 1);
  EXPECT_EQ(Errc::invalid_argument,
            PageAllocator::create({.size = beyond, .page = ByteCount(1)}).error().code);
}

TEST(PageAllocator, GivesTheWholeRegionOnceAndAgainAfterFree) {
  auto allocator = make(768_MiB);
  const auto all = allocator.allocate(768_MiB);
  ASSERT_TRUE(all.has_value());
  EXPECT_EQ((Extent{RegionOffset(0), 768_MiB}), *all);
  EXPECT_EQ(Errc::no_memory, allocator.allocate(1_B).error().code);
  ASSERT_TRUE(allocator.free(*all).has_value());
  EXPECT_EQ(768_MiB, allocator.statistics().largest_free);
  EXPECT_EQ(*all, allocator.allocate(768_MiB).value());
  allocator.validate();
}

TEST(PageAllocator, RoundsUpToThePageAndNoFurther) {
  auto allocator = make(pages(64));
  EXPECT_EQ(pages(1), allocator.allocate(1_B).value().length);
  EXPECT_EQ(pages(5), allocator.allocate(ByteCount(4 * page_bytes + 1)).value().length);
  EXPECT_EQ(58U, free_pages(allocator));
  allocator.validate();
}

TEST(PageAllocator, RefusesSizeZero) {
  auto allocator = make(pages(8));
  EXPECT_EQ(Errc::invalid_argument, allocator.allocate(0_B).error().code);
  EXPECT_EQ(Errc::invalid_argument, allocator.allocate(0_B, Alignment(4096)).error().code);
  EXPECT_EQ(Errc::invalid_argument, allocator.allocate_scattered(0_B).error().code);
}

TEST(PageAllocator, RefusesSizesThatWouldOverflowWhenRounded) {
  auto allocator = make(pages(8));
  const ByteCount most(~std::uint64_t{0});
  EXPECT_EQ(Errc::no_memory, allocator.allocate(most).error().code);
  EXPECT_EQ(Errc::no_memory, allocator.allocate(most, Alignment(4096)).error().code);
  EXPECT_EQ(Errc::no_memory, allocator.allocate_scattered(most).error().code);
  EXPECT_EQ(8U, free_pages(allocator));
}

TEST(PageAllocator, AlignsSmallThingsFarBeyondTheirSize) {
  auto allocator = make(16_MiB);
  ASSERT_TRUE(allocator.allocate(4_KiB).has_value());
  const auto aligned = allocator.allocate(4_KiB, Alignment(2 << 20)).value();
  EXPECT_EQ(0U, aligned.offset.value() % (2 << 20));
  EXPECT_EQ(pages(1), aligned.length);
  EXPECT_EQ(16_MiB - pages(2), allocator.statistics().free);
  allocator.validate();
}

TEST(PageAllocator, AlignsLargeThingsLessThanTheirSize) {
  auto allocator = make(pages(8));
  ASSERT_TRUE(allocator.reserve(page_extent(0, 1)).has_value());
  ASSERT_TRUE(allocator.reserve(page_extent(7, 1)).has_value());
  const auto middle = allocator.allocate(pages(6), Alignment(page_bytes));
  ASSERT_TRUE(middle.has_value());
  EXPECT_EQ(page_extent(1, 6), *middle);
}

TEST(PageAllocator, AnAlignmentBeyondTheRegionLeavesOnlyOffsetZero) {
  auto allocator = make(pages(8));
  const Alignment huge(std::uint64_t{1} << 62);
  EXPECT_EQ(page_extent(0, 2), allocator.allocate(pages(2), huge).value());
  EXPECT_EQ(Errc::no_memory, allocator.allocate(pages(2), huge).error().code);
  EXPECT_EQ(6U, free_pages(allocator));
}

TEST(PageAllocator, NaturalAlignmentStopsAtTwoMebibytes) {
  auto allocator = make(12_MiB);
  ASSERT_TRUE(allocator.reserve(page_extent(0, 1)).has_value());
  EXPECT_EQ((Extent{RegionOffset(2 << 20), 9_MiB}), allocator.allocate(9_MiB).value());
}

TEST(PageAllocator, NaturalAlignmentYieldsWhereOnlyAnUnalignedPlaceIsLeft) {
  auto allocator = make(pages(4));
  ASSERT_TRUE(allocator.reserve(page_extent(0, 1)).has_value());
  ASSERT_TRUE(allocator.reserve(page_extent(3, 1)).has_value());
  EXPECT_EQ(Errc::no_memory, allocator.allocate(pages(2), Alignment(8192)).error().code);
  EXPECT_EQ(page_extent(1, 2), allocator.allocate(pages(2)).value());
}

TEST(PageAllocator, FreeingBothHalvesRestoresTheParent) {
  auto allocator = make(pages(2));
  const auto left = allocator.allocate(pages(1)).value();
  const auto right = allocator.allocate(pages(1)).value();
  ASSERT_TRUE(allocator.free(left).has_value());
  ASSERT_TRUE(allocator.free(right).has_value());
  EXPECT_EQ(2U, longest_run(allocator));
  EXPECT_EQ(page_extent(0, 2), allocator.allocate(pages(2)).value());
}

TEST(PageAllocator, FreesAnyPartOfAnAllocation) {
  auto allocator = make(pages(16));
  const auto whole = allocator.allocate(pages(16)).value();
  ASSERT_TRUE(allocator.free(page_extent(3, 5)).has_value());
  EXPECT_EQ(5U, free_pages(allocator));
  EXPECT_EQ(5U, longest_run(allocator));
  EXPECT_EQ(Errc::invalid_argument, allocator.free(whole).error().code);
  ASSERT_TRUE(allocator.free(page_extent(0, 3)).has_value());
  ASSERT_TRUE(allocator.free(page_extent(8, 8)).has_value());
  EXPECT_EQ(16U, longest_run(allocator));
  allocator.validate();
}

TEST(PageAllocator, FreesNeighboursInOneCall) {
  auto allocator = make(pages(8));
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(allocator.allocate(pages(2)).has_value());
  EXPECT_TRUE(allocator.free(page_extent(1, 6)).has_value());
  EXPECT_EQ(6U, free_pages(allocator));
  allocator.validate();
}

TEST(PageAllocator, FreesWholeChunksOnBothSidesOfAPartlyFreeOne) {
  auto allocator = make(8_MiB);
  ASSERT_TRUE(allocator.allocate(8_MiB).has_value());
  ASSERT_TRUE(allocator.free(page_extent(600, 1)).has_value());
  ASSERT_TRUE(allocator.reserve(page_extent(600, 1)).has_value());
  ASSERT_TRUE(allocator.free(page_extent(0, 1536)).has_value());
  allocator.validate();
  EXPECT_EQ(1536U, longest_run(allocator));
}

TEST(PageAllocator, RefusesDoubleFreeOfACachedPage) {
  auto allocator = make(pages(8));
  const auto page = allocator.allocate(pages(1)).value();
  ASSERT_TRUE(allocator.free(page).has_value());
  EXPECT_EQ(Errc::invalid_argument, allocator.free(page).error().code);
  EXPECT_EQ(8U, free_pages(allocator));
  allocator.validate();
}

TEST(PageAllocator, RefusesDoubleFreeOfACachedLargeBlockAndOfItsPages) {
  auto allocator = make(8_MiB);
  const auto block = allocator.allocate(2_MiB).value();
  ASSERT_TRUE(allocator.free(block).has_value());
  EXPECT_EQ(Errc::invalid_argument, allocator.free(block).error().code);
  EXPECT_EQ(Errc::invalid_argument, allocator.free({block.offset, pages(1)}).error().code);
  EXPECT_EQ(8_MiB, allocator.statistics().free);
  allocator.validate();
}

TEST(PageAllocator, RefusesUnalignedEmptyAndForeignExtents) {
  auto allocator = make(pages(8));
  ASSERT_TRUE(allocator.allocate(pages(8)).has_value());
  const Extent bad[] = {
      {RegionOffset(1), pages(1)},
      {RegionOffset(0), 1_B},
      {RegionOffset(0), 0_B},
      page_extent(8, 1),
      page_extent(7, 2),
      {RegionOffset(0), ByteCount(~std::uint64_t{0} - 4095)},
      {RegionOffset(~std::uint64_t{0} - 4095), pages(1)},
  };
  for (const Extent& extent : bad) {
    EXPECT_EQ(Errc::invalid_argument, allocator.free(extent).error().code);
    EXPECT_EQ(Errc::invalid_argument, allocator.reserve(extent).error().code);
  }
  EXPECT_EQ(0U, free_pages(allocator));
  allocator.validate();
}

TEST(PageAllocator, ReservesChosenPagesOnlyWhileTheyAreFree) {
  auto allocator = make(pages(32));
  ASSERT_TRUE(allocator.reserve(page_extent(5, 7)).has_value());
  EXPECT_EQ(Errc::address_in_use, allocator.reserve(page_extent(11, 2)).error().code);
  EXPECT_EQ(25U, free_pages(allocator));
  for (int i = 0; i < 25; ++i) {
    const auto got = allocator.allocate(pages(1)).value();
    EXPECT_FALSE(got.offset.value() >= 5 * page_bytes && got.offset.value() < 12 * page_bytes);
  }
  EXPECT_TRUE(allocator.free(page_extent(5, 7)).has_value());
  allocator.validate();
}

TEST(PageAllocator, ReservesPagesThatTheCacheHolds) {
  auto allocator = make(pages(8));
  const auto page = allocator.allocate(pages(1)).value();
  ASSERT_TRUE(allocator.free(page).has_value());
  EXPECT_TRUE(allocator.reserve(page).has_value());
  EXPECT_NE(page, allocator.allocate(pages(1)).value());
  allocator.validate();
}

TEST(PageAllocator, FindsARunThatCrossesBlocksOfAnySize) {
  // 1000 pages at an odd start: no single block holds more than 512 of them.
  auto allocator = make(pages(2048));
  ASSERT_TRUE(allocator.reserve(page_extent(0, 525)).has_value());
  ASSERT_TRUE(allocator.reserve(page_extent(1525, 523)).has_value());
  EXPECT_EQ(1000U, longest_run(allocator));
  EXPECT_EQ(Errc::no_memory, allocator.allocate(pages(1001), Alignment(4096)).error().code);
  EXPECT_EQ(page_extent(525, 1000), allocator.allocate(pages(1000), Alignment(4096)).value());
  allocator.validate();
}

TEST(PageAllocator, FindsAnAlignedPlaceInsideARunThatCrossesBlocks) {
  auto allocator = make(pages(1024));
  ASSERT_TRUE(allocator.reserve(page_extent(0, 130)).has_value());
  ASSERT_TRUE(allocator.reserve(page_extent(420, 604)).has_value());
  const Alignment pages_64(64 * page_bytes);  // 192 is the first multiple; 228 pages follow it
  EXPECT_EQ(Errc::no_memory, allocator.allocate(pages(229), pages_64).error().code);
  EXPECT_EQ(page_extent(192, 228), allocator.allocate(pages(228), pages_64).value());
}

TEST(PageAllocator, LooksPastManyUnalignedPagesForTheLastAlignedOne) {
  auto allocator = make(pages(4096));
  ASSERT_TRUE(allocator.allocate(pages(4096)).has_value());
  for (std::uint64_t page = 1; page < 4000; page += 2)
    ASSERT_TRUE(allocator.free(page_extent(page, 1)).has_value());
  ASSERT_TRUE(allocator.free(page_extent(4032, 1)).has_value());
  const Alignment pages_64(64 * page_bytes);
  EXPECT_EQ(page_extent(4032, 1), allocator.allocate(pages(1), pages_64).value());
  EXPECT_EQ(Errc::no_memory, allocator.allocate(pages(1), pages_64).error().code);
}

TEST(PageAllocator, EmptiesItsCachesBeforeItRefuses) {
  auto allocator = make(pages(64));
  std::vector<Extent> all;
  for (int i = 0; i < 64; ++i) all.push_back(allocator.allocate(pages(1)).value());
  for (const Extent& extent : all) ASSERT_TRUE(allocator.free(extent).has_value());
  allocator.validate();
  EXPECT_EQ(64U, longest_run(allocator));
  EXPECT_EQ(page_extent(0, 64), allocator.allocate(pages(64)).value());
}

TEST(PageAllocator, LongestRunCountsPagesThatTheCachesHold) {
  auto allocator = make(8_MiB);
  ASSERT_TRUE(allocator.allocate(8_MiB).has_value());
  ASSERT_TRUE(allocator.free(page_extent(0, 511)).has_value());
  ASSERT_TRUE(allocator.free(page_extent(511, 1)).has_value());
  ASSERT_TRUE(allocator.free(page_extent(512, 512)).has_value());
  ASSERT_TRUE(allocator.free(page_extent(1024, 100)).has_value());
  EXPECT_EQ(1124U, longest_run(allocator));
  allocator.validate();
}

TEST(PageAllocator, LongestRunCountsACachedLargeBlockThatIsLongerThanAnyOther) {
  auto allocator = make(8_MiB);
  ASSERT_TRUE(allocator.allocate(8_MiB).has_value());
  ASSERT_TRUE(allocator.free(page_extent(512, 512)).has_value());
  ASSERT_TRUE(allocator.free(page_extent(1280, 256)).has_value());
  EXPECT_EQ(512U, longest_run(allocator));
}

TEST(PageAllocator, ScattersOverAllThatIsFreeLongestFirst) {
  auto allocator = make(pages(16));
  ASSERT_TRUE(allocator.reserve(page_extent(2, 1)).has_value());
  ASSERT_TRUE(allocator.reserve(page_extent(9, 2)).has_value());
  const auto extents = allocator.allocate_scattered(pages(13)).value();
  const std::vector<Extent> expected = {page_extent(3, 6), page_extent(11, 5), page_extent(0, 2)};
  EXPECT_EQ(expected, extents);
  EXPECT_EQ(0U, free_pages(allocator));
  allocator.validate();
}

TEST(PageAllocator, ScattersIntoOneExtentWhereOneBlockHoldsAll) {
  auto allocator = make(pages(1024));
  ASSERT_TRUE(allocator.allocate(pages(3)).has_value());
  const auto extents = allocator.allocate_scattered(pages(100)).value();
  ASSERT_EQ(1U, extents.size());
  EXPECT_EQ(pages(100), extents[0].length);
}

TEST(PageAllocator, ScatterIsAllOrNothing) {
  auto allocator = make(pages(16));
  ASSERT_TRUE(allocator.reserve(page_extent(4, 1)).has_value());
  EXPECT_EQ(Errc::no_memory, allocator.allocate_scattered(pages(16)).error().code);
  EXPECT_EQ(15U, free_pages(allocator));
  EXPECT_EQ(11U, longest_run(allocator));
  allocator.validate();
}

TEST(PageAllocator, ScatterLeavesAllAsItWasWithoutRoomForItsList) {
  auto allocator = make(pages(16));
  ASSERT_TRUE(allocator.reserve(page_extent(4, 1)).has_value());
  {
    const test::FailingNew failing(0);
    EXPECT_EQ(Errc::no_memory, allocator.allocate_scattered(pages(15)).error().code);
  }
  EXPECT_EQ(15U, free_pages(allocator));
  allocator.validate();
  EXPECT_EQ(2U, allocator.allocate_scattered(pages(15)).value().size());
}

TEST(PageAllocator, CreateFailsCleanlyAtEachAllocation) {
  const auto live = test::heap.live;
  int failures = 0;
  for (int k = 0;; ++k, ++failures) {
    const test::FailingNew failing(k);
    const auto made = PageAllocator::create({.size = 1_GiB});
    if (made) break;
    EXPECT_EQ(Errc::no_memory, made.error().code);
    EXPECT_EQ(live, test::heap.live);
  }
  EXPECT_EQ(14, failures);
  EXPECT_EQ(live, test::heap.live);
}

TEST(PageAllocator, TakesNoMemoryAfterCreate) {
  auto allocator = make(1_GiB);
  const auto calls = test::heap.calls;
  std::uint64_t offset = 0;
  for (std::uint64_t count = 1; count < 600; count += 7) {
    const auto extent = allocator.allocate(pages(count)).value();
    offset += extent.offset.value();
    if (count % 2 != 0) continue;
    ASSERT_TRUE(allocator.free(extent).has_value());
  }
  EXPECT_EQ(calls, test::heap.calls);
  EXPECT_NE(0U, offset);
}

TEST(PageAllocator, MetadataOfATebibyteStaysBelow12HundredThousandths) {
  auto allocator = make(1024_GiB);
  const auto statistics = allocator.statistics();
  EXPECT_EQ(1024_GiB, statistics.largest_free);
  EXPECT_LE(statistics.metadata.value(), statistics.total.value() / 100'000 * 12);
  const auto top = allocator.allocate(512_GiB).value();
  const auto rest = allocator.allocate(512_GiB).value();
  EXPECT_NE(top.offset, rest.offset);
  EXPECT_EQ(Errc::no_memory, allocator.allocate(1_B).error().code);
}

TEST(PageAllocator, WorksWithPagesOfOneByteAndOfAGibibyte) {
  auto bytes = make(100_B, 1_B);
  EXPECT_EQ(37_B, bytes.allocate(37_B).value().length);
  bytes.validate();
  auto gibibytes = make(5_GiB, 1_GiB);
  EXPECT_EQ(1_GiB, gibibytes.allocate(1_B).value().length);
  EXPECT_EQ(4_GiB, gibibytes.allocate(4_GiB).value().length);
  EXPECT_EQ(0_B, gibibytes.statistics().free);
  gibibytes.validate();
}

TEST(PageAllocator, CountsOnlyWhatSucceeds) {
  auto allocator = make(pages(8));
  const auto extent = allocator.allocate(pages(2)).value();
  ASSERT_TRUE(allocator.allocate_scattered(pages(2)).has_value());
  ASSERT_TRUE(allocator.reserve(page_extent(7, 1)).has_value());
  ASSERT_TRUE(allocator.free(extent).has_value());
  ASSERT_FALSE(allocator.free(extent).has_value());
  ASSERT_FALSE(allocator.allocate(pages(9)).has_value());
  EXPECT_EQ(3U, allocator.statistics().allocations);
  EXPECT_EQ(1U, allocator.statistics().frees);
}

TEST(PageAllocator, MovesWithItsState) {
  auto first = make(pages(8));
  const auto extent = first.allocate(pages(3)).value();
  auto second = std::move(first);
  EXPECT_EQ(5U, free_pages(second));
  EXPECT_TRUE(second.free(extent).has_value());
  second.validate();
}

}  // namespace
}  // namespace accelmm
