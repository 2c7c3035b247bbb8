// SPDX-License-Identifier: Apache-2.0
#include "unit/mm/failing_new.hpp"

#include <accelmm/slab.hpp>

#include <array>
#include <cstdint>
#include <optional>
#include <utility>

#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

// A source that takes no memory itself: slabs side by side, the last one given back first or lost.
class PlainSource final : public SlabSource {
 public:
  Result<Extent> grow(ByteCount size, Alignment alignment) override {
    const std::uint64_t at = (next + alignment.value() - 1) & ~(alignment.value() - 1);
    next = at + size.value();
    outstanding += size.value();
    return Extent{.offset = RegionOffset(at), .length = size};
  }
  void give_back(Extent extent) override {
    outstanding -= extent.length.value();
    if (std::exchange(fail_once_more, false)) heap.fail_after = 0;
  }

  std::uint64_t next = 0;
  std::uint64_t outstanding = 0;
  bool fail_once_more = false;  // the allocation after the first extent that comes back
};

constexpr Slab::Options options_of(PlainSource& source) {
  return {.source = &source, .region = 64_MiB, .quarantine = {.random = 4, .queue = 4}};
}

TEST(SlabOutOfMemory, CreateFailsCleanlyAtEachAllocation) {
  PlainSource source;
  std::int64_t k = 0;
  for (;; ++k) {
    const std::int64_t live = heap.live;
    FailingNew failing(k);
    auto slab = Slab::create(options_of(source));
    if (!failing.happened()) {
      EXPECT_TRUE(slab);
      break;
    }
    ASSERT_FALSE(slab) << k;
    EXPECT_EQ(Errc::no_memory, slab.error().code);
    EXPECT_EQ(live, heap.live) << k;
  }
  EXPECT_GE(k, 4);
}

TEST(SlabOutOfMemory, EachFailedAllocationLeavesAllAsItWas) {
  for (std::int64_t k = 0;; ++k) {
    PlainSource source;
    auto slab = Slab::create(options_of(source));
    ASSERT_TRUE(slab);
    const auto kept = slab->allocate(64_B);
    ASSERT_TRUE(kept);
    const std::uint64_t outstanding = source.outstanding;
    const std::int64_t live = heap.live;
    std::array<RegionOffset, 5000> offsets;  // several slabs
    source.fail_once_more = true;            // since the Slab tries once more when it has drained
    FailingNew failing(k);
    const auto taken = slab->allocate_bulk(1_KiB, offsets);
    if (std::exchange(source.fail_once_more, false)) {
      EXPECT_TRUE(taken);
      EXPECT_GE(k, 79);
      break;
    }
    ASSERT_FALSE(taken) << k;
    EXPECT_EQ(Errc::no_memory, taken.error().code);
    EXPECT_EQ(1U, slab->statistics().live_objects);
    slab->validate();
    slab->trim();
    EXPECT_EQ(outstanding, source.outstanding) << k;
    // What is kept is metadata of slabs that were given back.
    EXPECT_LE(live, heap.live);
    EXPECT_TRUE(slab->free(kept->offset));
  }
}

TEST(SlabOutOfMemory, OneFailureIsMadeUpForByTryingOnceMore) {
  PlainSource source;
  auto slab = Slab::create(options_of(source));
  ASSERT_TRUE(slab);
  FailingNew failing(0);
  EXPECT_TRUE(slab->allocate(64_B));
  EXPECT_TRUE(failing.happened());
  slab->validate();
}

TEST(SlabOutOfMemory, FreeingDrainingTrimmingAndCountingTakeNoMemory) {
  PlainSource source;
  auto slab = Slab::create(options_of(source));
  ASSERT_TRUE(slab);
  std::array<RegionOffset, 3000> offsets;
  ASSERT_TRUE(slab->allocate_bulk(100_B, offsets));
  const std::int64_t calls = heap.calls;
  for (std::size_t i = 0; i < 1000; ++i) ASSERT_TRUE(slab->free(offsets[i]));
  ASSERT_TRUE(slab->free_bulk(std::span(offsets).subspan(1000)));
  slab->drain();
  EXPECT_EQ(0U, slab->recount());
  EXPECT_LT(0_B, slab->trim());
  EXPECT_EQ(0U, slab->statistics().live_objects);
  EXPECT_EQ(calls, heap.calls);
  EXPECT_EQ(0U, source.outstanding);
}

TEST(SlabOutOfMemory, NothingOfTheHeapIsLeftBehind) {
  const std::int64_t live = heap.live;
  {
    PlainSource source;
    auto slab = Slab::create(options_of(source));
    ASSERT_TRUE(slab);
    std::array<RegionOffset, 3000> offsets;
    ASSERT_TRUE(slab->allocate_bulk(100_B, offsets));
    EXPECT_LT(live, heap.live);
  }
  EXPECT_EQ(live, heap.live);
}

}  // namespace
}  // namespace accelmm::test
