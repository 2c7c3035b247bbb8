// SPDX-License-Identifier: Apache-2.0
#include "property/mm/steps.hpp"
#include "support/trace_memory.hpp"

#include <accelmm/check.hpp>
#include <accelmm/page_allocator.hpp>
#include <accelmm/trace_recorder.hpp>

#include <algorithm>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

constexpr std::uint64_t page = 4096;

// Plays a trace into a byte a page: each allocation at the place that the recorder's allocator gave,
// which the test has kept by the order of its requests.
class PlayedBack {
 public:
  PlayedBack(std::uint64_t pages, std::vector<Extent> granted)
      : taken_(pages, 0), granted_(std::move(granted)) {}

  void play(std::uint32_t number, const TraceEvent& event) {
    switch (event.op) {
      case TraceOp::allocate: {
        const Extent extent = granted_[made_++];
        ACCELMM_CHECK(extent.length == ByteCount(event.size * page));
        live_[number] = extent;
        mark(extent, 0, 1);
        break;
      }
      case TraceOp::split: {
        Extent& whole = live_.at(event.subject);
        const ByteCount front(event.size * page);
        live_[number] = {whole.offset + front, whole.length - front};
        live_.at(event.subject).length = front;
        break;
      }
      case TraceOp::free:
        mark(live_.at(event.subject), 1, 0);
        live_.erase(event.subject);
        break;
      case TraceOp::refused:
      case TraceOp::bad_free:
        break;
    }
  }
  [[nodiscard]] const std::vector<std::uint8_t>& taken() const { return taken_; }

 private:
  void mark(Extent extent, std::uint8_t before, std::uint8_t after) {
    const auto first = taken_.begin() + static_cast<std::ptrdiff_t>(extent.offset.value() / page);
    const auto last = first + static_cast<std::ptrdiff_t>(extent.length.value() / page);
    ACCELMM_CHECK(std::all_of(first, last, [&](std::uint8_t state) { return state == before; }));
    std::fill(first, last, after);
  }
  std::vector<std::uint8_t> taken_;
  std::vector<Extent> granted_;
  std::size_t made_ = 0;
  std::map<std::uint32_t, Extent> live_;
};

// Random requests, and frees of random places, most of which are parts or several neighbours.
TEST(TraceRecorder, WritesATraceThatPlaysBackToTheSamePages) {
  constexpr std::uint64_t page_count = 1500;
  Dice dice("trace recorder");
  Tally tally;
  TraceMemory memory;
  auto log = TraceLog::create(memory, {.block_events = 64, .blocks = 2}).value();
  log.set_pool_size(0, ByteCount(page_count * page));
  auto pages = PageAllocator::create({.size = ByteCount(page_count * page)}).value();
  TraceRecorder recorder(log, 0, pages);
  std::vector<std::uint8_t> taken(page_count, 0);
  std::vector<Extent> granted;
  const auto fill = [&](Extent extent, std::uint8_t value) {
    std::fill_n(taken.begin() + static_cast<std::ptrdiff_t>(extent.offset.value() / page),
                extent.length.value() / page, value);
  };
  const std::uint64_t steps = number_from_environment("ACCELMM_STEPS", 20'000);
  for (std::uint64_t step = 0; step < steps; ++step) {
    const ByteCount length((1 + dice.roll(12)) * page);
    if (dice.roll(2) == 0) {
      std::vector<Extent> extents;
      if (dice.roll(8) == 0) {
        extents = recorder.allocate_scattered(length).value_or(std::vector<Extent>{});
      } else if (const auto extent = recorder.allocate(length)) {
        extents.push_back(*extent);
      }
      for (const Extent& extent : extents) {
        granted.push_back(extent);
        fill(extent, 1);
      }
      tally.note(!extents.empty());
      continue;
    }
    std::uint64_t at = dice.roll(page_count);
    if (dice.roll(8) != 0)  // mostly where something is
      while (at < page_count && taken[at] == 0) ++at;
    std::uint64_t count = 0;
    while (count < length.value() / page && at + count < page_count && taken[at + count] == 1)
      ++count;
    const Extent part{RegionOffset(at * page), ByteCount(std::max<std::uint64_t>(count, 1) * page)};
    const bool freed = recorder.free(part).has_value();
    ACCELMM_CHECK(freed == (count > 0));
    if (freed) fill(part, 0);
    tally.note(freed);
  }
  ASSERT_TRUE(log.finish());
  EXPECT_EQ(0U, log.lost());
  const auto events = events_of(memory.bytes());
  ASSERT_TRUE(events) << events.error().what;
  PlayedBack played(page_count, granted);
  for (std::uint32_t i = 0; i < events->size(); ++i) played.play(i, (*events)[i]);
  EXPECT_EQ(taken, played.taken());
  tally.print("trace recorder");
  EXPECT_TRUE(tally.mostly_succeeded());
}

}  // namespace
}  // namespace accelmm::test
