// SPDX-License-Identifier: Apache-2.0
#include "property/dmabuf/naive_negotiation.hpp"
#include "property/mm/steps.hpp"

#include <algorithm>
#include <iterator>

#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

Roll roll_of(Dice& dice) {
  return [&dice](std::uint64_t sides) { return dice.roll(sides); };
}

// Large numbers too, where multiples and sums leave their 64 and 32 bits.
Constraints any_constraints(Dice& dice) {
  Constraints made = random_constraints(roll_of(dice));
  if (dice.roll(3) == 0) made.size_divisor = 1 + dice.roll(~std::uint64_t{0});
  if (dice.roll(3) == 0) made.offset_divisor = std::uint64_t{3} << dice.roll(60);
  if (dice.roll(4) == 0)
    made.counts.camping = static_cast<std::uint32_t>(dice.roll(std::uint64_t{1} << 32));
  if (made.images) {
    for (auto& [pattern, image] : *made.images) {
      if (dice.roll(4) == 0) image.stride_divisor = 1 + dice.roll(~std::uint64_t{0});
    }
  }
  return made;
}

Constraints without_sums(Constraints made) {
  made.counts.camping = 0;
  made.counts.dedicated = 0;
  if (made.images) {
    for (auto& [pattern, image] : *made.images) image.cost = 0;
  }
  return made;
}

TEST(ConstraintsProperty, CombiningIsCommutativeAssociativeAndIdempotentWithAnIdentity) {
  Dice dice("property/dmabuf/negotiation");
  const std::uint64_t steps = number_from_environment("ACCELMM_STEPS", 20000);
  std::uint64_t overflows = 0;
  for (std::uint64_t i = 0; i < steps; ++i) {
    const Constraints a = any_constraints(dice);
    const Constraints b = any_constraints(dice);
    const Constraints c = any_constraints(dice);
    const Constraints ab = combine(a, b);
    ASSERT_EQ(ab, combine(b, a)) << i;
    ASSERT_EQ(combine(ab, c), combine(a, combine(b, c))) << i;
    ASSERT_EQ(a, combine(a, Constraints{})) << i;
    const Constraints sumless = without_sums(a);
    ASSERT_EQ(sumless, combine(sumless, sumless)) << i;
    if (ab.size_divisor == 0) ++overflows;
  }
  EXPECT_GT(overflows, steps / 50) << "the dice no longer reach the overflow";
}

TEST(NegotiationProperty, AgreesWithAskingEachParticipantAboutEachAllocation) {
  Dice dice("property/dmabuf/negotiation");
  const std::uint64_t steps = number_from_environment("ACCELMM_STEPS", 20000);
  Tally tally;
  for (std::uint64_t i = 0; i < steps; ++i) {
    const auto participants = random_participants(roll_of(dice), 4);
    const char* const fault = fault_of(participants);
    ASSERT_EQ(nullptr, fault) << i << ": " << fault;
    tally.note(negotiate(participants).has_value());
  }
  tally.print("property/dmabuf/negotiation");
  EXPECT_GT(tally.succeeded, steps / 5);
  EXPECT_LT(tally.succeeded, steps - steps / 5);
}

TEST(NegotiationProperty, OneMoreParticipantNeverWidensWhatTheOthersAgreeOn) {
  Dice dice("property/dmabuf/negotiation");
  const std::uint64_t steps = number_from_environment("ACCELMM_STEPS", 20000) / 4;
  for (std::uint64_t i = 0; i < steps; ++i) {
    auto participants = random_participants(roll_of(dice), 3);
    const auto fewer = negotiate(participants);
    participants.push_back({"z", random_constraints(roll_of(dice))});
    const auto more = negotiate(participants);
    if (fewer && more) {
      ASSERT_GE(more->count, fewer->count) << i;
      if (more->image == fewer->image) {
        ASSERT_GE(more->size, fewer->size) << i;
      }
    }
    // Only the naming of a format is something that one more can bring.
    if (!fewer && fewer.error().rule < Rule::layout) {
      ASSERT_FALSE(more) << i;
    }
  }
}

TEST(NegotiationProperty, TheOrderOfParticipantsDoesNotMatter) {
  Dice dice("property/dmabuf/negotiation");
  const std::uint64_t steps = number_from_environment("ACCELMM_STEPS", 20000) / 4;
  for (std::uint64_t i = 0; i < steps; ++i) {
    auto participants = random_participants(roll_of(dice), 5);
    const auto forwards = negotiate(participants);
    std::ranges::reverse(participants);
    std::ranges::rotate(participants,
                        std::next(participants.begin(),
                                  static_cast<std::ptrdiff_t>(dice.roll(participants.size()))));
    const auto shuffled = negotiate(participants);
    ASSERT_EQ(forwards.has_value(), shuffled.has_value()) << i;
    if (forwards) {
      ASSERT_TRUE(same(*forwards, *shuffled)) << i;
    } else {
      ASSERT_EQ(forwards.error().rule, shuffled.error().rule) << i;
    }
  }
}

}  // namespace
}  // namespace accelmm::test
