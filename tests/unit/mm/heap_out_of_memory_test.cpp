// SPDX-License-Identifier: Apache-2.0
#include "unit/mm/failing_new.hpp"
#include "unit/mm/heap_memory.hpp"

#include <accelmm/heap.hpp>
#include <accelmm/jemalloc_heap.hpp>

#include <array>
#include <cstdint>
#include <utility>

#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

constexpr Heap::Options plain{};
constexpr Heap::Options debugged{.quarantine = {.random = 2, .queue = 4},
                                 .canaries = Heap::Canaries::yes};

Heap::Options with(Heap::Options options, HeapSource& source) {
  options.source = &source;
  return options;
}

TEST(HeapOutOfMemory, CreateFailsCleanlyAtEachAllocation) {
  MappedSource source;
  for (const Heap::Options& options : {plain, debugged}) {
    std::int64_t k = 0;
    for (;; ++k) {
      const std::int64_t live = heap.live;
      FailingNew failing(k);
      const auto made = Heap::create(with(options, source));
      if (!failing.happened()) {
        EXPECT_TRUE(made);
        break;
      }
      ASSERT_FALSE(made) << k;
      EXPECT_EQ(Errc::no_memory, made.error().code);
      EXPECT_EQ(live, heap.live) << k;
    }
    EXPECT_GE(k, 6);
  }
}

// Sizes of which each needs a chunk, a slab or both.
constexpr std::uint64_t sizes[] = {64, 20000, 3 << 20, 40 << 20};

TEST(HeapOutOfMemory, EachFailedAllocationLeavesAllAsItWas) {
  for (const Heap::Options& options : {plain, debugged})
    for (const std::uint64_t size : sizes)
      for (std::int64_t k = 0;; ++k) {
        MappedSource source;
        auto made = Heap::create(with(options, source));
        ASSERT_TRUE(made);
        const auto kept = made->allocate(100_B);
        ASSERT_TRUE(kept);
        FailingNew failing(k);
        const auto piece = made->allocate(ByteCount(size));
        if (!failing.happened()) {
          EXPECT_TRUE(piece);
          break;
        }
        // A large piece is tried for once more.
        if (piece) continue;
        EXPECT_EQ(Errc::no_memory, piece.error().code) << piece.error().what;
        made->validate();
        const auto small = made->statistics().small;
        EXPECT_EQ(1U, small.live_objects - small.quarantined);
        EXPECT_EQ(0U, made->statistics().large_pieces);
        EXPECT_TRUE(made->free(kept->pointer));
        made->trim();
        EXPECT_EQ(0U, source.outstanding()) << k;
        EXPECT_TRUE(made->allocate(ByteCount(size)));
      }
}

TEST(HeapOutOfMemory, FreeingAndTrimmingTakeNoMemory) {
  for (const Heap::Options& options : {plain, debugged}) {
    MappedSource source;
    auto made = Heap::create(with(options, source));
    ASSERT_TRUE(made);
    std::array<void*, 400> pieces;
    for (std::size_t i = 0; i < pieces.size(); ++i)
      pieces[i] = made->allocate(ByteCount(i % 10 == 0 ? 300000 : 1 + i * 50))->pointer;
    const std::int64_t calls = heap.calls;
    for (void* pointer : pieces) ASSERT_TRUE(made->free(pointer));
    made->trim();
    EXPECT_EQ(calls, heap.calls);
    EXPECT_EQ(0U, source.outstanding());
  }
}

TEST(HeapOutOfMemory, AJemallocHeapIsMadeCleanlyOrNotAtAll) {
  MappedSource source;
  for (std::int64_t k = 0;; ++k) {
    const std::int64_t live = heap.live;
    FailingNew failing(k);
    const auto made = JemallocHeap::create({.source = &source});
    if (!failing.happened()) {
      EXPECT_TRUE(made);
      break;
    }
    ASSERT_FALSE(made) << k;
    EXPECT_EQ(Errc::no_memory, made.error().code);
    EXPECT_EQ(live, heap.live) << k;
  }
  for (std::int64_t k = 0;; ++k) {
    auto made = JemallocHeap::create({.source = &source});
    ASSERT_TRUE(made);
    FailingNew failing(k);
    const auto piece = made->allocate(100_KiB);
    if (!failing.happened()) break;
    EXPECT_TRUE(piece || piece.error().code == Errc::no_memory);
  }
  EXPECT_EQ(0U, source.outstanding());
}

}  // namespace
}  // namespace accelmm::test
