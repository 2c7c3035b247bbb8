// SPDX-License-Identifier: Apache-2.0
#include "base/clock.hpp"
#include "support/census.hpp"

#include <accelmm/fence_watch.hpp>

#include <chrono>
#include <future>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

constexpr std::uint64_t ms = 1'000'000;

Errc errc(const Result<void>& result) {
  return result ? Errc{} : result.error().code;
}

/// What a wait ended with, once it has.
std::pair<Completion, std::future<Errc>> told() {
  auto promise = std::make_shared<std::promise<Errc>>();
  auto future = promise->get_future();
  return {Completion([promise](Result<void> result) { promise->set_value(errc(result)); }),
          std::move(future)};
}

TEST(FenceWatch, EachWaitIsToldHowItsFenceEnded) {
  const auto watch = FenceWatch::create().value();
  auto good = Fence::create().value();
  auto bad = Fence::create().value();
  auto gone = Fence::create().value();
  auto [good_done, good_end] = told();
  auto [bad_done, bad_end] = told();
  auto [gone_done, gone_end] = told();
  watch->wait(std::move(good.fence), std::move(good_done));
  watch->wait(std::move(bad.fence), std::move(bad_done));
  watch->wait(std::move(gone.fence), std::move(gone_done));
  ASSERT_TRUE(bad.signal.signal(fail(Errc::io_error, "")).has_value());
  EXPECT_EQ(Errc::io_error, bad_end.get());
  EXPECT_EQ(2U, watch->waiting());
  {
    const FenceSignal dropped = std::move(gone.signal);
  }
  EXPECT_EQ(Errc::no_device, gone_end.get());
  ASSERT_TRUE(good.signal.signal().has_value());
  EXPECT_EQ(Errc{}, good_end.get());
  EXPECT_EQ(0U, watch->waiting());
}

TEST(FenceWatch, AWaitEndsAtItsDeadlineWhileOthersGoOn) {
  const auto watch = FenceWatch::create().value();
  auto late = Fence::create().value();
  auto other = Fence::create().value();
  auto [late_done, late_end] = told();
  auto [other_done, other_end] = told();
  const std::uint64_t deadline = monotonic_ns() + 20 * ms;
  watch->wait(std::move(other.fence), std::move(other_done));
  watch->wait(std::move(late.fence), std::move(late_done), deadline);
  EXPECT_EQ(Errc::timed_out, late_end.get());
  EXPECT_GE(monotonic_ns(), deadline);
  EXPECT_EQ(1U, watch->waiting());
}

TEST(FenceWatch, AFenceThatHasEndedIsNeverTooLate) {
  const auto watch = FenceWatch::create().value();
  auto pair = Fence::create().value();
  ASSERT_TRUE(pair.signal.signal(fail(Errc::io_error, "")).has_value());
  auto [done, end] = told();
  watch->wait(std::move(pair.fence), std::move(done), 0);
  EXPECT_EQ(Errc::io_error, end.get());
}

TEST(FenceWatch, TheEarliestDeadlineComesFirst) {
  const auto watch = FenceWatch::create().value();
  const auto now = monotonic_ns();
  auto far = Fence::create().value();
  auto near = Fence::create().value();
  auto [far_done, far_end] = told();
  auto [near_done, near_end] = told();
  watch->wait(std::move(far.fence), std::move(far_done), now + 3'600'000 * ms);
  watch->wait(std::move(near.fence), std::move(near_done), now + 20 * ms);
  ASSERT_EQ(std::future_status::ready, near_end.wait_for(std::chrono::seconds(20)));
  EXPECT_EQ(Errc::timed_out, near_end.get());
  EXPECT_EQ(1U, watch->waiting());
}

TEST(FenceWatch, ItsEndCancelsWhatWaits) {
  const std::size_t fds = test::count_fds();
  auto pair = std::make_unique<Fence::Pair>(Fence::create().value());
  auto [done, end] = told();
  {
    const auto watch = FenceWatch::create().value();
    watch->wait(std::move(pair->fence), std::move(done));
  }
  EXPECT_EQ(Errc::canceled, end.get());
  pair.reset();
  EXPECT_EQ(fds, test::count_fds());
}

TEST(FenceWatch, ACompletionMayWaitAgain) {
  const auto watch = FenceWatch::create().value();
  auto first = Fence::create().value();
  auto second = Fence::create().value();
  auto [done, end] = told();
  watch->wait(std::move(first.fence), Completion([&watch, fence = std::move(second.fence),
                                                  next = std::move(done)](Result<void>) mutable {
                watch->wait(std::move(fence), std::move(next));
              }));
  ASSERT_TRUE(second.signal.signal().has_value());
  ASSERT_TRUE(first.signal.signal().has_value());
  EXPECT_EQ(Errc{}, end.get());
}

TEST(FenceWatch, ManyFencesEndInAnyOrder) {
  const auto watch = FenceWatch::create().value();
  std::vector<FenceSignal> signals;
  std::vector<std::future<Errc>> ends;
  for (int i = 0; i < 200; ++i) {
    auto pair = Fence::create().value();
    auto [done, end] = told();
    watch->wait(std::move(pair.fence), std::move(done));
    signals.push_back(std::move(pair.signal));
    ends.push_back(std::move(end));
  }
  for (std::size_t i = 0; i < signals.size(); ++i)
    ASSERT_TRUE(signals[i * 77 % signals.size()].signal().has_value());
  for (auto& end : ends) EXPECT_EQ(Errc{}, end.get());
}

}  // namespace
}  // namespace accelmm
