// SPDX-License-Identifier: Apache-2.0
#include "support/trace_memory.hpp"
#include "unit/mm/failing_new.hpp"

#include <accelmm/trace_recorder.hpp>

#include <cstdint>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

using test::events_of;
using test::TraceMemory;

constexpr std::uint64_t page = 4096;

PageAllocator pages_of(std::uint64_t count) {
  return PageAllocator::create({.size = ByteCount(count * page)}).value();
}

class Recording : public ::testing::Test {
 protected:
  [[nodiscard]] std::vector<TraceEvent> finish() {
    EXPECT_TRUE(log.finish());
    auto events = events_of(memory.bytes());
    EXPECT_TRUE(events) << events.error().what;
    return events.value_or(std::vector<TraceEvent>{});
  }

  TraceMemory memory;
  TraceLog log = TraceLog::create(memory, {.tick_ns = 10}).value();
  PageAllocator pages = pages_of(4096);
  TraceRecorder<PageAllocator> recorder{log, 2, pages};
};

TEST_F(Recording, WritesWhatWasAskedForAndWhatBecameOfIt) {
  log.set_pool_size(2, ByteCount(4096 * page));
  memory.clock_ns = 1234;
  const Extent first = recorder.allocate(ByteCount(3 * page - 1)).value();
  const Extent second = recorder
                            .allocate({.size = ByteCount(page),
                                       .alignment = Alignment(1 << 21),
                                       .lifetime = Lifetime::pinned,
                                       .placement = Placement::top_down})
                            .value();
  EXPECT_FALSE(recorder.allocate(ByteCount(5000 * page), Alignment(page)));
  ASSERT_TRUE(recorder.free(first, Contents::zeros));
  EXPECT_FALSE(recorder.free(first));
  ASSERT_TRUE(recorder.free(second));
  const std::vector<TraceEvent> expected = {
      {.time = 123, .pool = 2, .size = 3},
      {.time = 123,
       .pool = 2,
       .size = 1,
       .align_log2 = 21,
       .lifetime = Lifetime::pinned,
       .placement = Placement::top_down},
      {.time = 123, .op = TraceOp::refused, .pool = 2, .size = 5000, .align_log2 = 12},
      {.time = 123, .op = TraceOp::free, .pool = 2, .size = 3, .contents = Contents::zeros},
      {.time = 123, .op = TraceOp::bad_free, .pool = 2, .size = 3},
      {.time = 123, .op = TraceOp::free, .pool = 2, .size = 1, .subject = 1},
  };
  EXPECT_EQ(expected, finish());
  EXPECT_EQ(ByteCount(4096 * page), TraceReader::open(memory.bytes())->header().pool_sizes[2]);
}

TEST_F(Recording, WritesAPartThatIsFreedAsASplit) {
  const Extent whole = recorder.allocate(ByteCount(10 * page)).value();
  ASSERT_TRUE(recorder.free({whole.offset + ByteCount(3 * page), ByteCount(4 * page)}));
  ASSERT_TRUE(recorder.free({whole.offset, ByteCount(3 * page)}));
  ASSERT_TRUE(recorder.free({whole.offset + ByteCount(7 * page), ByteCount(3 * page)}));
  const auto events = finish();
  ASSERT_EQ(6U, events.size());
  EXPECT_EQ((TraceEvent{.op = TraceOp::split, .pool = 2, .size = 3}), events[1]);
  EXPECT_EQ((TraceEvent{.op = TraceOp::split, .pool = 2, .size = 4, .subject = 1}), events[2]);
  EXPECT_EQ((TraceEvent{.op = TraceOp::free, .pool = 2, .size = 4, .subject = 1}), events[3]);
  EXPECT_EQ((TraceEvent{.op = TraceOp::free, .pool = 2, .size = 3, .subject = 0}), events[4]);
  EXPECT_EQ((TraceEvent{.op = TraceOp::free, .pool = 2, .size = 3, .subject = 2}), events[5]);
}

TEST_F(Recording, WritesNeighboursThatAreFreedTogetherAsSoManyFrees) {
  const Extent all = recorder.allocate(ByteCount(512 * page)).value();
  ASSERT_TRUE(recorder.free(all));
  std::vector<Extent> extents;
  for (int i = 0; i < 3; ++i)
    extents.push_back(
        recorder.allocate({.size = ByteCount(page), .placement = Placement::bottom_up}).value());
  ASSERT_EQ(extents[0].end(), extents[1].offset);
  ASSERT_EQ(extents[1].end(), extents[2].offset);
  ASSERT_TRUE(recorder.free({extents[0].offset, ByteCount(3 * page)}));
  const auto events = finish();
  ASSERT_EQ(8U, events.size());
  for (std::uint32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(TraceOp::free, events[5 + i].op);
    EXPECT_EQ(2 + i, events[5 + i].subject);
  }
}

TEST_F(Recording, DoesNotNoteTheFreeOfWhatItDidNotSeeAllocated) {
  const Extent before = pages.allocate(ByteCount(page)).value();
  ASSERT_TRUE(recorder.free(before));
  EXPECT_TRUE(finish().empty());
}

