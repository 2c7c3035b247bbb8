// SPDX-License-Identifier: Apache-2.0
#include "mm/chunk_runs.hpp"

#include <algorithm>
#include <random>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::mm {
namespace {

constexpr std::uint64_t none = ChunkRuns::none;

TEST(ChunkRuns, WhatIsGivenBetweenTwoRunsMakesThemOne) {
  ChunkRuns runs(100);
  runs.give({0, 10});
  runs.give({20, 50});
  EXPECT_EQ(none, runs.take(31, 0).begin);
  runs.give({10, 20});
  EXPECT_EQ(50U, runs.validate());
  EXPECT_EQ(50U, runs.run_with(37).end);
  EXPECT_EQ(0U, runs.take(50, 0).begin);
  EXPECT_EQ(0U, runs.validate());
}

TEST(ChunkRuns, TakesFromTheShortestRunThatFits) {
  ChunkRuns runs(1000);
  runs.give({0, 500});
  runs.give({510, 523});
  runs.give({530, 542});
  runs.give({600, 640});
  EXPECT_EQ(530U, runs.take(12, 0).begin);
  EXPECT_EQ(510U, runs.take(12, 0).begin);
  EXPECT_EQ(600U, runs.take(12, 0).begin);
  EXPECT_EQ(0U, runs.take(41, 0).begin);
  EXPECT_EQ(none, runs.take(500, 0).begin);
  EXPECT_EQ(1U + 28 + 459, runs.validate());
}

// 130 and 131 chunks are of one bin.
TEST(ChunkRuns, LooksAtSeveralRunsOfABinForOneThatIsLongEnough) {
  ChunkRuns runs(10'000);
  for (std::uint64_t i = 0; i < 7; ++i) runs.give({i * 200, i * 200 + 130});
  runs.give({2000, 2131});
  EXPECT_EQ(2000U, runs.take(131, 0).begin);
  EXPECT_EQ(none, runs.take(131, 0).begin);
}

TEST(ChunkRuns, PlacesAreAligned) {
  ChunkRuns runs(4096);
  runs.give({3, 4000});
  EXPECT_EQ(512U, runs.take(5, 9).begin);
  EXPECT_EQ(1024U, runs.take(1000, 10).begin);
  EXPECT_EQ(none, runs.take(4, 12).begin);
  EXPECT_EQ(none, runs.take(4, 63).begin);
  EXPECT_EQ(none, runs.take(4097, 0).begin);
  EXPECT_EQ(none, runs.take(~std::uint64_t{0}, 3).begin);
  runs.give({0, 3});
  EXPECT_EQ(0U, runs.take(4, 63).begin);
}

// The same chunks, one byte each.
class Naive {
 public:
  explicit Naive(std::uint64_t chunks) : free_(chunks, 0) {}

  bool all(PageRun run, bool free) const {
    return std::all_of(at(run.begin), at(run.end), [=](char c) { return (c != 0) == free; });
  }
  void set(PageRun run, bool free) {
    for (std::uint64_t c = run.begin; c < run.end; ++c) free_[c] = free ? 1 : 0;
  }
  bool is_free(std::uint64_t c) const { return free_[c] != 0; }
  std::uint64_t free() const {
    return static_cast<std::uint64_t>(std::count(free_.begin(), free_.end(), 1));
  }
  PageRun run_with(std::uint64_t c) const {
    if (!is_free(c)) return ChunkRuns::no_run;
    PageRun run{c, c + 1};
    while (run.begin > 0 && is_free(run.begin - 1)) --run.begin;
    while (run.end < free_.size() && is_free(run.end)) ++run.end;
    return run;
  }
  std::uint64_t shortest(std::uint64_t count) const {
    std::uint64_t found = none;
    for (std::uint64_t c = 0; c < free_.size(); ++c)
      if (const PageRun run = run_with(c); run.begin != none) {
        if (run.size() >= count) found = std::min(found, run.size());
        c = run.end;
      }
    return found;
  }
  bool has(std::uint64_t count, std::uint64_t alignment, PageRun within) const {
    for (std::uint64_t c = (within.begin + alignment - 1) / alignment * alignment;
         c + count <= within.end; c += alignment)
      if (all({c, c + count}, true)) return true;
    return false;
  }

 private:
  std::vector<char>::const_iterator at(std::uint64_t c) const {
    return free_.begin() + static_cast<std::ptrdiff_t>(c);
  }
  std::vector<char> free_;
};

void judge_place(const Naive& naive, PageRun place, std::uint64_t count, unsigned align) {
  ASSERT_EQ(count, place.size());
  ASSERT_EQ(0U, place.begin % (std::uint64_t{1} << align));
  ASSERT_TRUE(naive.all(place, true));
}

class ChunkRunsBesideBytes : public testing::TestWithParam<std::uint64_t> {};

TEST_P(ChunkRunsBesideBytes, Agree) {
  const std::uint64_t chunks = GetParam();
  ChunkRuns runs(chunks);
  Naive naive(chunks);
  std::mt19937_64 random(chunks);
  for (int step = 0; step < 4000; ++step) {
    const std::uint64_t at = random() % chunks;
    const std::uint64_t count = 1 + random() % (std::uint64_t{1} << random() % 8);
    const auto align = static_cast<unsigned>(random() % 2 == 0 ? 0 : random() % 5);
    const PageRun run = naive.run_with(at);
    const PageRun got = runs.run_with(at);
    ASSERT_EQ(run.begin, got.begin);
    ASSERT_EQ(run.end, got.end);
    const std::uint64_t shortest = naive.shortest(count);
    const PageRun within{at, at + 1 + random() % (chunks - at)};
    switch (random() % 6) {
      case 0: {
        const PageRun place = runs.take(count, align);
        if (align == 0 && count <= 15) {
          ASSERT_EQ(shortest == none, place.begin == none);
        }
        if (place.begin == none) break;
        judge_place(naive, place, count, align);
        // Up to 15 chunks each length has its bin.
        if (align == 0 && shortest <= 15) {
          ASSERT_EQ(shortest, naive.run_with(place.begin).size());
        }
        naive.set(place, false);
        break;
      }
      case 1:
      case 2: {
        PageRun place{at, at};
        while (place.end < chunks && place.size() < count && !naive.is_free(place.end)) ++place.end;
        if (place.empty()) break;
        runs.give(place);
        naive.set(place, true);
        break;
      }
      case 3: {
        if (run.begin == none) break;
        const PageRun part{at, std::min(run.end, at + count)};
        runs.take_exactly(part);
        naive.set(part, false);
        break;
      }
      case 4: {
        const PageRun low = runs.lowest_within(count, align, within);
        const PageRun high = runs.highest_within(count, align, within);
        if (low.begin != none) {
          judge_place(naive, low, count, align);
          ASSERT_GE(low.begin, within.begin);
          ASSERT_LE(low.end, within.end);
        }
        if (high.begin != none) {
          judge_place(naive, high, count, align);
          ASSERT_GE(high.begin, within.begin);
          ASSERT_LE(high.end, within.end);
          ASSERT_NE(none, low.begin);
          ASSERT_LE(low.begin, high.begin);
        }
        if (count == 1 && align == 0) {
          ASSERT_EQ(naive.has(1, 1, within), low.begin != none && high.begin != none);
        }
        break;
      }
      default: {
        const PageRun place =
            runs.first_of(count, align, 8, [](PageRun p) { return p.begin % 3 == 0; });
        if (place.begin == none) break;
        judge_place(naive, place, count, align);
        ASSERT_EQ(0U, place.begin % 3);
        break;
      }
    }
    ASSERT_EQ(naive.free(), runs.validate());
  }
  std::uint64_t sum = 0;
  runs.each([&](PageRun run) {
    EXPECT_TRUE(naive.all(run, true));
    sum += run.size();
  });
  EXPECT_EQ(naive.free(), sum);
  runs.clear();
  EXPECT_EQ(0U, runs.validate());
}

INSTANTIATE_TEST_SUITE_P(Sizes, ChunkRunsBesideBytes,
                         testing::Values(1, 2, 7, 64, 100, 1000, 4097));

}  // namespace
}  // namespace accelmm::mm
