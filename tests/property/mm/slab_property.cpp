// SPDX-License-Identifier: Apache-2.0
#include "property/mm/slab_model.hpp"
#include "property/mm/steps.hpp"

#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

/// Small mostly, up to the largest and now and then beyond.
std::uint64_t some_size(Dice& dice) {
  switch (dice.roll(8)) {
    case 0:
      return dice.roll(17000);
    case 1:
      return 1 + dice.roll(4096);
    default:
      return std::uint64_t{16} << dice.roll(6);
  }
}

bool take_something(JudgedSlab& slab, Dice& dice) {
  const std::uint64_t size = some_size(dice);
  if (dice.roll(4) != 0) return slab.allocate(size);
  return slab.allocate_bulk(size, dice.roll(dice.roll(4) == 0 ? 200 : 40));
}

bool give_something(JudgedSlab& slab, Dice& dice) {
  switch (dice.roll(16)) {
    case 0:  // a double free, mostly
      return slab.free(slab.freed_offset(dice.roll(50)));
    case 1:  // inside an object, mostly
      return slab.free(slab.live_offset(dice.roll(1000)) + 1 + dice.roll(64));
    case 2:
      return slab.free(dice.roll(2 * JudgedSlab::region.value()));
    case 3:
      return slab.free_some(dice.roll(1000), dice.roll(40), slab.freed_offset(dice.roll(50)));
    case 4:
    case 5:
    case 6:
    case 7:
    case 8:
      return slab.free_some(dice.roll(1000), dice.roll(80));
    default:
      return slab.free(slab.live_offset(dice.roll(1000)));
  }
}

bool tidy(JudgedSlab& slab, Dice& dice) {
  switch (dice.roll(3)) {
    case 0:
      slab.drain();
      return true;
    case 1:
      slab.trim();
      return true;
    default:
      slab.recount();
      return true;
  }
}

/// Sweeps what is live up and down between nothing and `most` objects.
void run(const char* name, Slab::Options options, std::uint64_t slabs) {
  Dice dice(name);
  const std::uint64_t steps = number_from_environment("ACCELMM_STEPS", 17000);
  JudgedSlab slab(options, Checkpoints::of_run(steps, 50000));
  if (slabs != 0) slab.allow(slabs);
  const std::uint64_t phase = std::max<std::uint64_t>(steps / 20, 1);
  constexpr std::uint64_t most = 1500;
  Tally tally;
  for (std::uint64_t step = 0; step < steps; ++step) {
    const std::uint64_t target = (step / phase) % 11 * most / 10;
    const bool above = slab.live_objects() > target;
    const bool give = above ? dice.roll(4) != 0 : dice.roll(4) == 0;
    if (dice.roll(64) == 0)
      tally.note(tidy(slab, dice));
    else
      tally.note(give ? give_something(slab, dice) : take_something(slab, dice));
  }
  tally.print(name);
  EXPECT_TRUE(tally.mostly_succeeded());
  slab.free_everything();
}

TEST(SlabProperty, AgreesWithAMapOfLiveObjects) {
  run("slab", {}, 0);
}
TEST(SlabProperty, AgreesWithAMapOfLiveObjectsWhenTheSourceEnds) {
  run("slab-limited", {.spare_slabs = 0}, 36);
}
TEST(SlabProperty, AgreesWithAMapOfLiveObjectsInCacheLinesAndRandomOrder) {
  run("slab-lines", {.spacing = Slab::Spacing::cache_lines, .order = Slab::Order::random}, 0);
}
TEST(SlabProperty, AgreesWithAMapOfLiveObjectsBehindAQuarantine) {
  run("slab-quarantine", {.quarantine = {.random = 40, .queue = 60}}, 0);
}
TEST(SlabProperty, AgreesWithAMapOfLiveObjectsWhenBulkIsTrusted) {
  run("slab-trusted", {.bulk = Slab::Bulk::trusted}, 0);
}
TEST(SlabProperty, AgreesWithAMapOfLiveObjectsWhenBulkIsTrustedAndTheSourceEnds) {
  run("slab-trusted-limited", {.bulk = Slab::Bulk::trusted, .spare_slabs = 0}, 36);
}

}  // namespace
}  // namespace accelmm::test
