// SPDX-License-Identifier: Apache-2.0
#include "property/mm/steps.hpp"
#include "property/mm/va_model.hpp"

#include <algorithm>

#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

bool take_something(JudgedIntervals& intervals, Dice& dice) {
  const std::uint64_t length = 1 + dice.roll(std::uint64_t{1} << dice.roll(8));
  if (dice.roll(4) == 0) {
    const std::uint64_t span = intervals.end() - intervals.begin() + 2;
    const std::uint64_t below = intervals.begin() == 0 ? 0 : intervals.begin() - 1;
    return intervals.allocate_at(below + dice.roll(span), dice.roll(16) == 0 ? 0 : length);
  }
  if (dice.roll(2) == 0) return intervals.allocate(length, 1, 0);
  const std::uint64_t alignment = std::uint64_t{1} << dice.roll(10);
  return intervals.allocate(length, alignment, dice.roll(alignment));
}

bool give_something(JudgedIntervals& intervals, Dice& dice) {
  const std::uint64_t at = intervals.begin() + dice.roll(intervals.end() - intervals.begin());
  return intervals.free(dice.roll(16) == 0 ? at : intervals.taken_from(at));
}

void run(const char* name, std::uint64_t begin, std::uint64_t end) {
  Dice dice(name);
  JudgedIntervals intervals(begin, end);
  Tally tally;
  const std::uint64_t steps = number_from_environment("ACCELMM_STEPS", 12000);
  const std::uint64_t phase = std::max<std::uint64_t>(steps / 20, 1);
  for (std::uint64_t step = 0; step < steps; ++step) {
    // The fill swept up and down between nothing and everything.
    const std::uint64_t target = (step / phase) % 11 * (end - begin) / 10;
    const bool above = intervals.taken_pages() > target;
    const bool give = above ? dice.roll(4) != 0 : dice.roll(4) == 0;
    tally.note(give ? give_something(intervals, dice) : take_something(intervals, dice));
  }
  tally.print(name);
  EXPECT_TRUE(tally.mostly_succeeded());
  intervals.free_everything();
}

TEST(VaAllocatorProperty, AgreesWithAMapOfIntervalsFromAddressZero) {
  run("va-zero", 0, 8192);
}
TEST(VaAllocatorProperty, AgreesWithAMapOfIntervalsAtAnOddPlace) {
  run("va-odd", 1021, 5003);
}

}  // namespace
}  // namespace accelmm::test
