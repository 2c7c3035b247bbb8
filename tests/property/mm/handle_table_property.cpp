// SPDX-License-Identifier: Apache-2.0
#include "property/mm/handle_model.hpp"
#include "property/mm/steps.hpp"

#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

/// Few enough that most removals find no pin.
std::size_t most_pins(const JudgedHandles& handles) {
  return handles.capacity() / 8 + 2;
}

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

/// More pins are begun while the table grows, and more are ended while it shrinks.
bool do_something(JudgedHandles& handles, Dice& dice, bool growing) {
  const std::uint64_t dies = dice.roll(12);
  if (dies < (growing ? 4U : 2U)) return handles.insert(static_cast<std::uint8_t>(dice.roll(256)));
  if (dies < 5) return handles.pins() > 0 && handles.unpin(dice.roll(handles.pins()));
  const std::uint64_t raw = some_handle(handles, dice);
  const auto type = static_cast<std::uint8_t>(dice.roll(16) == 0 ? dice.roll(256) : raw >> 56);
  switch (dies) {
    case 5:
    case 6:
      return handles.remove(raw, type);
    case 7:
      return handles.withdraw(raw, type);
    case 8:
    case 9:
      return handles.pins() < most_pins(handles) ? handles.pin(raw, type) : handles.find(raw, type);
    default:
      return handles.find(raw, type);
  }
}

void run(const char* name, std::uint32_t capacity) {
  Dice dice(name);
  JudgedHandles handles(capacity);
  Tally tally;
  const std::uint64_t steps = number_from_environment("ACCELMM_STEPS", 50000);
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
