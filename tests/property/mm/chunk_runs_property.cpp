// SPDX-License-Identifier: Apache-2.0
#include "property/mm/chunk_runs_model.hpp"
#include "property/mm/steps.hpp"

#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

bool step(JudgedRuns& runs, Dice& dice) {
  const std::uint64_t at = dice.roll(runs.chunks());
  const std::uint64_t count = 1 + dice.roll(std::uint64_t{1} << dice.roll(9));
  const auto align = static_cast<unsigned>(dice.roll(3) == 0 ? dice.roll(6) : 0);
  switch (dice.roll(8)) {
    case 0:
    case 1:
      return runs.take(count, align);
    case 2:
      return runs.take_exactly(at, count);
    case 3:
      return runs.look_within(dice.roll(2) == 0 ? 1 : count, align,
                              {at, at + 1 + dice.roll(runs.chunks() - at)});
    case 4:
      return runs.look_for(count, align, 1 + dice.roll(4));
    case 5:
      runs.judge_runs(at);
      return true;
    default:
      return runs.give(at, count);
  }
}

void run(const char* name, std::uint64_t chunks, std::uint64_t steps) {
  Dice dice(name);
  JudgedRuns runs(chunks);
  Tally tally;
  for (std::uint64_t n = number_from_environment("ACCELMM_STEPS", steps); n > 0; --n)
    tally.note(step(runs, dice));
  tally.print(name);
  EXPECT_GT(tally.succeeded, 0U);
}

TEST(ChunkRunsProperty, AgreesWithOneBytePerChunkOf4097) {
  run("runs-4097", 4097, 4000);
}
TEST(ChunkRunsProperty, AgreesWithOneBytePerChunkOf1000) {
  run("runs-1000", 1000, 20000);
}
TEST(ChunkRunsProperty, AgreesWithOneBytePerChunkOf64) {
  run("runs-64", 64, 20000);
}
TEST(ChunkRunsProperty, AgreesWithOneBytePerChunkOf7) {
  run("runs-7", 7, 20000);
}
TEST(ChunkRunsProperty, AgreesWithOneBytePerChunkOf1) {
  run("runs-1", 1, 1000);
}

}  // namespace
}  // namespace accelmm::test
