// SPDX-License-Identifier: Apache-2.0
//
// Input: a byte for where the range begins and one for its size, then (operation, argument) byte pairs.
// The model judges refusals as well, so no operation needs to be valid.
#include "property/mm/va_model.hpp"

#include <cstddef>
#include <cstdint>
#include <span>

namespace {

using accelmm::test::JudgedIntervals;

void step(JudgedIntervals& intervals, std::uint8_t operation, std::uint8_t argument) {
  const std::uint64_t span = intervals.end() - intervals.begin();
  const std::uint64_t at = intervals.begin() + std::uint64_t{argument} * span / 256;
  const std::uint64_t power = std::uint64_t{1} << (argument % 11);
  switch (operation % 6) {
    case 0:
      intervals.allocate(1U + argument, 1, 0);
      return;
    case 1:
      intervals.allocate(1U + operation / 6, power, (argument / 11U) & (power - 1));
      return;
    case 2:
      intervals.allocate_at(at, operation / 6);
      return;
    case 3:
      intervals.allocate_at(intervals.begin() + argument, 1U + operation / 6);
      return;
    case 4:
      intervals.free(at);
      return;
    default:
      intervals.free(intervals.taken_from(at));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::uint8_t> input(data, size);
  if (input.size() < 4) return 0;
  const std::uint64_t begin = input[0];
  JudgedIntervals intervals(begin, begin + 1 + 9 * std::uint64_t{input[1]});
  for (std::size_t i = 2; i + 1 < input.size(); i += 2) step(intervals, input[i], input[i + 1]);
  intervals.free_everything();
  return 0;
}
