// SPDX-License-Identifier: Apache-2.0
#include "unit/mm/slab_source.hpp"

#include <accelmm/slab.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <sched.h>

namespace accelmm::test {
namespace {

constexpr ByteCount region = 16_MiB;

class TrustedSlab : public ::testing::Test {
 protected:
  static Slab make(SlabSource& from, Slab::Options options = {}) {
    options.source = &from;
    options.region = region;
    options.bulk = Slab::Bulk::trusted;
    auto made = Slab::create(options);
    EXPECT_TRUE(made);
    return std::move(*made);
  }
  static std::vector<RegionOffset> take(Slab& from, ByteCount size, std::size_t count) {
    std::vector<RegionOffset> objects(count);
    EXPECT_TRUE(from.allocate_bulk(size, objects));
    return objects;
  }

  CheckedSource source{region};
  Slab slab = make(source);
};

TEST_F(TrustedSlab, WhatWasFreedInBulkComesBackInBulk) {
  for (const std::size_t count : {1U, 2U, 7U, 8U, 31U, 32U, 62U}) {
    auto first = take(slab, 64_B, count);
    ASSERT_TRUE(slab.free_bulk(first));
    slab.validate();
    auto second = take(slab, 64_B, count);
    EXPECT_EQ(first, second) << count;
    ASSERT_TRUE(slab.free_bulk(second));
    slab.drain();
    EXPECT_EQ(0U, slab.statistics().live_objects);
  }
}

TEST_F(TrustedSlab, WhatIsThereCountsAsFreeAndAtHand) {
  const auto objects = take(slab, 64_B, 40);
  EXPECT_EQ(40U, slab.statistics().live_objects);
  ASSERT_TRUE(slab.free_bulk(objects));
  const auto statistics = slab.statistics();
  EXPECT_EQ(0U, statistics.live_objects);
  EXPECT_EQ(0_B, statistics.live);
  EXPECT_LE(40U, statistics.classes[3].cached);
  EXPECT_EQ(0U, slab.recount());
  slab.validate();
}

TEST_F(TrustedSlab, MoreThanThereIsRoomForIsLookedAtAfterAll) {
  const auto objects = take(slab, 64_B, 300);
  ASSERT_TRUE(slab.free_bulk(objects));
  EXPECT_FALSE(slab.free(objects[299]));
  slab.validate();
  EXPECT_EQ(0U, slab.statistics().live_objects);
}

TEST_F(TrustedSlab, OffsetsOutsideOfEverySlabAreRefused) {
  const std::array<RegionOffset, 2> outside = {RegionOffset(5 << 20), RegionOffset(6 << 20)};
  EXPECT_EQ(Errc::invalid_argument, slab.free_bulk(outside).error().code);
  EXPECT_TRUE(slab.free_bulk({}));
}

TEST_F(TrustedSlab, SingleCallsAreCheckedAsEver) {
  const auto object = slab.allocate(64_B);
  ASSERT_TRUE(object);
  ASSERT_TRUE(slab.free(object->offset));
  EXPECT_FALSE(slab.free(object->offset));
  EXPECT_FALSE(slab.free(object->offset + 1_B));
}

TEST_F(TrustedSlab, AnAllocationThatWouldFailGetsThemFirst) {
  const auto objects = take(slab, 16384_B, 16);
  ASSERT_TRUE(slab.free_bulk(objects));
  source.allow(0);
  for (int i = 0; i < 16; ++i) EXPECT_TRUE(slab.allocate(16384_B)) << i;
  EXPECT_FALSE(slab.allocate(16384_B));
  slab.validate();
}

TEST_F(TrustedSlab, TrimAndDrainGiveEverythingBack) {
  for (const ByteCount size : {16_B, 64_B, 700_B, 9000_B})
    ASSERT_TRUE(slab.free_bulk(take(slab, size, 20)));
  slab.drain();
  slab.validate();
  slab.trim();
  EXPECT_EQ(0U, source.outstanding());
}

TEST_F(TrustedSlab, AQuarantineOrARandomOrderRulesTrustOut) {
  for (const Slab::Options& options :
       {Slab::Options{.order = Slab::Order::random}, Slab::Options{.quarantine = {.queue = 4}}}) {
    Slab strict = make(source, options);
    const auto objects = take(strict, 64_B, 8);
    ASSERT_TRUE(strict.free_bulk(objects));
    EXPECT_FALSE(strict.free_bulk(objects));
    strict.validate();
  }
}

// Any mix of calls, against a set of live objects for each size.
TEST_F(TrustedSlab, KeepsWhatAModelKeeps) {
  const unsigned seed = std::random_device()();
  std::printf("seed %u\n", seed);
  std::minstd_rand random(seed);
  constexpr std::array<std::uint64_t, 3> sizes = {16, 64, 3000};
  std::array<std::set<std::uint64_t>, sizes.size()> live;
  for (unsigned step = 0; step < 1500; ++step) {
    const std::size_t which = random() % sizes.size();
    auto& mine = live[which];
    const std::size_t count = 1 + random() % 70;
    if (random() % 2 == 0) {
      for (const RegionOffset object : take(slab, ByteCount(sizes[which]), count))
        ASSERT_TRUE(mine.insert(object.value()).second);
    } else if (mine.size() >= count) {
      std::vector<RegionOffset> objects;
      for (const std::uint64_t offset : mine) objects.emplace_back(offset);
      std::ranges::shuffle(objects, random);
      objects.resize(count);
      ASSERT_TRUE(slab.free_bulk(objects));
      for (const RegionOffset object : objects) mine.erase(object.value());
    } else if (random() % 4 == 0) {
      slab.drain();
    } else if (!mine.empty()) {
      ASSERT_TRUE(slab.free(RegionOffset(*mine.begin())));
      mine.erase(mine.begin());
    }
    slab.validate();
    std::uint64_t all = 0;
    for (const auto& objects : live) all += objects.size();
    ASSERT_EQ(all, slab.statistics().live_objects);
  }
}

TEST_F(TrustedSlab, ThreadsThatMoveAndAreDrainedNeverShareAnObject) {
  std::vector<std::atomic<bool>> owned(region.value() / 64);
  std::atomic<unsigned> wrong = 0;
  std::atomic<unsigned> running = 3;
  std::vector<std::jthread> threads;
  for (unsigned t = 0; t < 3; ++t)
    threads.emplace_back([&, t] {
      std::minstd_rand random(t + 1);
      for (unsigned round = 0; round < 4000; ++round) {
        if (round % 64 == 0) {
          cpu_set_t one;
          CPU_ZERO(&one);
          CPU_SET((t + round / 64) % std::max(1U, std::thread::hardware_concurrency()), &one);
          static_cast<void>(sched_setaffinity(0, sizeof one, &one));
        }
        std::vector<RegionOffset> objects(1 + random() % 32);
        if (!slab.allocate_bulk(64_B, objects)) continue;
        for (const RegionOffset object : objects)
          if (owned[object.value() / 64].exchange(true)) ++wrong;
        for (const RegionOffset object : objects)
          if (!owned[object.value() / 64].exchange(false)) ++wrong;
        if (!slab.free_bulk(objects)) ++wrong;
      }
      --running;
    });
  while (running != 0) {
    slab.drain();
    std::this_thread::yield();
  }
  threads.clear();
  EXPECT_EQ(0U, wrong);
  slab.validate();
  EXPECT_EQ(0U, slab.statistics().live_objects);
  slab.trim();
  EXPECT_EQ(0U, source.outstanding());
}

}  // namespace
}  // namespace accelmm::test
