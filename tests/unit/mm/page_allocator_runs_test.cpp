// SPDX-License-Identifier: Apache-2.0
//
// Requests of many whole chunks: where they go.
#include <accelmm/page_allocator.hpp>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

// 4 MiB and 6 MiB of a place where no buddies are.
TEST(PageAllocatorRuns, FreeNeighboursServeOneRequestWhereverTheyLie) {
  auto allocator = PageAllocator::create({.size = 64_MiB}).value();
  const auto all = allocator.allocate(64_MiB).value();
  ASSERT_TRUE(allocator.free({all.offset + 6_MiB, 4_MiB}).has_value());
  ASSERT_TRUE(allocator.free({all.offset + 10_MiB, 6_MiB}).has_value());
  ASSERT_TRUE(allocator.free({all.offset + 40_MiB, 24_MiB}).has_value());
  const auto got = allocator.allocate(10_MiB).value();
  EXPECT_EQ(all.offset + 6_MiB, got.offset);
  allocator.validate();
}

TEST(PageAllocatorRuns, ARequestOfManyChunksLeavesLongerRunsWhole) {
  auto allocator = PageAllocator::create({.size = 256_MiB}).value();
  const auto all = allocator.allocate(256_MiB).value();
  ASSERT_TRUE(allocator.free({all.offset, 128_MiB}).has_value());
  ASSERT_TRUE(allocator.free({all.offset + 130_MiB, 14_MiB}).has_value());
  ASSERT_TRUE(allocator.free({all.offset + 150_MiB, 22_MiB}).has_value());
  EXPECT_EQ(all.offset + 130_MiB, allocator.allocate(12_MiB).value().offset);
  EXPECT_EQ(all.offset + 150_MiB, allocator.allocate(21_MiB).value().offset);
  EXPECT_EQ(128_MiB, allocator.statistics().largest_free);
}

}  // namespace
}  // namespace accelmm
