// SPDX-License-Identifier: Apache-2.0
#include "support/trace_memory.hpp"

#include <accelmm/trace_recorder.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <thread>
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

// Three threads share an allocator that is smaller than what they want: what one frees the others
// take at once. The reader finds a trace of it whole, and never more live than the pool holds.
TEST(TraceRecorderThreads, KeepsTheOrderOfWhatTheyHandOver) {
  TraceMemory memory;
  auto log = TraceLog::create(memory, {.block_events = 16, .blocks = 3}).value();
  constexpr std::uint64_t room = 24;
  auto pages = pages_of(room);
  log.set_pool_size(1, ByteCount(room * page));
  TraceRecorder recorder(log, 1, pages);
  constexpr unsigned steps = 4000;
  {
    std::vector<std::jthread> threads;
    for (unsigned t = 0; t < 3; ++t)
      threads.emplace_back([&recorder, t] {
        std::vector<Extent> mine;
        for (unsigned step = 0; step < steps; ++step) {
          if (const auto extent = recorder.allocate(ByteCount(page * (1 + (step + t) % 3))))
            mine.push_back(*extent);
          if (mine.size() > 3 || (!mine.empty() && step % 3 == 0)) {
            EXPECT_TRUE(recorder.free(mine.front()));
            mine.erase(mine.begin());
          }
        }
        for (const Extent& extent : mine) EXPECT_TRUE(recorder.free(extent));
      });
  }
  ASSERT_TRUE(log.finish());
  const auto events = events_of(memory.bytes());
  ASSERT_TRUE(events) << events.error().what;
  std::array<std::uint64_t, 16> by_op{};
  for (const TraceEvent& event : *events) {
    ++by_op[static_cast<std::size_t>(event.op)];
    EXPECT_LT(event.thread, 3);
  }
  EXPECT_EQ(by_op[static_cast<std::size_t>(TraceOp::allocate)],
            by_op[static_cast<std::size_t>(TraceOp::free)]);
  EXPECT_EQ(3U * steps, by_op[static_cast<std::size_t>(TraceOp::allocate)] +
                            by_op[static_cast<std::size_t>(TraceOp::refused)]);
  EXPECT_EQ(0U, log.lost());
}

}  // namespace
}  // namespace accelmm
