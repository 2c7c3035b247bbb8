// SPDX-License-Identifier: Apache-2.0
#include "property/mm/heap_model.hpp"
#include "property/mm/steps.hpp"

#include <algorithm>

#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

/// Small mostly; some large, few huge, now and then nothing.
std::uint64_t some_size(Dice& dice) {
  switch (dice.roll(16)) {
    case 0:
      return dice.roll(64) == 0 ? 0 : 1 + dice.roll(6 << 20);
    case 1:
    case 2:
      return 1 + dice.roll(200000);
    case 3:
      return 16300 + dice.roll(200);
    default:
      return 1 + dice.roll(std::uint64_t{16} << dice.roll(10));
  }
}

bool take_something(JudgedHeap& heap, Dice& dice) {
  const std::uint64_t size = some_size(dice);
  switch (dice.roll(8)) {
    case 0:
      return heap.allocate(size, static_cast<unsigned>(dice.roll(24)));
    case 1:
      return heap.allocate(size, static_cast<unsigned>(dice.roll(8)), ZeroFill::yes);
    case 2:
      return heap.reallocate(heap.live_pointer(dice.roll(1000)), size);
    default:
      return heap.allocate(size, 0);
  }
}

bool give_something(JudgedHeap& heap, Dice& dice) {
  const void* const live = heap.live_pointer(dice.roll(1000));
  switch (dice.roll(16)) {
    case 0:  // a double free, mostly
      return heap.free(heap.freed_pointer(dice.roll(50)));
    case 1:  // inside a piece, mostly
      return heap.free(static_cast<const std::byte*>(live) + 1 + dice.roll(8192));
    case 2:
      return heap.free_sized(live, dice.roll(20000));
    case 3:
      return heap.reallocate(heap.freed_pointer(dice.roll(50)), some_size(dice));
    case 4:
      heap.damage(live);
      return heap.free(live);
    default:
      return heap.free(live);
  }
}

/// Sweeps what is live up and down between nothing and `most` pieces.
void run(const char* name, Heap::Options options, std::uint64_t chunks) {
  Dice dice(name);
  const std::uint64_t steps = number_from_environment("ACCELMM_STEPS", 25000);
  JudgedHeap heap(options, Checkpoints::of_run(steps, 12500));
  if (chunks != 0) heap.allow(chunks);
  const std::uint64_t phase = std::max<std::uint64_t>(steps / 20, 1);
  constexpr std::uint64_t most = 300;
  Tally tally;
  for (std::uint64_t step = 0; step < steps; ++step) {
    const std::uint64_t target = (step / phase) % 11 * most / 10;
    const bool above = heap.live_pieces() > target;
    const bool give = above ? dice.roll(4) != 0 : dice.roll(4) == 0;
    if (dice.roll(64) == 0)
      heap.trim();
    else
      tally.note(give ? give_something(heap, dice) : take_something(heap, dice));
  }
  tally.print(name);
  EXPECT_TRUE(tally.mostly_succeeded());
  heap.free_everything();
}

TEST(HeapProperty, AgreesWithAMapOfLivePieces) {
  run("heap", {}, 0);
}
TEST(HeapProperty, AgreesWithAMapOfLivePiecesWhenTheSourceEnds) {
  run("heap-limited", {.dedicated_from = 3_MiB, .spare_chunks = 0}, 12);
}
TEST(HeapProperty, AgreesWithAMapOfLivePiecesWithLargeChunksAndGuards) {
  run("heap-guards", {.chunk = 8_MiB, .spare_chunks = 2, .guard = 12_KiB}, 0);
}
TEST(HeapProperty, AgreesWithAMapOfLivePiecesThatAreDebugged) {
  run("heap-debugged",
      {.spacing = Slab::Spacing::cache_lines,
       .order = Slab::Order::random,
       .quarantine = {.random = 10, .queue = 20},
       .guard = 4_KiB,
       .canaries = Heap::Canaries::yes,
       .scrub = Heap::Scrub::yes},
      0);
}

}  // namespace
}  // namespace accelmm::test