TEST_F(Recording, WritesScatteredExtentsAsSoManyAllocations) {
  std::vector<Extent> all;
  while (auto extent = pages.allocate(ByteCount(page))) all.push_back(*extent);
  for (std::size_t i = 0; i < all.size(); i += 64) ASSERT_TRUE(pages.free(all[i]));
  const auto extents = recorder.allocate_scattered(ByteCount(5 * page)).value();
  EXPECT_FALSE(recorder.allocate_scattered(ByteCount(4096 * page)));
  const auto events = finish();
  ASSERT_EQ(extents.size() + 1, events.size());
  for (const TraceEvent& event : events) EXPECT_EQ(TraceEvent::Shape::scattered, event.shape);
  EXPECT_EQ(TraceOp::refused, events.back().op);
}

TEST_F(Recording, SaysThatItWasFinishedAlready) {
  ASSERT_TRUE(log.finish());
  EXPECT_EQ(Errc::busy, log.finish().error().code);
  ASSERT_TRUE(recorder.allocate(ByteCount(page)));  // goes on without being recorded
  EXPECT_EQ(1U, log.lost());
}

TEST(TraceRecorder, RecordsASlabByOffset) {
  TraceMemory memory;
  auto log = TraceLog::create(memory, {.unit = Alignment(16)}).value();
  auto pages = pages_of(4096);
  PageAllocatorSource source(pages);
  auto slab = Slab::create({.source = &source, .region = ByteCount(4096 * page)}).value();
  TraceRecorder recorder(log, 0, slab);
  const Extent object = recorder.allocate(ByteCount(100)).value();
  ASSERT_TRUE(recorder.free(object.offset));
  EXPECT_FALSE(recorder.free(object.offset));
  ASSERT_TRUE(log.finish());
  const auto events = events_of(memory.bytes()).value();
  ASSERT_EQ(3U, events.size());
  EXPECT_EQ(7U, events[0].size);  // 112 bytes: the class of 100
  EXPECT_EQ(TraceOp::free, events[1].op);
  EXPECT_EQ(TraceOp::bad_free, events[2].op);
}

TEST(TraceLog, RefusesOptionsThatCannotWork) {
  TraceMemory memory;
  EXPECT_EQ(Errc::invalid_argument, TraceLog::create(memory, {.tick_ns = 0}).error().code);
  EXPECT_EQ(Errc::invalid_argument,
            TraceLog::create(memory, {.unit = Alignment(std::uint64_t{1} << 32)}).error().code);
  EXPECT_EQ(Errc::invalid_argument, TraceLog::create(memory, {.block_events = 2}).error().code);
  EXPECT_EQ(Errc::invalid_argument, TraceLog::create(memory, {.blocks = 1}).error().code);
}

TEST(TraceLog, SaysAtTheEndThatTheSinkFailed) {
  for (std::int64_t successes = 0; successes < 4; ++successes) {
    TraceMemory memory;
    memory.fail_after = successes;
    auto log = TraceLog::create(memory, {.block_events = 4, .blocks = 2}).value();
    auto pages = pages_of(64);
    TraceRecorder recorder(log, 0, pages);
    for (int i = 0; i < 4 * 3; ++i) ASSERT_TRUE(recorder.allocate(ByteCount(page)));
    const auto finished = log.finish();
    ASSERT_FALSE(finished) << successes;
    EXPECT_EQ(Errc::io_error, finished.error().code);
    EXPECT_FALSE(TraceReader::open(memory.bytes()));
  }
}

TEST(TraceLog, RefusesAPartThatItsUnitCannotExpress) {
  TraceMemory memory;
  auto log = TraceLog::create(memory, {.unit = Alignment(65536)}).value();
  auto pages = pages_of(64);
  TraceRecorder recorder(log, 0, pages);
  const Extent extent = recorder.allocate(ByteCount(32 * page)).value();
  ASSERT_TRUE(recorder.free({extent.offset, ByteCount(page)}));
  EXPECT_EQ(Errc::invalid_argument, log.finish().error().code);
}

// Where an allocation of the recorder fails, the caller has what he asked for, and the trace is
// whole but for what is counted as lost; or finish() says that it is not.
TEST(TraceLog, LosesEventsAndNothingElseWithoutMemory) {
  bool met = true;
  for (std::int64_t successes = 0; met; ++successes) {
    TraceMemory memory;
    memory.bytes().reserve(1 << 20);
    auto log = TraceLog::create(memory, {.block_events = 4, .blocks = 2}).value();
    auto pages = pages_of(64);
    TraceRecorder recorder(log, 0, pages);
    {
      const test::FailingNew failing(successes);
      for (int i = 0; i < 8; ++i) {
        const auto extent = recorder.allocate(ByteCount(4 * page));
        ASSERT_TRUE(extent);
        ASSERT_TRUE(recorder.free({extent->offset + ByteCount(page), ByteCount(page)}));
        ASSERT_TRUE(recorder.free({extent->offset, ByteCount(page)}));
      }
      met = failing.happened();
    }
    const auto finished = log.finish();
    if (!met) {
      EXPECT_EQ(0U, log.lost());
    }
    if (finished) {
      EXPECT_TRUE(events_of(memory.bytes()));
    } else {
      EXPECT_EQ(Errc::no_memory, finished.error().code);
    }
  }
}

TEST(TraceLog, SaysThatThereIsNoRoomForItsBlocks) {
  TraceMemory memory;
  bool met = true;
  for (std::int64_t successes = 0; met; ++successes) {
    const test::FailingNew failing(successes);
    const auto log = TraceLog::create(memory, {});
    met = failing.happened();
    EXPECT_EQ(met, !log);
    if (met) {
      EXPECT_EQ(Errc::no_memory, log.error().code);
    }
  }
}

}  // namespace
}  // namespace accelmm
