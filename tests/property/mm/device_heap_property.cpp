// SPDX-License-Identifier: Apache-2.0
#include "property/mm/device_heap_model.hpp"
#include "property/mm/steps.hpp"

#include <algorithm>

#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

DeviceHeap::Request some_request(const JudgedHeap& heap, Dice& dice) {
  DeviceHeap::Request request{};
  request.lifetime = static_cast<Lifetime>(dice.roll(4));
  const std::uint64_t native = heap.native();
  if (dice.roll(2) == 0) {
    request.size = ByteCount(1 + dice.roll(std::uint64_t{1} << dice.roll(17)) % native);
  } else {
    request.size = ByteCount(1 + dice.roll(native * (1 + dice.roll(6))));
    if (dice.roll(4) == 0) request.layout = DeviceHeap::Layout::scattered;
  }
  if (request.layout == DeviceHeap::Layout::scattered) return request;
  if (dice.roll(4) == 0) request.alignment = Alignment(std::uint64_t{1} << dice.roll(18));
  if (dice.roll(8) == 0) {
    const std::uint64_t a = dice.roll(heap.total());
    const std::uint64_t b = dice.roll(heap.total());
    request.within = {RegionOffset(std::min(a, b)), RegionOffset(std::max(a, b) + 1)};
  }
  request.placement = static_cast<Placement>(dice.roll(3));
  return request;
}

bool upkeep(JudgedHeap& heap, Dice& dice, std::uint64_t now) {
  switch (dice.roll(6)) {
    case 0:
      return heap.trim();
    case 1:
      return heap.reopen(dice.roll(JudgedHeap::owners));
    case 2:
      return heap.move(ByteCount(dice.roll(heap.total())),
                       {.kind = DeviceHeap::Goal::Kind::run,
                        .size = ByteCount((1 + dice.roll(8)) * heap.native()),
                        .alignment = Alignment(std::uint64_t{1} << dice.roll(18))},
                       dice.roll(3));
    case 3:
      return heap.move(ByteCount(dice.roll(heap.total())),
                       {.kind = DeviceHeap::Goal::Kind::pages, .size = {}}, dice.roll(3));
    default:
      return heap.retire(now - std::min<std::uint64_t>(now, dice.roll(40)));
  }
}

bool give(JudgedHeap& heap, Dice& dice, std::uint64_t now) {
  if (heap.live() == 0) return false;
  const std::size_t n = dice.roll(heap.live());
  if (dice.roll(4) == 0) return heap.free_after(n, now + dice.roll(60));
  return heap.free(n, dice.roll(3) == 0 ? JudgedHeap::Part::last_extent : JudgedHeap::Part::all);
}

/// Sweeps the fill up and down between nothing and everything, several times.
void run(const char* name, std::uint64_t native, std::uint64_t pages, std::uint32_t spares) {
  Dice dice(name);
  const std::uint64_t steps = number_from_environment("ACCELMM_STEPS", 25000);
  JudgedHeap heap(native, pages, spares, Checkpoints::of_run(steps, 50000));
  Tally tally;
  const std::uint64_t phase = std::max<std::uint64_t>(steps / 20, 1);
  for (std::uint64_t step = 0; step < steps; ++step) {
    const std::uint64_t target = (step / phase) % 11 * heap.total() / 10;
    const bool above = heap.held() > target;
    if (dice.roll(12) == 0)
      tally.note(upkeep(heap, dice, step));
    else if (above ? dice.roll(4) != 0 : dice.roll(4) == 0)
      tally.note(give(heap, dice, step));
    else
      tally.note(heap.allocate(dice.roll(JudgedHeap::owners), some_request(heap, dice)));
  }
  tally.print(name);
  EXPECT_TRUE(tally.mostly_succeeded());
  heap.free_everything();
}

// Native pages: of one granule, of four, with slabs; with and without pages kept.
TEST(DeviceHeapProperty, AgreesWithIntervalsOnPagesOf4096Bytes) {
  run("heap-4096", 4096, 203, 1);
}
TEST(DeviceHeapProperty, AgreesWithIntervalsOnPagesOf16KiB) {
  run("heap-16k", 16384, 64, 1);
}
TEST(DeviceHeapProperty, AgreesWithIntervalsOnPagesOf64KiBNoneKept) {
  run("heap-64k", 65536, 48, 0);
}
TEST(DeviceHeapProperty, AgreesWithIntervalsOnPagesOf128KiBWithSlabs) {
  run("heap-128k", 131072, 37, 2);
}

}  // namespace
}  // namespace accelmm::test
