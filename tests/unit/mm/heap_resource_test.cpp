// SPDX-License-Identifier: Apache-2.0
#include "unit/mm/heap_memory.hpp"

#include <accelmm/heap_resource.hpp>

#include <cstdint>
#include <map>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

Heap make(HeapSource& source) {
  auto heap = Heap::create({.source = &source});
  ACCELMM_CHECK(heap.has_value());
  return std::move(*heap);
}

TEST(HeapResource, ContainersLiveInTheHeap) {
  MappedSource source;
  Heap heap = make(source);
  HeapResource resource(heap);
  {
    std::pmr::map<int, std::pmr::string> map(&resource);
    for (int i = 0; i < 1000; ++i) map[i] = "a text that is too long for the string itself";
    std::pmr::vector<std::uint64_t> numbers(&resource);
    for (std::uint64_t i = 0; i < 100000; ++i) numbers.push_back(i);
    EXPECT_TRUE(source.covers(&map[500], 8));
    EXPECT_TRUE(source.covers(map[500].data(), 40));
    EXPECT_TRUE(heap.device_address(numbers.data()));
    EXPECT_EQ(99999U, numbers.back());
    heap.validate();
  }
  EXPECT_EQ(0U, heap.statistics().small.live_objects + heap.statistics().large_pieces);
}

TEST(HeapResource, ThrowsWhereTheHeapRefuses) {
  MappedSource source;
  Heap heap = make(source);
  HeapResource resource(heap);
  source.allow(0);
  EXPECT_THROW(static_cast<void>(resource.allocate(100, 16)), std::bad_alloc);
  EXPECT_THROW(static_cast<void>(resource.allocate(std::size_t{1} << 60, 16)), std::bad_alloc);
}

TEST(HeapResource, ServesNoBytesAndLargeAlignments) {
  MappedSource source;
  Heap heap = make(source);
  HeapResource resource(heap);
  void* const none = resource.allocate(0, 1);
  void* const aligned = resource.allocate(100, 65536);
  EXPECT_NE(nullptr, none);
  EXPECT_EQ(0U, reinterpret_cast<std::uintptr_t>(aligned) % 65536);
  resource.deallocate(none, 0, 1);
  resource.deallocate(aligned, 100, 65536);
}

TEST(HeapResource, EqualsAnotherOfTheSameHeapOnly) {
  MappedSource source;
  Heap heap = make(source);
  MappedSource other_source;
  Heap other = make(other_source);
  EXPECT_EQ(HeapResource(heap), HeapResource(heap));
  EXPECT_NE(HeapResource(heap), HeapResource(other));
  EXPECT_FALSE(HeapResource(heap).is_equal(*std::pmr::new_delete_resource()));
}

TEST(HeapResourceDeathTest, StopsWhereWhatIsFreedIsNotLive) {
  MappedSource source;
  Heap heap = make(source);
  HeapResource resource(heap);
  int local = 0;
  EXPECT_DEATH(resource.deallocate(&local, 4, 4), "check failed: freed");
}

}  // namespace
}  // namespace accelmm::test
