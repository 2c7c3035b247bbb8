// SPDX-License-Identifier: Apache-2.0
#include "property/mm/handle_model.hpp"
#include "property/mm/steps.hpp"

#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

/// A number with all 64 bits random, as raw handles have them in their type and generation fields.
std::uint64_t anywhere(Dice& dice) {
  return dice.roll(~std::uint64_t{0});
}

/// A handle as a careless or hostile caller has it: live, stale, of the wrong type, or made up.
std::uint64_t some_handle(const JudgedHandles& handles, Dice& dice) {
  switch (dice.roll(20)) {
    case 0:
      return anywhere(dice);
    case 1:
      return handles.any_from(anywhere(dice));
    case 2:
      return handles.live_from(anywhere(dice)) ^ (std::uint64_t{1} << dice.roll(64));
    default:
      return handles.live_from(anywhere(dice));
  }
}

bool do_something(JudgedHandles& handles, Dice& dice, bool growing) {
  const std::uint64_t dies = dice.roll(8);
  if (dies < (growing ? 3U : 2U)) return handles.insert(static_cast<std::uint8_t>(dice.roll(256)));
  const std::uint64_t raw = some_handle(handles, dice);
  const auto type = static_cast<std::uint8_t>(dice.roll(16) == 0 ? dice.roll(256) : raw >> 56);
  return dies < 5 ? handles.remove(raw, type) : handles.find(raw, type);
}

void run(const char* name, std::uint32_t capacity) {
  Dice dice(name);
  JudgedHandles handles(capacity);
  Tally tally;
  const std::uint64_t steps = number_from_environment("ACCELMM_STEPS", 20000);
  const std::uint64_t phase = steps / 10 + 1;
  for (std::uint64_t step = 0; step < steps; ++step)
    tally.note(do_something(handles, dice, step / phase % 2 == 0));
  tally.print(name);
  EXPECT_TRUE(tally.mostly_succeeded());
}

TEST(HandleTableProperty, AgreesWithAMapAtCapacity7) {
  run("handles-7", 7);
}
TEST(HandleTableProperty, AgreesWithAMapAtCapacity300) {
  run("handles-300", 300);
}

}  // namespace
}  // namespace accelmm::test
