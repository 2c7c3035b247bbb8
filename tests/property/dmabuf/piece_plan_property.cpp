// SPDX-License-Identifier: Apache-2.0
//
// A plan of pieces against the list of pages that it stands for.
#include "dmabuf/piece_plan.hpp"
#include "property/mm/steps.hpp"

#include <utility>

#include <gtest/gtest.h>

namespace accelmm::dmabuf {
namespace {

constexpr std::uint64_t page = 4096;
using Pages = std::vector<std::pair<int, std::uint64_t>>;

void append(Pages& pages, const FileRange& range) {
  for (std::uint64_t at = 0; at < range.length.value(); at += page)
    pages.emplace_back(range.memfd.get(), range.offset.value() + at);
}

std::vector<FileRange> any_ranges(test::Dice& dice) {
  std::vector<FileRange> ranges(1 + dice.roll(40));
  for (FileRange& range : ranges)
    range = {FdView(3 + static_cast<int>(dice.roll(2))), ByteCount(1000 * page),
             ByteCount(dice.roll(24) * page), ByteCount((1 + dice.roll(12)) * page)};
  // Some follow directly on the one before.
  for (std::size_t i = 1; i < ranges.size(); ++i)
    if (dice.roll(3) == 0) {
      ranges[i].memfd = ranges[i - 1].memfd;
      ranges[i].offset = ranges[i - 1].offset + ranges[i - 1].length;
    }
  return ranges;
}

TEST(PiecePlanProperty, EveryPageIsThereOnceInItsOrderWithinTheLimits) {
  test::Dice dice("PiecePlanProperty");
  const std::uint64_t steps = test::number_from_environment("ACCELMM_STEPS", 10'000);
  for (std::uint64_t step = 0; step < steps; ++step) {
    const auto ranges = any_ranges(dice);
    const PieceLimits limits{.largest = ByteCount((1 + dice.roll(20)) * page),
                             .most_ranges = static_cast<std::uint32_t>(1 + dice.roll(8))};
    Pages wanted;
    for (const FileRange& range : ranges) append(wanted, range);
    Pages planned;
    std::size_t full = 0;
    const auto plan = plan_pieces(ranges, limits);
    for (const auto& piece : plan) {
      ASSERT_FALSE(piece.empty());
      ASSERT_LE(piece.size(), limits.most_ranges);
      ByteCount length;
      for (const FileRange& range : piece) {
        ASSERT_GT(range.length, ByteCount());
        length += range.length;
        append(planned, range);
      }
      ASSERT_LE(length, limits.largest);
      if (length == limits.largest || piece.size() == limits.most_ranges) ++full;
    }
    ASSERT_EQ(wanted, planned) << "step " << step;
    // No piece ends before it must, but for the last.
    ASSERT_GE(full + 1, plan.size()) << "step " << step;
  }
}

}  // namespace
}  // namespace accelmm::dmabuf
