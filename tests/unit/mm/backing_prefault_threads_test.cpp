// SPDX-License-Identifier: Apache-2.0
//
// Several threads start, watch and cancel at once. Under ThreadSanitizer too.
#include "mm/backing/prefault.hpp"
#include "unit/mm/backing_place.hpp"

#include <atomic>
#include <cstdio>
#include <optional>
#include <random>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

using test::Place;

constexpr Alignment page{4096};

TEST(PrefaultThreads, ProgressNeverDecreasesAndReachesTheEnd) {
  const Place place(128_MiB);
  Prefaulter prefaulter(3);
  const auto made = prefaulter.start(place.bytes(), page, PrefaultMeans::populate_or_touch, {});
  ASSERT_TRUE(made.has_value());
  std::vector<std::thread> watchers;
  for (int i = 0; i < 2; ++i)
    watchers.emplace_back([&] {
      ByteCount last;
      while (!made->has_ended()) {
        const ByteCount now = made->progress();
        EXPECT_GE(now, last);
        last = now;
      }
      EXPECT_EQ(128_MiB, made->progress());
    });
  EXPECT_TRUE(made->wait().has_value());
  for (std::thread& watcher : watchers) watcher.join();
  EXPECT_EQ(128_MiB, place.taken());
}

TEST(PrefaultThreads, WhoeverCancelsWhenEveryEndIsToldOnce) {
  constexpr int threads = 3;
  constexpr int rounds = 60;
  Prefaulter prefaulter(2);
  std::atomic<int> told{0};
  std::atomic<int> canceled{0};
  std::vector<std::thread> owners;
  for (unsigned owner = 0; owner < threads; ++owner)
    owners.emplace_back([&, owner] {
      std::minstd_rand dice(owner + 1);
      const Place place(16_MiB);
      for (int round = 0; round < rounds; ++round) {
        auto made = prefaulter.start(place.bytes(), page, PrefaultMeans::populate_or_touch,
                                     [&](Result<void> result) {
                                       ++told;
                                       if (!result) ++canceled;
                                     });
        ASSERT_TRUE(made.has_value());
        std::thread other([&] {
          if (dice() % 2 == 0) made->cancel();
        });
        if (round % 3 == 0) static_cast<void>(made->wait());
        other.join();
      }
    });
  for (std::thread& owner : owners) owner.join();
  EXPECT_EQ(threads * rounds, told.load());
  std::printf("%d of %d were canceled\n", canceled.load(), told.load());
}

TEST(PrefaultThreads, TheOwnerWritesWhilePagesAreMade) {
  const Place place(64_MiB);
  Prefaulter prefaulter(2);
  const auto made = prefaulter.start(place.bytes(), page, PrefaultMeans::populate_or_touch, {});
  ASSERT_TRUE(made.has_value());
  for (std::size_t at = 0; at < place.bytes().size(); at += 4096 * 7)
    place.bytes()[at] = std::byte{3};
  EXPECT_TRUE(made->wait().has_value());
  for (std::size_t at = 0; at < place.bytes().size(); at += 4096 * 7)
    ASSERT_EQ(std::byte{3}, place.bytes()[at]);
}

}  // namespace
}  // namespace accelmm
