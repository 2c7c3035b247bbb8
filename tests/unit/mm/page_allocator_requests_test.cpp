// SPDX-License-Identifier: Apache-2.0
#include <accelmm/page_allocator.hpp>

#include <vector>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

constexpr std::uint64_t page_bytes = 4096;

ByteCount pages(std::uint64_t count) {
  return ByteCount(count * page_bytes);
}
Extent page_extent(std::uint64_t begin, std::uint64_t count) {
  return {RegionOffset(begin * page_bytes), pages(count)};
}
Range<RegionOffset> page_range(std::uint64_t begin, std::uint64_t end) {
  return {RegionOffset(begin * page_bytes), RegionOffset(end * page_bytes)};
}
PageAllocator make(ByteCount size, Contents contents = Contents::unknown) {
  return PageAllocator::create({.size = size, .contents = contents}).value();
}
std::uint64_t chunk_of(const Extent& extent) {
  return extent.offset.value() / page_bytes / 512;
}

TEST(PageAllocatorRequest, StaysInsideItsRange) {
  auto allocator = make(64_MiB);
  const auto within = page_range(1000, 9000);
  std::uint64_t taken = 0;
  for (std::uint64_t count = 1;;) {
    const auto extent = allocator.allocate({.size = pages(count), .within = within});
    if (!extent && count == 1) break;
    if (!extent) {
      count = 1;
      continue;
    }
    EXPECT_GE(extent->offset, within.begin);
    EXPECT_LE(extent->end(), within.end);
    taken += count;
    count = taken > 7000 ? 1 : count % 700 + 37;
  }
  EXPECT_EQ(8000U, taken);
  allocator.validate();
}

TEST(PageAllocatorRequest, TakesWholeNativePagesThatAreNoPowerOfTwo) {
  auto allocator = PageAllocator::create({.size = 96_GiB, .page = 768_MiB}).value();
  const auto one = allocator.allocate(1_B).value();
  EXPECT_EQ(768_MiB, one.length);
  const auto two = allocator.allocate(769_MiB).value();
  EXPECT_EQ(1536_MiB, two.length);
  EXPECT_EQ(0U, two.offset.value() % (std::uint64_t{768} << 20));
  // 4 GiB divide every 16th page, and no other.
  const auto aligned = allocator.allocate(1_B, Alignment(std::uint64_t{4} << 30)).value();
  EXPECT_EQ(0U, aligned.offset.value() % (std::uint64_t{4} << 30));
  EXPECT_EQ(Errc::invalid_argument, allocator.free({one.offset, 512_MiB}).error().code);
  EXPECT_EQ(Errc::invalid_argument,
            allocator.free({RegionOffset(256 << 20), 768_MiB}).error().code);
  EXPECT_TRUE(allocator.free(one).has_value());
  EXPECT_EQ(Errc::invalid_argument, allocator.free(one).error().code);
  EXPECT_TRUE(allocator.free(two).has_value());
  EXPECT_TRUE(allocator.free(aligned).has_value());
  EXPECT_EQ(96_GiB, allocator.statistics().free);
  allocator.validate();
}

TEST(PageAllocatorRequest, RefusesAFreeThatIsEmptyOrOddWherePagesArePoisoned) {
  auto allocator = make(8_MiB);
  const auto page = allocator.allocate(pages(1)).value();
  ASSERT_TRUE(allocator.poison(page_extent(77, 1)).has_value());
  EXPECT_EQ(Errc::invalid_argument, allocator.free({page.offset, 0_B}).error().code);
  EXPECT_EQ(Errc::invalid_argument, allocator.free({RegionOffset(1), pages(1)}).error().code);
  EXPECT_EQ(Errc::invalid_argument, allocator.free({RegionOffset(8 << 20), pages(1)}).error().code);
  EXPECT_TRUE(allocator.free(page).has_value());
  allocator.validate();
}

