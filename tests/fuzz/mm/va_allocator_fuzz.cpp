// SPDX-License-Identifier: Apache-2.0
//
// Input: a byte for where the range begins, one for its size and one for its options, then
// (operation, argument, argument) byte triples. The model judges refusals as well, so no operation
// needs to be valid.
#include "property/mm/va_model.hpp"

#include <cstddef>
#include <cstdint>
#include <span>

namespace {

using accelmm::test::JudgedIntervals;
using Placement = JudgedIntervals::Placement;

JudgedIntervals::Setting setting_of(std::uint8_t options, std::uint64_t begin, std::uint64_t end) {
  JudgedIntervals::Setting setting{.large = std::uint64_t{1} << (options % 8)};
  if ((options & 8) != 0) setting.guard = options >> 6;
  if ((options & 16) != 0) setting.hint_ranges = {{begin, begin + 1}, {begin + 2, end}};
  if ((options & 32) != 0) {
    setting.quarantine_ranges = 1 + (options >> 6);
    setting.quarantine_pages = 64;
  }
  return setting;
}

/// `detail` is what the operation has left to say, `argument` and `more` are any.
JudgedIntervals::Ask ask_of(const JudgedIntervals& intervals, unsigned detail,
                            std::uint8_t argument, std::uint8_t more) {
  JudgedIntervals::Ask ask{.count = 1U + argument % 32};
  ask.alignment = std::uint64_t{1} << (more % 11);
  ask.phase = (argument / 11U) & (ask.alignment - 1);
  const Placement placements[] = {Placement::best_fit, Placement::bottom_up, Placement::top_down};
  ask.placement = placements[detail % 3];
  const std::uint64_t at =
      intervals.begin() + std::uint64_t{more} * (intervals.end() - intervals.begin()) / 256;
  if (detail % 5 == 1) ask.guard = argument % 4;
  if (detail % 5 == 2) ask.hint = at;
  if (detail % 5 >= 3 && at < intervals.end()) ask.within = {at, intervals.end()};
  if (detail % 5 == 4 && at > intervals.begin()) ask.within = {intervals.begin(), at};
  return ask;
}

void step(JudgedIntervals& intervals, std::uint8_t operation, std::uint8_t argument,
          std::uint8_t more) {
  const std::uint64_t span = intervals.end() - intervals.begin();
  const std::uint64_t at = intervals.begin() + (argument * 256U + more) * span / 65536;
  const unsigned detail = operation / 12;
  switch (operation % 12) {
    case 0:
      intervals.allocate(1U + argument, 1, 0);
      return;
    case 1:
    case 2:
      intervals.allocate(ask_of(intervals, detail, argument, more));
      return;
    case 3:
      intervals.allocate_at(at, detail);
      return;
    case 4:
      intervals.allocate_at(intervals.begin() + argument, 1U + detail);
      return;
    case 5:
      intervals.free(at);
      return;
    case 6:
    case 7:
      intervals.free(intervals.taken_from(at));
      return;
    case 8:
      intervals.reserve(ask_of(intervals, detail, argument, more));
      return;
    case 9:
      intervals.reserve_at(at, 1U + detail);
      return;
    case 10:
      if (JudgedIntervals* pieces = intervals.reservation_from(at))
        step(*pieces, more, argument, operation);
      return;
    default:
      if (const JudgedIntervals* pieces = intervals.reservation_from(at))
        intervals.release(pieces->begin());
      else
        intervals.drain_quarantine();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::uint8_t> input(data, size);
  if (input.size() < 6) return 0;
  const std::uint64_t begin = input[0];
  const std::uint64_t end = begin + 4 + 9 * std::uint64_t{input[1]};
  JudgedIntervals intervals(begin, end, setting_of(input[2], begin, end));
  for (std::size_t i = 3; i + 2 < input.size(); i += 3)
    step(intervals, input[i], input[i + 1], input[i + 2]);
  intervals.free_everything();
  return 0;
}
