// SPDX-License-Identifier: Apache-2.0
#include "base/busy_poll.hpp"

#include <cstdint>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

constexpr std::uint64_t limit = 1000;

// One wait, and whether it began by looking.
bool looks(BusyPoll& busy_poll, std::uint64_t waited) {
  const std::uint64_t look = busy_poll.begin();
  busy_poll.end(waited);
  EXPECT_TRUE(look == 0 || look == limit);
  return look != 0;
}

// How many waits that would have been short sleep before the next one looks.
int sleeps(BusyPoll& busy_poll) {
  int count = 0;
  while (busy_poll.begin() == 0 && count < 5000) {
    busy_poll.end(limit);
    ++count;
  }
  return count;
}

TEST(BusyPoll, SleepsInTheFirstWait) {
  BusyPoll busy_poll(limit);
  EXPECT_FALSE(looks(busy_poll, 1));
}

TEST(BusyPoll, LooksAfterEachWaitWithinTheLimit) {
  BusyPoll busy_poll(limit);
  static_cast<void>(looks(busy_poll, limit));
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(looks(busy_poll, limit));
}

TEST(BusyPoll, SleepsAfterEachWaitBeyondTheLimit) {
  BusyPoll busy_poll(limit);
  for (int i = 0; i < 5; ++i) EXPECT_FALSE(looks(busy_poll, limit + 1));
}

TEST(BusyPoll, LooksInVainOnceAtTheEndOfABurst) {
  BusyPoll busy_poll(limit);
  static_cast<void>(looks(busy_poll, 1));
  EXPECT_TRUE(looks(busy_poll, 50 * limit));
  for (int i = 0; i < 5; ++i) EXPECT_FALSE(looks(busy_poll, 50 * limit));
}

TEST(BusyPoll, SleepsThroughMoreShortWaitsEachTimeItLookedInVainInARow) {
  BusyPoll busy_poll(limit);
  static_cast<void>(looks(busy_poll, 1));
  for (const int expected : {1, 3, 7, 15, 31, 63, 127, 255, 511, 1023, 1023}) {
    ASSERT_TRUE(looks(busy_poll, limit + 1));
    EXPECT_EQ(expected, sleeps(busy_poll));
  }
}

TEST(BusyPoll, ForgetsWhatWasInVainOnceItWasNot) {
  BusyPoll busy_poll(limit);
  static_cast<void>(looks(busy_poll, 1));
  for (const int expected : {1, 3, 7}) {
    ASSERT_TRUE(looks(busy_poll, limit + 1));
    EXPECT_EQ(expected, sleeps(busy_poll));
  }
  ASSERT_TRUE(looks(busy_poll, 1));
  ASSERT_TRUE(looks(busy_poll, limit + 1));
  EXPECT_EQ(1, sleeps(busy_poll));
}

TEST(BusyPoll, NeverLooksWithALimitOfZero) {
  BusyPoll busy_poll(0);
  for (int i = 0; i < 5; ++i) EXPECT_FALSE(looks(busy_poll, 0));
}

}  // namespace
}  // namespace accelmm