TEST(PageAllocatorRequest, FindsTheLastPageOfARange) {
  auto allocator = make(8_MiB);
  ASSERT_TRUE(allocator.reserve(page_extent(100, 7)).has_value());
  EXPECT_EQ(page_extent(107, 1),
            allocator.allocate({.size = pages(1), .within = page_range(100, 108)}).value());
  EXPECT_EQ(Errc::no_memory,
            allocator.allocate({.size = pages(1), .within = page_range(100, 108)}).error().code);
  allocator.validate();
}

TEST(PageAllocatorRequest, RoundsARangeInwardsToWholePages) {
  auto allocator = make(8_MiB);
  const Range<RegionOffset> odd{RegionOffset(page_bytes + 1), RegionOffset(4 * page_bytes - 1)};
  EXPECT_EQ(page_extent(2, 1), allocator.allocate({.size = pages(1), .within = odd}).value());
  EXPECT_EQ(Errc::no_memory, allocator.allocate({.size = pages(1), .within = odd}).error().code);
}

TEST(PageAllocatorRequest, RefusesSizeZeroAndABackwardRange) {
  auto allocator = make(8_MiB);
  EXPECT_EQ(Errc::invalid_argument, allocator.allocate(PageAllocator::Request{}).error().code);
  EXPECT_EQ(Errc::invalid_argument,
            allocator.allocate({.size = pages(1), .within = page_range(5, 4)}).error().code);
}

TEST(PageAllocatorRequest, ARangeBeyondTheRegionHoldsNothing) {
  auto allocator = make(8_MiB);
  EXPECT_EQ(Errc::no_memory,
            allocator.allocate({.size = pages(1), .within = page_range(2048, 4096)}).error().code);
  EXPECT_EQ(page_extent(2047, 1),
            allocator.allocate({.size = pages(1), .within = page_range(2047, 4096)}).value());
}

TEST(PageAllocatorRequest, GoesToTheEndItIsAskedTo) {
  auto allocator = make(64_MiB);
  for (const std::uint64_t count : {1U, 5U, 512U, 1300U}) {
    const auto low =
        allocator.allocate({.size = pages(count), .placement = Placement::bottom_up}).value();
    const auto high =
        allocator.allocate({.size = pages(count), .placement = Placement::top_down}).value();
    EXPECT_LT(low.offset.value(), (4_MiB).value() + (10_MiB).value());
    EXPECT_GT(high.offset.value(), (64_MiB).value() - (16_MiB).value());
    ASSERT_TRUE(allocator.free(low).has_value());
    ASSERT_TRUE(allocator.free(high).has_value());
  }
  EXPECT_EQ(64_MiB, allocator.statistics().largest_free);
  allocator.validate();
}

TEST(PageAllocatorRequest, TopDownAndAlignedTakesTheHighestMultiple) {
  auto allocator = make(64_MiB);
  const auto extent = allocator.allocate(
      {.size = pages(700), .alignment = Alignment(8 << 20), .placement = Placement::top_down});
  EXPECT_EQ((Extent{RegionOffset(56 << 20), pages(700)}), extent.value());
}

TEST(PageAllocatorRequest, LifetimesShareNoChunkWhileThereIsRoom) {
  auto allocator = make(64_MiB);
  constexpr Lifetime all[] = {Lifetime::short_lived, Lifetime::long_lived, Lifetime::pinned,
                              Lifetime::page_tables};
  std::vector<int> owner(32, -1);
  for (int i = 0; i < 800; ++i) {
    const int kind = i % 4;
    const auto extent =
        allocator
            .allocate({.size = pages(1 + static_cast<std::uint64_t>(i) % 5), .lifetime = all[kind]})
            .value();
    int& seen = owner[chunk_of(extent)];
    EXPECT_TRUE(seen == -1 || seen == kind);
    seen = kind;
  }
  allocator.validate();
}

TEST(PageAllocatorRequest, ALifetimeMayUseTheRoomOfOthersBeforeItIsRefused) {
  auto allocator = make(4_MiB);
  const auto first = allocator.allocate({.size = pages(300)}).value();
  const auto second =
      allocator.allocate({.size = pages(300), .lifetime = Lifetime::pinned}).value();
  EXPECT_NE(chunk_of(first), chunk_of(second));
  std::uint64_t taken = 0;
  while (allocator.allocate({.size = pages(1), .lifetime = Lifetime::page_tables})) ++taken;
  EXPECT_EQ(1024U - 600U, taken);
  allocator.validate();
}

