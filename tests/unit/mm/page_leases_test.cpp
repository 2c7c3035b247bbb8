// SPDX-License-Identifier: Apache-2.0
#include "mm/page_leases.hpp"

#include "mm/page_space.hpp"

#include <thread>

#include <gtest/gtest.h>
#include <sched.h>

namespace accelmm::mm {
namespace {

constexpr std::uint64_t chunks = 8;

void move_to(std::size_t processor) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(processor, &one);
  static_cast<void>(sched_setaffinity(0, sizeof one, &one));  // may be forbidden in a container
}

// Chunks that single pages are taken from here, and freed on another processor.
class TwoProcessors : public ::testing::Test {
 protected:
  void SetUp() override {
    sched_getaffinity(0, sizeof before_, &before_);
    static_cast<void>(per_cpu::slots());
    move_to(0);
    here_ = per_cpu::current();
    if (!elsewhere([] {})) GTEST_SKIP() << "needs two processors to run on";
  }
  void TearDown() override { sched_setaffinity(0, sizeof before_, &before_); }

  [[nodiscard]] std::uint64_t take() {
    for (int attempt = 0; attempt < 2; ++attempt) {
      const std::uint64_t page = space.leases().take(0);
      if (page != PageLeases::none) return page;
      space.settle();
      if (!space.renew_lease(0)) break;
    }
    return PageLeases::none;
  }
  // Expects so many pages, all of one chunk. Returns which.
  std::uint64_t take_of_one_chunk(std::uint64_t count) {
    const std::uint64_t c = take() >> chunk_order;
    for (std::uint64_t i = 1; i < count; ++i) EXPECT_EQ(c, take() >> chunk_order);
    return c;
  }
  void give(std::uint64_t begin, std::uint64_t end) {
    for (std::uint64_t page = begin; page < end; ++page) {
      ASSERT_TRUE(space.map().free_page(page));
      space.map().touch(page >> chunk_order);
      space.leases().count_free_into(page >> chunk_order);
    }
  }
  void give_elsewhere(std::uint64_t begin, std::uint64_t end) {
    ASSERT_TRUE(elsewhere([=, this] { give(begin, end); }));
  }
  // Runs something in another slot. Where slots are groups of threads, the second thread is in one.
  template <class F>
  bool elsewhere(F f) {
    bool done = false;
    for (int attempt = 0; attempt < 2 && !done; ++attempt)
      std::jthread([&] {
        move_to(1);
        if (per_cpu::current() == here_) return;
        f();
        done = true;
      }).join();
    return done;
  }
  static std::uint64_t first_page(std::uint64_t c) { return c << chunk_order; }

  PageSpace space{chunks * chunk_pages, ChunkMap::Zeros::none};
  cpu_set_t before_{};
  unsigned here_ = 0;
};

using PageLeasesOfTwo = TwoProcessors;

TEST_F(PageLeasesOfTwo, TheFullestChunkIsLeasedNext) {
  const std::uint64_t first = take_of_one_chunk(chunk_pages);
  const std::uint64_t second = take_of_one_chunk(chunk_pages);
  ASSERT_NE(first, second);
  give(first_page(first), first_page(first) + 3);
  EXPECT_EQ(first, take_of_one_chunk(3));
  EXPECT_NE(first, take() >> chunk_order);
}

TEST_F(PageLeasesOfTwo, AChunkThatAnotherProcessorFreesIntoIsLeftAlone) {
  const std::uint64_t first = take_of_one_chunk(chunk_pages);
  const std::uint64_t second = take_of_one_chunk(chunk_pages);
  give_elsewhere(first_page(first), first_page(first) + 3);
  const std::uint64_t third = take_of_one_chunk(chunk_pages);
  EXPECT_NE(first, third);
  EXPECT_NE(second, third);
}

TEST_F(PageLeasesOfTwo, AChunkThatAnotherProcessorFreedIntoBeforeTheLastLeaseIsNot) {
  const std::uint64_t first = take_of_one_chunk(chunk_pages);
  static_cast<void>(take_of_one_chunk(chunk_pages));
  give_elsewhere(first_page(first), first_page(first) + 3);
  static_cast<void>(take_of_one_chunk(chunk_pages));
  EXPECT_EQ(first, take_of_one_chunk(3));
}

TEST_F(PageLeasesOfTwo, AnotherPartlyFreeChunkGoesBeforeAWholeOne) {
  const std::uint64_t first = take_of_one_chunk(chunk_pages);
  const std::uint64_t second = take_of_one_chunk(chunk_pages);
  static_cast<void>(take_of_one_chunk(chunk_pages));
  ASSERT_TRUE(elsewhere([&] {
    give(first_page(second), first_page(second) + 100);
    give(first_page(first), first_page(first) + 3);  // now
  }));
  EXPECT_EQ(second, take_of_one_chunk(100));
}

TEST_F(PageLeasesOfTwo, ALeasedChunkThatAnotherProcessorFreesIntoIsNotTurnedBackTo) {
  const std::uint64_t first = take_of_one_chunk(300);
  give_elsewhere(first_page(first), first_page(first) + 100);
  EXPECT_EQ(first, take_of_one_chunk(chunk_pages - 300));  // what lies ahead
  EXPECT_NE(first, take() >> chunk_order);
  space.validate();
}

TEST_F(PageLeasesOfTwo, WhatAnotherProcessorFreesIntoIsTakenWhereThereIsNothingElse) {
  for (std::uint64_t c = 0; c < chunks; ++c) static_cast<void>(take_of_one_chunk(chunk_pages));
  EXPECT_EQ(PageLeases::none, take());
  give_elsewhere(first_page(2) + 7, first_page(2) + 9);
  EXPECT_EQ(first_page(2) + 7, take());
  EXPECT_EQ(first_page(2) + 8, take());
  EXPECT_EQ(PageLeases::none, take());
  space.validate();
}

}  // namespace
}  // namespace accelmm::mm
