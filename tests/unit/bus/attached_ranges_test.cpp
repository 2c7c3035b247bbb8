// SPDX-License-Identifier: Apache-2.0
#include "bus/attached_ranges.hpp"

#include "unit/mm/failing_new.hpp"

#include <array>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

Extent extent(std::uint64_t begin, std::uint64_t end) {
  return {RegionOffset(begin), ByteCount(end - begin)};
}

void add(AttachedRanges& ranges, Extent added) {
  const auto result = ranges.add(added);
  ASSERT_TRUE(result.has_value()) << result.error().what;
}

bool covers(const AttachedRanges& ranges, std::uint64_t begin, std::uint64_t end) {
  return ranges.covers(RegionOffset(begin), ByteCount(end - begin));
}

TEST(AttachedRanges, NothingIsCoveredAtFirst) {
  const AttachedRanges ranges;
  EXPECT_TRUE(ranges.empty());
  EXPECT_FALSE(covers(ranges, 0, 1));
  EXPECT_FALSE(covers(ranges, 100, 200));
}

TEST(AttachedRanges, NoBytesAreCoveredAnywhere) {
  const AttachedRanges ranges;
  EXPECT_TRUE(covers(ranges, 5, 5));
}

TEST(AttachedRanges, AnExtentCoversItsBytesAndNoNeighbour) {
  AttachedRanges ranges;
  add(ranges, extent(10, 20));
  EXPECT_TRUE(covers(ranges, 10, 20));
  EXPECT_TRUE(covers(ranges, 15, 16));
  EXPECT_FALSE(covers(ranges, 9, 11));
  EXPECT_FALSE(covers(ranges, 19, 21));
  EXPECT_FALSE(covers(ranges, 20, 21));
}

TEST(AttachedRanges, ARangeMayCrossExtentsThatTouch) {
  AttachedRanges ranges;
  add(ranges, extent(10, 20));
  add(ranges, extent(20, 30));
  EXPECT_TRUE(covers(ranges, 10, 30));
  add(ranges, extent(31, 40));
  EXPECT_FALSE(covers(ranges, 10, 40));
}

TEST(AttachedRanges, AnExtentAddedTwiceGoesWithTheSecondRemoval) {
  AttachedRanges ranges;
  add(ranges, extent(10, 20));
  add(ranges, extent(10, 20));
  ranges.remove(extent(10, 20));
  EXPECT_TRUE(covers(ranges, 10, 20));
  ranges.remove(extent(10, 20));
  EXPECT_FALSE(covers(ranges, 10, 11));
  EXPECT_TRUE(ranges.empty());
}

TEST(AttachedRanges, RemovingOneOfTwoThatOverlapLeavesTheOtherWhole) {
  AttachedRanges ranges;
  add(ranges, extent(10, 30));
  add(ranges, extent(20, 40));
  ranges.remove(extent(10, 30));
  EXPECT_FALSE(covers(ranges, 19, 21));
  EXPECT_TRUE(covers(ranges, 20, 40));
}

TEST(AttachedRanges, TheLastBytesOf64BitsCanBeCovered) {
  AttachedRanges ranges;
  add(ranges, extent(UINT64_MAX - 4095, UINT64_MAX));
  EXPECT_TRUE(covers(ranges, UINT64_MAX - 1, UINT64_MAX));
  EXPECT_FALSE(ranges.covers(RegionOffset(UINT64_MAX - 1), ByteCount(UINT64_MAX)));
}

TEST(AttachedRanges, AFailedAllocationLeavesTheRangesAsTheyWere) {
  for (std::int64_t successes = 0; successes < 2; ++successes) {
    AttachedRanges ranges;
    add(ranges, extent(10, 20));
    Result<void> added;
    {
      const test::FailingNew failing(successes);
      added = ranges.add(extent(15, 25));
      EXPECT_TRUE(failing.happened());
    }
    ASSERT_FALSE(added.has_value());
    EXPECT_EQ(Errc::no_memory, added.error().code);
    EXPECT_TRUE(covers(ranges, 10, 20));
    EXPECT_FALSE(covers(ranges, 20, 21));
    const std::int64_t calls = test::heap.calls;
    ranges.remove(extent(10, 20));
    EXPECT_EQ(calls, test::heap.calls) << "removing allocates nothing";
    EXPECT_TRUE(ranges.empty()) << "no boundary stayed behind";
  }
}

TEST(AttachedRangesDeathTest, RemovingWhatWasNotAddedIsAMistakeOfOurs) {
  AttachedRanges ranges;
  add(ranges, extent(10, 20));
  EXPECT_DEATH(ranges.remove(extent(11, 20)), "first != ");
  EXPECT_DEATH(ranges.remove(extent(10, 19)), "last != ");
}

// The reference: how many extents cover each byte of a small space.
class CoverCounts {
 public:
  static constexpr std::uint64_t size = 24;

  void change(Extent changed, int by) {
    for (std::uint64_t i = changed.offset.value(); i < changed.end().value(); ++i) counts_[i] += by;
  }
  [[nodiscard]] bool covers(std::uint64_t begin, std::uint64_t end) const {
    for (std::uint64_t i = begin; i < end; ++i)
      if (counts_[i] == 0) return false;
    return true;
  }

 private:
  std::array<int, size> counts_{};
};

unsigned chosen_seed() {
  const char* const given = std::getenv("ACCELMM_SEED");
  return given != nullptr ? static_cast<unsigned>(std::strtoul(given, nullptr, 10))
                          : std::random_device{}();
}

TEST(AttachedRanges, RandomExtentsCoverWhatACountPerByteSays) {
  const unsigned seed = chosen_seed();
  std::fprintf(stderr, "ACCELMM_SEED=%u\n", seed);
  std::mt19937 random(seed);
  AttachedRanges ranges;
  CoverCounts reference;
  std::vector<Extent> added;
  for (int step = 0; step < 5000; ++step) {
    if (added.size() < 12 && random() % 2 == 0) {
      const std::uint64_t begin = random() % CoverCounts::size;
      const Extent one = extent(begin, begin + 1 + random() % (CoverCounts::size - begin));
      add(ranges, one);
      reference.change(one, 1);
      added.push_back(one);
    } else if (!added.empty()) {
      std::swap(added[random() % added.size()], added.back());
      ranges.remove(added.back());
      reference.change(added.back(), -1);
      added.pop_back();
    }
    for (std::uint64_t begin = 0; begin < CoverCounts::size; ++begin)
      for (std::uint64_t end = begin + 1; end <= CoverCounts::size; ++end)
        ASSERT_EQ(reference.covers(begin, end), covers(ranges, begin, end))
            << "step " << step << ": " << begin << " to " << end;
    ASSERT_EQ(added.empty(), ranges.empty());
  }
}

}  // namespace
}  // namespace accelmm
