// SPDX-License-Identifier: Apache-2.0
#include "mm/chunk_runs.hpp"

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

// 264 and 265 chunks are of one bin.
TEST(ChunkRuns, LooksAtSeveralRunsOfABinForOneThatIsLongEnough) {
  ChunkRuns runs(10'000);
  for (std::uint64_t i = 0; i < 7; ++i) runs.give({i * 300, i * 300 + 264});
  runs.give({3000, 3265});
  EXPECT_EQ(3000U, runs.take(265, 0).begin);
  EXPECT_EQ(none, runs.take(265, 0).begin);
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

TEST(ChunkRuns, ChunksOfSeveralPlacesOfARunAreTakenExactly) {
  ChunkRuns runs(300);
  runs.give({10, 290});
  runs.take_exactly({10, 20});
  runs.take_exactly({100, 150});
  runs.take_exactly({289, 290});
  EXPECT_EQ(none, runs.run_with(15).begin);
  EXPECT_EQ(20U, runs.run_with(99).begin);
  EXPECT_EQ(150U, runs.run_with(150).begin);
  EXPECT_EQ(none, runs.run_with(289).begin);
  EXPECT_EQ(none, runs.run_with(300).begin);
  EXPECT_EQ(80U + 139, runs.validate());
}

TEST(ChunkRuns, TheEndsOfARangeAreFoundInRunsThatReachOutOfIt) {
  ChunkRuns runs(2000);
  runs.give({100, 1900});
  EXPECT_EQ(500U, runs.lowest_within(7, 0, {500, 700}).begin);
  EXPECT_EQ(693U, runs.highest_within(7, 0, {500, 700}).begin);
  EXPECT_EQ(512U, runs.lowest_within(7, 6, {500, 700}).begin);
  EXPECT_EQ(640U, runs.highest_within(7, 6, {500, 700}).begin);
  EXPECT_EQ(none, runs.lowest_within(201, 0, {500, 700}).begin);
  EXPECT_EQ(none, runs.highest_within(1, 0, {0, 100}).begin);
}

TEST(ChunkRuns, AMebiOfChunksIsOneRun) {
  constexpr std::uint64_t chunks = std::uint64_t{1} << 20;
  ChunkRuns runs(chunks);
  runs.give({1, chunks});
  EXPECT_EQ(1U, runs.run_with(chunks - 1).begin);
  EXPECT_EQ(chunks - 1, runs.take(chunks - 1, 0).size());
  runs.give({0, chunks});
  EXPECT_EQ(chunks, runs.validate());
  EXPECT_EQ(chunks / 2, runs.highest_within(chunks / 2, 19, {0, chunks}).begin);
  runs.clear();
  EXPECT_EQ(0U, runs.validate());
}

}  // namespace
}  // namespace accelmm::mm
