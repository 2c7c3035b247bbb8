// SPDX-License-Identifier: Apache-2.0
#include "dmabuf/piece_plan.hpp"

#include <array>

#include <gtest/gtest.h>

namespace accelmm::dmabuf {
namespace {

FileRange range(int memfd, std::uint64_t first_page, std::uint64_t pages) {
  return {FdView(memfd), ByteCount(std::uint64_t{1} << 40), ByteCount(first_page * 4096),
          ByteCount(pages * 4096)};
}

PieceLimits limits(std::uint64_t pages, std::uint32_t ranges) {
  return {.largest = ByteCount(pages * 4096), .most_ranges = ranges};
}

/// What a plan says, in numbers: file, first page, pages; a piece in each line.
using Numbers = std::vector<std::vector<std::array<std::uint64_t, 3>>>;
Numbers numbers(const std::vector<std::vector<FileRange>>& plan) {
  Numbers all;
  for (const auto& piece : plan) {
    all.emplace_back();
    for (const FileRange& one : piece)
      all.back().push_back({static_cast<std::uint64_t>(one.memfd.get()), one.offset.value() / 4096,
                            one.length.value() / 4096});
  }
  return all;
}

TEST(PiecePlan, ARangeWithinTheLimitsIsOnePiece) {
  const std::vector ranges{range(3, 5, 16)};
  EXPECT_EQ((Numbers{{{3, 5, 16}}}), numbers(plan_pieces(ranges, limits(16, 1))));
}

TEST(PiecePlan, ALongRangeIsCutAtWholePieces) {
  const std::vector ranges{range(3, 5, 33)};
  EXPECT_EQ((Numbers{{{3, 5, 16}}, {{3, 21, 16}}, {{3, 37, 1}}}),
            numbers(plan_pieces(ranges, limits(16, 1))));
}

TEST(PiecePlan, WhatFollowsDirectlyIsJoined) {
  const std::vector ranges{range(3, 0, 2), range(3, 2, 3), range(3, 6, 1), range(4, 7, 1)};
  EXPECT_EQ((Numbers{{{3, 0, 5}, {3, 6, 1}, {4, 7, 1}}}),
            numbers(plan_pieces(ranges, limits(100, 100))));
}

TEST(PiecePlan, WhatIsThereTwiceStaysTwice) {
  const std::vector ranges{range(3, 0, 1), range(3, 0, 1), range(3, 0, 1)};
  EXPECT_EQ((Numbers{{{3, 0, 1}, {3, 0, 1}, {3, 0, 1}}}),
            numbers(plan_pieces(ranges, limits(100, 100))));
}

TEST(PiecePlan, MoreRangesThanAPieceMayHaveBeginANewOne) {
  const std::vector ranges{range(3, 0, 1), range(3, 2, 1), range(3, 4, 1), range(3, 5, 1),
                           range(3, 7, 1)};
  // The fourth joins the third, which may be: it makes no new range.
  EXPECT_EQ((Numbers{{{3, 0, 1}, {3, 2, 1}}, {{3, 4, 2}, {3, 7, 1}}}),
            numbers(plan_pieces(ranges, limits(100, 2))));
}

TEST(PiecePlan, ACutRangeGoesOnInTheNextPieceBesideOthers) {
  const std::vector ranges{range(3, 0, 3), range(4, 0, 3), range(5, 0, 3)};
  EXPECT_EQ((Numbers{{{3, 0, 3}, {4, 0, 1}}, {{4, 1, 2}, {5, 0, 2}}, {{5, 2, 1}}}),
            numbers(plan_pieces(ranges, limits(4, 8))));
}

}  // namespace
}  // namespace accelmm::dmabuf
