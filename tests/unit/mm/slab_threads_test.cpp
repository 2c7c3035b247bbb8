// SPDX-License-Identifier: Apache-2.0
#include "unit/mm/slab_source.hpp"

#include <accelmm/slab.hpp>

#include <array>
#include <atomic>
#include <csignal>
#include <cstdint>
#include <functional>
#include <latch>
#include <random>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/time.h>

namespace accelmm::test {
namespace {

constexpr ByteCount region = 64_MiB;
constexpr unsigned threads = 4;

// Moves the thread from processor to processor.
void migrate(unsigned step) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(step % std::max(1U, std::thread::hardware_concurrency()), &one);
  static_cast<void>(sched_setaffinity(0, sizeof one, &one));  // some are forbidden in a container
}

void run_threads(const std::function<void(unsigned)>& body) {
  std::vector<std::jthread> all;
  for (unsigned t = 0; t < threads; ++t) all.emplace_back(body, t);
}

// Who has which 16 bytes: what no allocator may get wrong.
class Owners {
 public:
  void take(const Extent& object) {
    for (std::uint64_t at = object.offset.value(); at < object.end().value(); at += 16)
      if (owned_[at / 16].exchange(true)) ++wrong_;
    ++live_;
  }
  void give(const Extent& object) {
    for (std::uint64_t at = object.offset.value(); at < object.end().value(); at += 16)
      if (!owned_[at / 16].exchange(false)) ++wrong_;
    --live_;
  }
  [[nodiscard]] std::uint64_t wrong() const { return wrong_; }
  [[nodiscard]] std::int64_t live() const { return live_; }

 private:
  std::vector<std::atomic<bool>> owned_ = std::vector<std::atomic<bool>>(region.value() / 16);
  std::atomic<std::uint64_t> wrong_ = 0;
  std::atomic<std::int64_t> live_ = 0;
};

class SlabThreads : public ::testing::Test {
 protected:
  static Slab make(SlabSource& source) {
    auto slab = Slab::create({.source = &source, .region = region});
    EXPECT_TRUE(slab);
    return std::move(*slab);
  }

  // A thread's part of a storm: takes objects of a few sizes and leaves them in shared places, from
  // which any thread frees them.
  void storm(unsigned thread, unsigned rounds) {
    constexpr std::array<std::uint64_t, 4> sizes = {16, 64, 700, 9000};
    std::minstd_rand random(thread + 1);
    for (unsigned i = 0; i < rounds; ++i) {
      if (i % 256 == 0) migrate(thread + i / 256);
      auto object = slab.allocate(ByteCount(sizes[random() % sizes.size()]));
      std::uint64_t mine = 0;
      if (object) {
        owners.take(*object);
        mine = object->offset.value() + 1;
      }
      mine = places[random() % places.size()].exchange(mine);
      if (mine != 0) give(RegionOffset(mine - 1));
    }
  }
  void give(RegionOffset offset) {
    const auto size = slab.usable_size(offset);
    if (!size) {
      ++refused;
      return;
    }
    owners.give({.offset = offset, .length = *size});
    if (!slab.free(offset)) ++refused;
  }
  void finish() {
    EXPECT_EQ(static_cast<std::uint64_t>(owners.live()), slab.statistics().live_objects);
    slab.validate();
    for (auto& place : places)
      if (const std::uint64_t mine = place.exchange(0); mine != 0) give(RegionOffset(mine - 1));
    EXPECT_EQ(0U, owners.wrong());
    EXPECT_EQ(0U, refused);
    EXPECT_EQ(0, owners.live());
    EXPECT_EQ(0U, slab.statistics().live_objects);
    slab.validate();
    EXPECT_EQ(0U, slab.recount());
    slab.trim();
    EXPECT_EQ(0U, source.outstanding());
    EXPECT_EQ(0U, source.wrong());
  }

