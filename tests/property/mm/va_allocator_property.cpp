// SPDX-License-Identifier: Apache-2.0
#include "property/mm/steps.hpp"
#include "property/mm/va_model.hpp"

#include <algorithm>
#include <cstdio>
#include <optional>

#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

using Ask = JudgedIntervals::Ask;
using Setting = JudgedIntervals::Setting;
using Placement = JudgedIntervals::Placement;

/// Of each of the six tests here.
std::uint64_t steps_of_a_test() {
  return number_from_environment("ACCELMM_STEPS", 17'000);
}

constexpr std::uint64_t most_looks = 50'000;

/// A page of the range, or one beside it.
std::uint64_t roll_page(const JudgedIntervals& intervals, Dice& dice) {
  const std::uint64_t below = intervals.begin() == 0 ? 0 : intervals.begin() - 1;
  return below + dice.roll(intervals.end() + 2 - below);
}

Ask roll_ask(const JudgedIntervals& intervals, Dice& dice, std::uint64_t large) {
  Ask ask{.count = 1 + dice.roll(std::uint64_t{1} << dice.roll(8))};
  if (dice.roll(2) == 0) {
    ask.alignment = dice.roll(2) == 0 ? large : std::uint64_t{1} << dice.roll(10);
    if (dice.roll(2) == 0) ask.phase = dice.roll(ask.alignment);
  }
  if (dice.roll(4) == 0) ask.guard = dice.roll(4);
  if (dice.roll(4) == 0) ask.hint = roll_page(intervals, dice);
  if (dice.roll(4) == 0) {
    const std::uint64_t first = intervals.begin() + dice.roll(intervals.end() - intervals.begin());
    ask.within = JudgedIntervals::Span{first, first + 1 + dice.roll(intervals.end() - first)};
  }
  const Placement placements[] = {Placement::best_fit, Placement::best_fit, Placement::bottom_up,
                                  Placement::top_down};
  ask.placement = placements[dice.roll(4)];
  return ask;
}

bool take_something(JudgedIntervals& intervals, Dice& dice, std::uint64_t large) {
  const Ask ask = roll_ask(intervals, dice, large);
  switch (dice.roll(16)) {
    case 0:
      return intervals.reserve(ask);
    case 1:
      return intervals.reserve_at(roll_page(intervals, dice), ask.count);
    case 2:
    case 3:
    case 4:
      return intervals.allocate_at(roll_page(intervals, dice), dice.roll(16) == 0 ? 0 : ask.count,
                                   ask.guard);
    case 5:
    case 6:
      if (JudgedIntervals* pieces = intervals.reservation_from(roll_page(intervals, dice)))
        return dice.roll(2) == 0 ? pieces->allocate(1 + dice.roll(4), 1, 0)
                                 : pieces->allocate_at(roll_page(*pieces, dice), 1 + dice.roll(4));
      return intervals.allocate(ask);
    default:
      return intervals.allocate(ask);
  }
}

bool give_something(JudgedIntervals& intervals, Dice& dice) {
  const std::uint64_t at = roll_page(intervals, dice);
  JudgedIntervals* pieces = dice.roll(4) == 0 ? intervals.reservation_from(at) : nullptr;
  if (pieces != nullptr && dice.roll(2) == 0)
    return pieces->free(pieces->taken_from(roll_page(*pieces, dice)));
  if (pieces != nullptr) return intervals.release(pieces->begin());
  if (dice.roll(512) == 0) intervals.drain_quarantine();
  return intervals.free(dice.roll(16) == 0 ? at : intervals.taken_from(at));
}

void run(const char* name, std::uint64_t begin, std::uint64_t end, Setting setting) {
  Dice dice(name);
  const std::uint64_t steps = steps_of_a_test();
  setting.checkpoints = Checkpoints::of_run(steps, most_looks);
  JudgedIntervals intervals(begin, end, setting);
  Tally tally;
  const std::uint64_t phase = std::max<std::uint64_t>(steps / 22, 1);
  std::uint64_t least = 100;
  std::uint64_t most = 0;
  for (std::uint64_t step = 0; step < steps; ++step) {
    // The fill swept between nothing and everything, twice.
    const std::uint64_t target = (end - begin) * (step / phase % 11) / 10;
    const bool above = intervals.taken_pages() > target;
    const bool give = above ? dice.roll(8) != 0 : dice.roll(4) == 0;
    if (step % phase == 0 && target == end - begin) intervals.fill_everything(64);
    const std::uint64_t fill = intervals.taken_pages() * 100 / (end - begin);
    least = std::min(least, fill);
    most = std::max(most, fill);
    tally.note(give ? give_something(intervals, dice)
                    : take_something(intervals, dice, setting.large));
  }
  tally.print(name);
  std::fprintf(stderr, "%s: filled from %llu to %llu %%\n", name,
               static_cast<unsigned long long>(least), static_cast<unsigned long long>(most));
  EXPECT_TRUE(tally.mostly_succeeded());
  EXPECT_EQ(0U, least);
  EXPECT_TRUE(most == 100 || steps < 22);
  intervals.free_everything();
}

TEST(VaAllocatorProperty, AgreesWithAMapOfIntervalsFromAddressZero) {
  run("va-zero", 0, 8192, {});
}
TEST(VaAllocatorProperty, AgreesWithAMapOfIntervalsAtAnOddPlace) {
  run("va-odd", 1021, 5003, {.large = 64});
}
TEST(VaAllocatorProperty, AgreesWithAMapOfIntervalsAroundHintRanges) {
  run("va-hints", 0, 4096, {.large = 16, .hint_ranges = {{300, 340}, {340, 400}, {3000, 4096}}});
}
TEST(VaAllocatorProperty, AgreesWithAMapOfIntervalsWithGuards) {
  run("va-guards", 1, 4096, {.large = 32, .guard = 2});
}
TEST(VaAllocatorProperty, AgreesWithAMapOfIntervalsWithQuarantine) {
  run("va-quarantine", 1, 4096, {.large = 32, .quarantine_ranges = 24, .quarantine_pages = 400});
}
// Small pieces only: a tree of three levels, of which nodes split and merge all the time.
TEST(VaAllocatorProperty, AgreesWithAMapOfThousandsOfSmallIntervals) {
  Dice dice("va-small");
  constexpr std::uint64_t end = 8000;
  const std::uint64_t steps = steps_of_a_test();
  JudgedIntervals intervals(1, end,
                            {.large = 8, .checkpoints = Checkpoints::of_run(steps, most_looks)});
  Tally tally;
  for (std::uint64_t step = 0; step < steps; ++step) {
    const bool filling = step / 4000 % 2 == 0;  // to about half of the range
    const std::uint64_t at = 1 + dice.roll(end - 1);
    if (dice.roll(8) < (filling ? 7U : 1U))
      tally.note(dice.roll(8) != 0 ? intervals.allocate_at(at, 1)
                                   : intervals.allocate({.count = 1 + dice.roll(2)}));
    else
      tally.note(intervals.free(intervals.taken_from(at)));
  }
  tally.print("va-small");
  EXPECT_TRUE(tally.mostly_succeeded());
  intervals.free_everything();
}

}  // namespace
}  // namespace accelmm::test