TEST(PageAllocatorPoison, AFreePageIsNeverHandedOutAgain) {
  auto allocator = make(2_MiB);
  ASSERT_TRUE(allocator.poison(page_extent(17, 3)).has_value());
  EXPECT_EQ(pages(3), allocator.statistics().poisoned);
  std::uint64_t taken = 0;
  while (const auto extent = allocator.allocate(pages(1))) {
    const std::uint64_t page = extent->offset.value() / page_bytes;
    EXPECT_TRUE(page < 17 || page >= 20);
    ++taken;
  }
  EXPECT_EQ(509U, taken);
  EXPECT_EQ(Errc::invalid_argument, allocator.free(page_extent(18, 1)).error().code);
}

TEST(PageAllocatorPoison, AnAllocatedPageStaysOutWhenItsOwnerFreesIt) {
  auto allocator = make(2_MiB);
  const auto owned = allocator.allocate(pages(8)).value();
  const Extent bad{owned.offset + pages(2), pages(1)};
  ASSERT_TRUE(allocator.poison(bad).has_value());
  ASSERT_TRUE(allocator.poison(bad).has_value());
  EXPECT_EQ(pages(1), allocator.statistics().poisoned);
  EXPECT_TRUE(allocator.free(owned).has_value());
  EXPECT_EQ(pages(511), allocator.statistics().free);
  EXPECT_EQ(Errc::invalid_argument, allocator.free(bad).error().code);
  EXPECT_EQ(Errc::invalid_argument, allocator.free(owned).error().code);
  std::uint64_t taken = 0;
  while (allocator.allocate(pages(1))) ++taken;
  EXPECT_EQ(511U, taken);
  allocator.validate();
}

TEST(PageAllocatorPoison, RefusesWhatIsNoExtentOfTheRegion) {
  auto allocator = make(2_MiB);
  EXPECT_EQ(Errc::invalid_argument, allocator.poison(page_extent(512, 1)).error().code);
  EXPECT_EQ(Errc::invalid_argument, allocator.poison({RegionOffset(1), pages(1)}).error().code);
  EXPECT_EQ(Errc::invalid_argument, allocator.poison({RegionOffset(0), 0_B}).error().code);
}

// The parts of an extent that may hold something else than zeros.
std::vector<Extent> dirty_parts(const PageAllocator& allocator, Extent extent) {
  std::vector<Extent> parts;
  while (extent.length > 0_B) {
    const Extent dirty = allocator.first_dirty(extent).value();
    if (dirty.length == 0_B) break;
    parts.push_back(dirty);
    extent = {dirty.end(), extent.end() - dirty.end()};
  }
  return parts;
}

TEST(PageAllocatorZeros, AFreshRegionIsKnownToBeZeroOnlyIfItsMakerSaysSo) {
  auto fresh = make(8_MiB, Contents::zeros);
  EXPECT_TRUE(dirty_parts(fresh, fresh.allocate(5_MiB).value()).empty());
  EXPECT_TRUE(dirty_parts(fresh, fresh.allocate(pages(1)).value()).empty());
  auto unknown = make(8_MiB);
  const auto extent = unknown.allocate(5_MiB).value();
  EXPECT_EQ(std::vector<Extent>{extent}, dirty_parts(unknown, extent));
}

TEST(PageAllocatorZeros, WhatWasHandedOutIsDirtyUnlessItIsFreedAsZeros) {
  for (const std::uint64_t count : {1U, 3U, 512U, 1100U}) {
    auto allocator = make(8_MiB, Contents::zeros);
    const auto extent = allocator.allocate(pages(count), Alignment(2 << 20)).value();
    ASSERT_TRUE(allocator.free(extent).has_value());
    ASSERT_TRUE(allocator.reserve(extent).has_value());
    EXPECT_EQ(std::vector<Extent>{extent}, dirty_parts(allocator, extent)) << count;
    ASSERT_TRUE(allocator.free(extent, Contents::zeros).has_value());
    ASSERT_TRUE(allocator.reserve(extent).has_value());
    EXPECT_TRUE(dirty_parts(allocator, extent).empty()) << count;
    allocator.validate();
  }
}

