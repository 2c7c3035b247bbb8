// SPDX-License-Identifier: Apache-2.0
#include "unit/mmu/tables_fixture.hpp"

#include <accelmm/mmu/npu1.hpp>
#include <accelmm/mmu/run_cursor.hpp>

#include <cstdint>
#include <initializer_list>
#include <random>
#include <span>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::mmu {
namespace {

using test::run;
using test::Runs;

constexpr std::uint64_t page = 0x1000;
constexpr std::uint64_t large = 0x20'0000;

struct LeafAt {
  std::uint64_t va;
  std::uint64_t bus;
  std::uint64_t size;
  bool operator==(const LeafAt&) const = default;
};

// All stretches, as the engine takes them: each in the hop where its leaves stand.
std::vector<Stretch> split(std::uint64_t va, const Runs& runs) {
  RunCursor<Npu1> cursor(DeviceAddr(va), runs);
  std::vector<Stretch> stretches;
  while (!cursor.done()) {
    const unsigned lg2 = cursor.largest_leaf();
    stretches.push_back(cursor.stretch(lg2 == 21 ? 3 : 4, lg2));
    cursor.advance(stretches.back().bytes);
  }
  return stretches;
}

void expect_stretch(const Stretch& s, std::uint64_t va, std::uint64_t bus, unsigned hop,
                    std::uint32_t index, std::uint32_t count) {
  EXPECT_EQ(s.va, va);
  EXPECT_EQ(s.bus, bus);
  EXPECT_EQ(s.lg2, hop == 3 ? 21u : 12u);
  EXPECT_EQ(Geometry<Npu1>::index(hop, s.va), index);
  EXPECT_EQ(s.bytes >> s.lg2, count);
}

TEST(RunCursorTest, OnePageIsOneSmallLeaf) {
  const auto s = split(0x5000, {run(0x9000, page)});
  ASSERT_EQ(s.size(), 1u);
  expect_stretch(s[0], 0x5000, 0x9000, 4, 5, 1);
}

TEST(RunCursorTest, AlignedTwoMebibytesAreOneLargeLeaf) {
  const auto s = split(3 * large, {run(8 * large, large)});
  ASSERT_EQ(s.size(), 1u);
  expect_stretch(s[0], 3 * large, 8 * large, 3, 3, 1);
}

TEST(RunCursorTest, CongruentRunHasSmallHeadLargeBodyAndSmallTail) {
  const auto s = split(large - 2 * page, {run(9 * large - 2 * page, 2 * large + 5 * page)});
  ASSERT_EQ(s.size(), 3u);
  expect_stretch(s[0], large - 2 * page, 9 * large - 2 * page, 4, 510, 2);
  expect_stretch(s[1], large, 9 * large, 3, 1, 2);
  expect_stretch(s[2], 3 * large, 11 * large, 4, 0, 3);
}

TEST(RunCursorTest, RunOffByOnePageNeverUsesLargeLeaves) {
  for (const Stretch& s : split(large, {run(8 * large + page, 4 * large)})) EXPECT_EQ(s.lg2, 12u);
}

TEST(RunCursorTest, ShortOfTwoMebibytesByOnePageUsesSmallLeaves) {
  const auto s = split(large, {run(large, large - page)});
  ASSERT_EQ(s.size(), 1u);
  expect_stretch(s[0], large, large, 4, 0, 511);
}

TEST(RunCursorTest, NeighboursOnTheBusAreOneRun) {
  Runs pages;
  for (std::uint64_t i = 0; i < 512; ++i) pages.push_back(run(large + i * page, page));
  const auto s = split(0, pages);
  ASSERT_EQ(s.size(), 1u);
  expect_stretch(s[0], 0, large, 3, 0, 1);
}

TEST(RunCursorTest, RunsThatGoBackwardsStayApart) {
  const auto s = split(0, {run(2 * page, page), run(page, page), run(2 * page, page)});
  ASSERT_EQ(s.size(), 2u);
  expect_stretch(s[0], 0, 2 * page, 4, 0, 1);
  expect_stretch(s[1], page, page, 4, 1, 2);
}

TEST(RunCursorTest, StretchesEndWithTheirTable) {
  const auto s = split(510 * page, {run(page, 4 * page)});
  ASSERT_EQ(s.size(), 2u);
  expect_stretch(s[0], 510 * page, page, 4, 510, 2);
  expect_stretch(s[1], large, 3 * page, 4, 0, 2);
}

// The rule, spelled out leaf by leaf: the largest leaf that all three allow.
std::vector<LeafAt> greedy(std::uint64_t va, const Runs& runs) {
  std::vector<LeafAt> leaves;
  for (std::size_t i = 0; i < runs.size();) {
    std::uint64_t bus = runs[i].address.value();
    std::uint64_t left = 0;
    for (; i < runs.size() && runs[i].address.value() == bus + left; ++i)
      left += runs[i].length.value();
    while (left > 0) {
      const bool fits = left >= large && va % large == 0 && bus % large == 0;
      const std::uint64_t size = fits ? large : page;
      leaves.push_back({va, bus, size});
      va += size;
      bus += size;
      left -= size;
    }
  }
  return leaves;
}

TEST(RunCursorTest, GivesTheLeavesOfTheRuleOnRandomRuns) {
  std::mt19937_64 random(20230817);
  const auto below = [&random](std::uint64_t n) { return random() % n; };
  for (int round = 0; round < 300; ++round) {
    Runs runs;
    std::uint64_t bus = below(4096) * page;
    for (std::uint64_t n = 1 + below(6); n > 0; --n) {
      const std::uint64_t length =
          below(2) == 0 ? (1 + below(1500)) * page : (1 + below(3)) * large;
      runs.push_back(run(bus, length));
      bus += length + (below(2) == 0 ? 0 : below(1024) * page);
      if (below(3) == 0) bus = (bus + large - 1) / large * large;
    }
    const std::uint64_t va =
        below(3) == 0 ? below(64) * large : (runs[0].address.value() + below(2) * page);
    std::vector<LeafAt> got;
    for (const Stretch& s : split(va, runs)) {
      const std::uint64_t size = std::uint64_t{1} << s.lg2;
      EXPECT_LE(s.va / size % 512 + s.bytes / size, 512u);
      for (std::uint64_t i = 0; i < s.bytes / size; ++i)
        got.push_back({s.va + i * size, s.bus + i * size, size});
    }
    ASSERT_EQ(got, greedy(va, runs)) << "round " << round;
  }
}

Errc refusal(std::uint64_t va, std::initializer_list<Run> runs) {
  const auto range = check_runs<Npu1>(DeviceAddr(va), std::span(runs.begin(), runs.size()));
  return range ? Errc{} : range.error().code;
}

TEST(CheckRuns, RefusesWhatIsEmptyOrUnaligned) {
  EXPECT_EQ(refusal(0, {}), Errc::invalid_argument);
  EXPECT_EQ(refusal(0, {run(0, 0)}), Errc::invalid_argument);
  EXPECT_EQ(refusal(0, {run(0, page), run(page, 0)}), Errc::invalid_argument);
  EXPECT_EQ(refusal(0, {run(0, page + 1)}), Errc::invalid_argument);
  EXPECT_EQ(refusal(0, {run(8, page)}), Errc::invalid_argument);
  EXPECT_EQ(refusal(0x800, {run(0, page)}), Errc::invalid_argument);
  EXPECT_EQ(refusal(0, {run(0, page)}), Errc{});
}

TEST(CheckRuns, RefusesDeviceAddressesBeyondFiftyBits) {
  const std::uint64_t end = 1ULL << 50;
  EXPECT_EQ(refusal(end - page, {run(0, page)}), Errc{});
  EXPECT_EQ(refusal(end - page, {run(0, 2 * page)}), Errc::invalid_argument);
  EXPECT_EQ(refusal(end, {run(0, page)}), Errc::invalid_argument);
  EXPECT_EQ(refusal(~0xFFFULL, {run(0, page)}), Errc::invalid_argument);
}

TEST(CheckRuns, RefusesSumsThatDoNotFit) {
  const std::uint64_t half = 1ULL << 63;
  EXPECT_EQ(refusal(0, {run(0, half), run(0, half)}), Errc::invalid_argument);
  EXPECT_EQ(refusal(0, {run(~0xFFFULL, 2 * page)}), Errc::invalid_argument);
  EXPECT_EQ(refusal(0, {run(~0xFFFULL, page)}), Errc{}) << "the last page of the bus is a page";
}

TEST(CheckRuns, ReturnsTheRangeThatTheRunsTake) {
  const Runs runs{run(0, 3 * page), run(0, page)};
  EXPECT_EQ(*check_runs<Npu1>(DeviceAddr(large), runs),
            (Range<DeviceAddr>{DeviceAddr(large), DeviceAddr(large + 4 * page)}));
}

}  // namespace
}  // namespace accelmm::mmu
