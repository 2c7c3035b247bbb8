// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace accelmm::bench {

/// A half-open range of addresses or offsets.
struct Interval {
  std::uint64_t begin;
  std::uint64_t end;
};

/// Whether no two intervals share a byte.
[[nodiscard]] inline bool disjoint(std::vector<Interval> intervals) {
  std::ranges::sort(intervals, {}, &Interval::begin);
  for (std::size_t i = 1; i < intervals.size(); ++i)
    if (intervals[i].begin < intervals[i - 1].end) return false;
  return true;
}

}  // namespace accelmm::bench
