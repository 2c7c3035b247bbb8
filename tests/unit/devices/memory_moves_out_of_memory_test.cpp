// SPDX-License-Identifier: Apache-2.0
//
// Each allocation fails once while memory is moved: all of it moves, or nothing does.
#include "support/moved_buffers.hpp"
#include "unit/mm/failing_new.hpp"

#include <cerrno>
#include <iostream>

#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

TEST(MemoryMovesOutOfMemory, EachAllocationThatFailsLeavesBuffersWhole) {
  std::int64_t refused = 0;
  for (std::int64_t successes = 0;; ++successes) {
    PlainHost host(movable_description());
    RawClient control(host, NodeKind::control);
    control.say_hello();
    MappedBuffers session(host);
    for (int i = 0; i < 15; ++i) ASSERT_EQ(0, session.add(unit, ACCELMM_ALLOC_CONTIGUOUS));
    session.remove_every_second();
    const auto& heap = host.device().memory()->heap();
    std::optional<Result<Defragmented>> outcome;
    bool happened = false;
    {
      const FailingNew failing(successes);
      host.device().defragment({.budget = ByteCount(15 * unit), .run = ByteCount(4 * unit)},
                               [&](Result<Defragmented> made) { outcome = made; });
      happened = failing.happened();
    }
    host.transport.drain();
    ASSERT_TRUE(outcome) << "after " << successes;
    heap.validate();
    EXPECT_EQ(ByteCount(0), heap.statistics().moving);
    EXPECT_EQ(ByteCount(7 * unit), heap.statistics().held);
    EXPECT_TRUE(session.are_whole());
    if (!*outcome) {
      EXPECT_EQ(Errc::no_memory, outcome->error().code);
      ++refused;
    } else {
      EXPECT_EQ(2U, (*outcome)->moves);
    }
    // The session goes on, and so can a second try.
    EXPECT_EQ(0, session.remove(0));
    ASSERT_EQ(0, defragment(control, 15 * unit, 4 * unit));
    EXPECT_TRUE(session.are_whole());
    if (!happened) break;
  }
  std::cout << "  refused: " << refused << std::endl;
  EXPECT_LT(5, refused);
}

}  // namespace
}  // namespace accelmm::test