  CheckedSource source{region};
  Slab slab = make(source);
  Owners owners;
  std::vector<std::atomic<std::uint64_t>> places = std::vector<std::atomic<std::uint64_t>>(3000);
  std::atomic<std::uint64_t> refused = 0;
};

TEST_F(SlabThreads, ObjectsFreedByOtherThreadsThanTookThemAreNeverHadByTwo) {
  run_threads([&](unsigned thread) { storm(thread, 6'000); });
  finish();
}

TEST_F(SlabThreads, DrainingAndTrimmingDuringAStormLosesNothing) {
  std::atomic<bool> stop = false;
  std::jthread drainer([&] {
    for (unsigned i = 0; !stop.load(); ++i) {
      if (i % 4 == 0)
        static_cast<void>(slab.trim());
      else
        slab.drain();
    }
  });
  run_threads([&](unsigned thread) { storm(thread, 3'000); });
  stop = true;
  drainer.join();
  finish();
}

TEST_F(SlabThreads, AStormInTooLittleMemoryFailsCleanlyAndLosesNothing) {
  source.allow(12);
  run_threads([&](unsigned thread) { storm(thread, 2'000); });
  finish();
}

std::atomic<std::uint64_t> alarms;
void on_alarm(int) {
  alarms.fetch_add(1, std::memory_order_relaxed);
}

TEST_F(SlabThreads, SignalsInsideSectionsLoseNothing) {
  struct sigaction action = {};
  struct sigaction before = {};
  action.sa_handler = on_alarm;
  action.sa_flags = SA_RESTART;
  ASSERT_EQ(0, sigaction(SIGALRM, &action, &before));
  const itimerval often{.it_interval = {.tv_sec = 0, .tv_usec = 50},
                        .it_value = {.tv_sec = 0, .tv_usec = 50}};
  ASSERT_EQ(0, setitimer(ITIMER_REAL, &often, nullptr));
  run_threads([&](unsigned thread) { storm(thread, 3'000); });
  const itimerval never = {};
  ASSERT_EQ(0, setitimer(ITIMER_REAL, &never, nullptr));
  ASSERT_EQ(0, sigaction(SIGALRM, &before, nullptr));
  finish();
}

TEST_F(SlabThreads, BulkCallsOfManyThreadsNeverShareAnObject) {
  run_threads([&](unsigned thread) {
    std::array<RegionOffset, 50> offsets;
    for (unsigned i = 0; i < 400; ++i) {
      if (i % 64 == 0) migrate(thread + i / 64);
      if (!slab.allocate_bulk(64_B, offsets)) {
        ++refused;
        continue;
      }
      for (const RegionOffset offset : offsets) owners.take({.offset = offset, .length = 64_B});
      for (const RegionOffset offset : offsets) owners.give({.offset = offset, .length = 64_B});
      if (!slab.free_bulk(offsets)) ++refused;
    }
  });
  finish();
}

// All of them in words that no slot has for its current one.
TEST_F(SlabThreads, OfTwoThreadsThatFreeTheSameObjectOneIsRefused) {
  for (unsigned round = 0; round < 6; ++round) {
    std::vector<RegionOffset> all(2048);
    ASSERT_TRUE(slab.allocate_bulk(32_B, all));
    slab.drain();
    std::atomic<std::uint64_t> freed = 0;
    std::latch begin(threads);
    run_threads([&](unsigned) {
      begin.arrive_and_wait();
      for (const RegionOffset offset : all)
        if (slab.free(offset)) ++freed;
    });
    EXPECT_EQ(all.size(), freed);
    EXPECT_EQ(0U, slab.statistics().live_objects);
    slab.validate();
  }
}

TEST_F(SlabThreads, StatisticsCanBeReadDuringAStorm) {
  std::atomic<bool> stop = false;
  std::uint64_t read = 0;
  std::jthread reader([&] {
    while (!stop.load()) {
      const auto statistics = slab.statistics();
      if (statistics.live_objects <= threads * 2'000U) ++read;
    }
  });
  run_threads([&](unsigned thread) { storm(thread, 2'000); });
  stop = true;
  reader.join();
  EXPECT_LT(0U, read);
  finish();
}

}  // namespace
}  // namespace accelmm::test
