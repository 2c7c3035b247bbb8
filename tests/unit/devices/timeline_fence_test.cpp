// SPDX-License-Identifier: Apache-2.0
#include <accelmm/timeline_fence.hpp>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

Errc errc(const Result<void>& result) {
  return result ? Errc{} : result.error().code;
}

TEST(TimelineFence, AFenceEndsAsItsPointDoes) {
  Timeline timeline;
  const std::uint64_t first = timeline.next();
  const std::uint64_t second = timeline.next();
  const Fence reached = fence_of(timeline, first).value();
  const Fence failed = fence_of(timeline, second).value();
  EXPECT_EQ(Errc::timed_out, errc(reached.wait(0)));
  timeline.reach(first);
  EXPECT_EQ(Errc{}, errc(reached.wait(0)));
  EXPECT_EQ(Errc::timed_out, errc(failed.wait(0)));
  timeline.fail(second, Errc::fault);
  EXPECT_EQ(Errc::fault, errc(failed.wait(0)));
  EXPECT_EQ(Errc{}, errc(fence_of(timeline, first)->wait(0))) << "of a point long reached";
}

TEST(TimelineFence, AFenceOfAPointThatNobodyWillReachEndsToo) {
  Timeline timeline;
  const Fence fence = fence_of(timeline, timeline.next()).value();
  timeline.abandon_waiters(Errc::canceled);
  EXPECT_EQ(Errc::canceled, errc(fence.wait(0)));
}

TEST(TimelineFence, APointEndsAsAFenceDoes) {
  const auto watch = FenceWatch::create().value();
  const auto timeline = std::make_shared<Timeline>();
  auto good = Fence::create().value();
  auto bad = Fence::create().value();
  const std::uint64_t first = timeline->next();
  const std::uint64_t second = timeline->next();
  reach_with(*watch, std::move(good.fence), timeline, first);
  ASSERT_TRUE(good.signal.signal().has_value());
  EXPECT_EQ(Errc{}, errc(fence_of(*timeline, first)->wait()));
  reach_with(*watch, std::move(bad.fence), timeline, second, 0);
  EXPECT_EQ(Errc::timed_out, errc(fence_of(*timeline, second)->wait()));
}

}  // namespace
}  // namespace accelmm
