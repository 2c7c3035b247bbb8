// SPDX-License-Identifier: Apache-2.0
#include "unit/mm/device_heap_fixture.hpp"

#include <map>
#include <random>
#include <set>
#include <vector>

namespace accelmm::test {
namespace {

TEST_F(DeviceHeapTest, TwoOwnersNeverShareANativePage) {
  make();
  const std::vector<OwnerId> owners{owner(), owner(), owner()};
  std::map<std::uint64_t, OwnerId> pages;
  std::mt19937_64 random(3);
  for (int i = 0; i < 3000; ++i) {
    const OwnerId me = owners[random() % owners.size()];
    const auto got = heap->allocate(
        me, {.size = ByteCount(1 + random() % (std::uint64_t{8} << (random() % 10)))});
    if (!got) break;
    const auto [entry, fresh] = pages.emplace(page_of(got->extent), me);
    ASSERT_EQ(me, entry->second);
    ASSERT_EQ(page_of(got->extent), (got->extent.end().value() - 1) / native.value());
  }
  EXPECT_GE(pages.size(), 3U);
  heap->validate();
}

TEST_F(DeviceHeapTest, SmallRequestsCostAnOwnerOneNativePageTogether) {
  make();
  const OwnerId me = owner();
  for (int i = 0; i < 400; ++i) static_cast<void>(take(me, ByteCount(1)));
  for (int i = 0; i < 100; ++i) static_cast<void>(take(me, ByteCount(5000)));
  EXPECT_EQ(native, heap->statistics().held);
  EXPECT_EQ(native, device->used());
  EXPECT_EQ(500U, device->usage().allocations);
}

TEST_F(DeviceHeapTest, TinyPiecesAreAlignedAndCostTheirClass) {
  make();
  const OwnerId me = owner();
  EXPECT_EQ(ByteCount(16), take(me, ByteCount(1)).extent.length);
  EXPECT_EQ(ByteCount(48), take(me, ByteCount(33)).extent.length);
  for (const std::uint64_t alignment : {16U, 64U, 512U, 2048U}) {
    const auto got =
        heap->allocate(me, {.size = ByteCount(20), .alignment = Alignment(alignment)}).value();
    EXPECT_EQ(0U, got.extent.offset.value() % alignment);
  }
  EXPECT_EQ(4_KiB, take(me, ByteCount(2049)).extent.length);
  heap->validate();
}

TEST_F(DeviceHeapTest, TheLastPieceOfAPageGivesItBackButForOneThatIsKept) {
  make();
  const OwnerId me = owner();
  // Each fills a native page but for a granule.
  std::vector<DeviceHeap::Allocated> pieces;
  for (int i = 0; i < 3; ++i) pieces.push_back(take(me, native - 4_KiB));
  EXPECT_EQ(6_MiB, heap->statistics().held);
  for (const auto& piece : pieces) ASSERT_TRUE(heap->free(me, piece.id));
  EXPECT_EQ(ByteCount(0), heap->statistics().held);
  EXPECT_EQ(ByteCount(0), device->used());  // nobody pays for what is kept
  EXPECT_EQ(native, heap->statistics().spare);
  EXPECT_EQ(62_MiB, heap->statistics().free);
  // It serves its owner again, without another page.
  const auto again = take(me, 4_KiB);
  EXPECT_EQ(62_MiB, heap->statistics().free);
  EXPECT_EQ(ByteCount(0), heap->trim());
  ASSERT_TRUE(heap->free(me, again.id));
  EXPECT_EQ(native, heap->trim());
  EXPECT_EQ(64_MiB, heap->statistics().free);
  heap->validate();
}

TEST_F(DeviceHeapTest, TheLastTinyPieceGivesItsSlabBack) {
  make({.size = 64_MiB, .native_page = native, .spare_pages = 0});
  const OwnerId me = owner();
  std::vector<DeviceHeap::Allocated> pieces;
  for (std::uint64_t i = 0; i < 5000; ++i) pieces.push_back(take(me, ByteCount(1 + i % 2048)));
  heap->validate();
  for (const auto& piece : pieces) ASSERT_TRUE(heap->free(me, piece.id));
  EXPECT_EQ(64_MiB, heap->statistics().free);
}

TEST_F(DeviceHeapTest, PagesThatAreKeptServeOthersBeforeARequestFails) {
  make();
  const OwnerId me = owner();
  const OwnerId other = owner();
  ASSERT_TRUE(heap->free(other, take(other, 4_KiB).id));
  EXPECT_EQ(native, heap->statistics().spare);
  EXPECT_EQ(64_MiB, take(me, 64_MiB).extent.length);
}

TEST_F(DeviceHeapTest, APageInUseIsFilledBeforeAnEmptyOneIsPaidFor) {
  make();
  const OwnerId me = heap->add_owner(account(native)).value();
  const auto first = take(me, native - 8_KiB);
  ASSERT_EQ(Errc::over_quota, code(heap->allocate(me, {.size = 64_KiB})));
  EXPECT_EQ(4_KiB, take(me, 4_KiB).extent.length);
  EXPECT_EQ(native, device->used());
  ASSERT_TRUE(heap->free(me, first.id));
  heap->validate();
}

TEST_F(DeviceHeapTest, APageThatWasFullIsUsedAgainOnceAPieceIsFreed) {
  make();
  const OwnerId me = owner();
  const auto half = take(me, 1_MiB);
  const auto rest = take(me, 1_MiB);
  static_cast<void>(take(me, 512_KiB));  // full: another page
  EXPECT_EQ(4_MiB, heap->statistics().held);
  ASSERT_TRUE(heap->free(me, half.id));
  const auto again = take(me, 768_KiB);
  EXPECT_EQ(page_of(rest.extent), page_of(again.extent));
  EXPECT_EQ(4_MiB, heap->statistics().held);
}

TEST_F(DeviceHeapTest, ARefusedSmallRequestLeavesNoNativePageBehind) {
  make({.size = 64_MiB, .native_page = native, .spare_pages = 0});
  const OwnerId me = heap->add_owner(account(1_MiB)).value();
  EXPECT_EQ(Errc::over_quota, code(heap->allocate(me, {.size = 4_KiB})));
  EXPECT_EQ(Errc::over_quota, code(heap->allocate(me, {.size = ByteCount(1)})));
  EXPECT_EQ(64_MiB, heap->statistics().free);
  heap->validate();
}

TEST_F(DeviceHeapTest, NativePagesAsSmallAsAGranuleAreNotCut) {
  make({.size = 1_MiB, .native_page = 4_KiB});
  const OwnerId me = owner();
  EXPECT_EQ(4_KiB, take(me, ByteCount(1)).extent.length);
  EXPECT_EQ(ByteCount(0), heap->statistics().shared);
}

TEST_F(DeviceHeapTest, PiecesLieTogetherAwayFromLargeAllocations) {
  make();
  const OwnerId me = owner();
  const OwnerId other = owner();
  const auto one = take(me, 4_KiB);
  const auto two = take(other, 4_KiB);
  EXPECT_EQ(31U, page_of(one.extent));
  EXPECT_EQ(30U, page_of(two.extent));
  EXPECT_EQ(60_MiB, take(me, 60_MiB).extent.length);
}

}  // namespace
}  // namespace accelmm::test
