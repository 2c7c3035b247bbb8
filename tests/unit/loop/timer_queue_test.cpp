// SPDX-License-Identifier: Apache-2.0
#include "loop/timer_queue.hpp"

#include <vector>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

class TimerQueueTest : public testing::Test {
 protected:
  // A function that leaves its number in ran_.
  TimerQueue::Function note(int number) {
    return [this, number] { ran_.push_back(number); };
  }

  TimerQueue timers_;
  std::vector<int> ran_;
};

TEST_F(TimerQueueTest, RunsInOrderOfTimeAndThenOfAsking) {
  timers_.add(30, note(3));
  timers_.add(10, note(1));
  timers_.add(20, note(21));
  timers_.add(20, note(22));
  EXPECT_EQ(10U, timers_.next_deadline());
  timers_.run_due(20);
  EXPECT_EQ((std::vector{1, 21, 22}), ran_);
  EXPECT_EQ(30U, timers_.next_deadline());
  timers_.run_due(29);
  EXPECT_EQ(3U, ran_.size());
  timers_.run_due(30);
  EXPECT_EQ((std::vector{1, 21, 22, 3}), ran_);
  EXPECT_FALSE(timers_.next_deadline());
}

TEST_F(TimerQueueTest, ACanceledTimerDoesNotRun) {
  timers_.add(1, note(1));
  const auto canceled = timers_.add(2, note(2));
  EXPECT_TRUE(timers_.cancel(canceled));
  EXPECT_FALSE(timers_.cancel(canceled));
  timers_.run_due(9);
  EXPECT_EQ((std::vector{1}), ran_);
}

TEST_F(TimerQueueTest, ATimerThatRanCanBeCanceledWithoutEffect) {
  const auto ran = timers_.add(1, note(1));
  timers_.run_due(1);
  EXPECT_FALSE(timers_.cancel(ran));
}

TEST_F(TimerQueueTest, WhatATimerAddsIsForTheNextTime) {
  timers_.add(1, [this] {
    ran_.push_back(1);
    timers_.add(0, note(2));
  });
  timers_.run_due(5);
  EXPECT_EQ((std::vector{1}), ran_);
  EXPECT_EQ(0U, timers_.next_deadline());
  timers_.run_due(5);
  EXPECT_EQ((std::vector{1, 2}), ran_);
}

TEST_F(TimerQueueTest, ATimerMayCancelTheOneThatComesNext) {
  TimerQueue::TimerId next = 0;
  timers_.add(1, [&] {
    ran_.push_back(1);
    timers_.cancel(next);
  });
  next = timers_.add(1, note(2));
  timers_.add(1, note(3));
  timers_.run_due(1);
  EXPECT_EQ((std::vector{1, 3}), ran_);
}

// Cancels a timer when it is destroyed, as an owner of timers does.
struct CancelsAtEnd {
  TimerQueue* timers;
  TimerQueue::TimerId* timer;
  CancelsAtEnd(TimerQueue& in, TimerQueue::TimerId& which) : timers(&in), timer(&which) {}
  CancelsAtEnd(CancelsAtEnd&& other) noexcept
      : timers(std::exchange(other.timers, nullptr)), timer(other.timer) {}
  CancelsAtEnd& operator=(CancelsAtEnd&&) = delete;
  ~CancelsAtEnd() {
    if (timers != nullptr) timers->cancel(*timer);
  }
};

TEST_F(TimerQueueTest, TheDestructionOfAFunctionMayCancelTheNextTimer) {
  TimerQueue::TimerId next = 0;
  timers_.add(1, [this, owner = CancelsAtEnd(timers_, next)] { ran_.push_back(1); });
  next = timers_.add(1, note(2));
  timers_.add(1, note(3));
  timers_.run_due(1);
  EXPECT_EQ((std::vector{1, 3}), ran_);
}

TEST_F(TimerQueueTest, DroppingDestroysWhatNeverRan) {
  TimerQueue::TimerId next = 0;
  timers_.add(1, [owner = CancelsAtEnd(timers_, next)] {});
  next = timers_.add(2, note(2));
  timers_.drop();
  EXPECT_FALSE(timers_.next_deadline());
  EXPECT_TRUE(ran_.empty());
}

}  // namespace
}  // namespace accelmm