TEST(PageAllocatorZeros, DirtyAndCleanPagesMergeIntoOneFreeRun) {
  auto allocator = make(4_MiB, Contents::zeros);
  std::vector<Extent> all;
  for (int i = 0; i < 1024; ++i) all.push_back(allocator.allocate(pages(1)).value());
  for (std::size_t i = 0; i < all.size(); ++i)
    ASSERT_TRUE(allocator.free(all[i], i % 2 == 0 ? Contents::zeros : Contents::unknown));
  const auto whole = allocator.allocate(4_MiB).value();
  const auto parts = dirty_parts(allocator, whole);
  ASSERT_EQ(512U, parts.size());
  for (const Extent& part : parts) EXPECT_EQ(pages(1), part.length);
}

TEST(PageAllocatorZeros, RefusesWhatIsNoExtentOfTheRegion) {
  const auto allocator = make(2_MiB);
  EXPECT_EQ(Errc::invalid_argument, allocator.first_dirty(page_extent(512, 1)).error().code);
}

TEST(PageAllocatorRequest, StatisticsTellWholeChunks) {
  auto allocator = make(8_MiB);
  EXPECT_EQ(8_MiB, allocator.statistics().whole_chunks);
  const auto small = allocator.allocate(pages(2)).value();
  EXPECT_EQ(6_MiB, allocator.statistics().whole_chunks);
  ASSERT_TRUE(allocator.free(small).has_value());
  EXPECT_EQ(8_MiB, allocator.statistics().whole_chunks);
}

TEST(PageAllocatorRequest, FindsCleanPagesAmongOthersThatServeAsWell) {
  auto allocator = make(64_MiB, Contents::zeros);
  const auto soiled = allocator.allocate({.size = pages(304)}).value();
  ASSERT_TRUE(allocator.free({soiled.offset, pages(16)}).has_value());
  // The pages that were freed last lie lower, and are not known to hold zeros.
  const auto any = allocator.allocate({.size = pages(16)}).value();
  EXPECT_EQ(pages(16), allocator.first_dirty(any).value().length);
  for (const std::uint64_t count : {1U, 2U, 16U, 100U, 512U, 700U}) {
    const auto clean =
        allocator.allocate({.size = pages(count), .contents = Contents::zeros}).value();
    EXPECT_EQ(0_B, allocator.first_dirty(clean).value().length) << count;
  }
  allocator.validate();
}

TEST(PageAllocatorRequest, TakesOtherPagesWhereNoneIsClean) {
  auto allocator = make(4_MiB);
  const auto first = allocator.allocate({.size = pages(5), .contents = Contents::zeros});
  EXPECT_EQ(pages(5), first.value().length);
  EXPECT_EQ(pages(1019),
            allocator.allocate({.size = pages(1019), .contents = Contents::zeros}).value().length);
  EXPECT_EQ(Errc::no_memory,
            allocator.allocate({.size = pages(1), .contents = Contents::zeros}).error().code);
  allocator.validate();
}

TEST(PageAllocatorRequest, AskingForCleanPagesSplitsNoFreeSpace) {
  auto allocator = make(64_MiB, Contents::zeros);
  // Every other chunk is soiled; together they are still one run.
  std::vector<Extent> chunks;
  for (int i = 0; i < 32; ++i)
    chunks.push_back(allocator.allocate(2_MiB, Alignment(2 << 20)).value());
  for (std::size_t i = 0; i < chunks.size(); ++i)
    ASSERT_TRUE(
        allocator.free(chunks[i], i % 2 == 0 ? Contents::unknown : Contents::zeros).has_value());
  EXPECT_EQ(64_MiB, allocator.allocate({.size = 64_MiB, .contents = Contents::zeros})->length);
}

}  // namespace
}  // namespace accelmm
