// SPDX-License-Identifier: Apache-2.0
#include "loop/uring_transport.hpp"

#include "unit/loop/loop_fixture.hpp"

#include <array>
#include <atomic>
#include <limits>
#include <memory>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

std::unique_ptr<Transport> make_transport() {
  auto transport = create_transport();
  EXPECT_TRUE(transport) << transport.error().what;
  return std::move(*transport);
}

TEST(UringTransport, WhatEachThreadPostsRunsInItsOrder) {
  constexpr int threads = 4;
  constexpr int each = 5000;
  std::array<int, threads> next = {};
  int wrong = 0;
  {
    LoopThread loop;
    std::vector<std::thread> posters;
    for (std::size_t i = 0; i < threads; ++i) {
      posters.emplace_back([&, i] {
        for (int n = 0; n < each; ++n) {
          loop.transport().post([&, i, n] {
            if (next[i] != n || !loop.transport().in_loop()) ++wrong;
            next[i] = n + 1;
          });
        }
      });
    }
    for (auto& poster : posters) poster.join();
  }
  EXPECT_EQ(0, wrong);
  for (const int count : next) EXPECT_EQ(each, count);
}

TEST(UringTransport, APostWakesALoopThatSleeps) {
  LoopThread loop;
  // Each waits for the one before, so that the loop goes to sleep between.
  for (int i = 0; i < 500; ++i) loop.run([] {});
}

TEST(UringTransport, WhatWasPostedBeforeStopRuns) {
  const auto transport = make_transport();
  int ran = 0;
  transport->post([&] {
    transport->stop();
    transport->post([&] {
      ++ran;
      transport->post([&] { ++ran; });
    });
    ++ran;
  });
  EXPECT_TRUE(transport->run());
  EXPECT_EQ(3, ran);
}

TEST(UringTransport, AStopBeforeRunIsNotLost) {
  const auto transport = make_transport();
  bool ran = false;
  transport->post([&] { ran = true; });
  transport->stop();
  EXPECT_TRUE(transport->run());
  EXPECT_TRUE(ran);
}

TEST(UringTransport, RunsAgainInAnotherThread) {
  Server server;
  const auto channel = connect(server.node());
  EXPECT_EQ("first", ask(*channel, "first").text);
  server.loop.stop();
  server.loop.start();
  EXPECT_EQ("second", ask(*channel, "second").text);
  EXPECT_EQ("new", ask(*connect(server.node()), "new").text);
}

TEST(UringTransport, MessagesThatCameBetweenTwoRunsAreServed) {
  Server server;
  const auto channel = connect(server.node());
  EXPECT_EQ("first", ask(*channel, "first").text);
  server.loop.stop();
  std::thread asking([&] { EXPECT_EQ("between", ask(*channel, "between").text); });
  server.loop.start();
  asking.join();
}

TEST(UringTransport, KnowsItsThread) {
  LoopThread loop;
  EXPECT_FALSE(loop.transport().in_loop());
  bool inside = false;
  loop.run([&] { inside = loop.transport().in_loop(); });
  EXPECT_TRUE(inside);
}

TEST(UringTransport, TimersRunInOrderAndNotBeforeTheirTime) {
  const auto transport = make_transport();
  const std::uint64_t begin_ns = sys::monotonic_ns();
  std::vector<int> ran;
  bool early = false;
  const auto at = [&](int number, std::uint64_t after_ns) {
    return transport->call_at(begin_ns + after_ns, [&, number, after_ns] {
      ran.push_back(number);
      early = early || sys::monotonic_ns() < begin_ns + after_ns;
    });
  };
  at(3, 9'000'000);
  at(1, 3'000'000);
  const auto canceled = at(4, 4'000'000);
  at(2, 6'000'000);
  transport->call_at(begin_ns + 12'000'000, [&] { transport->stop(); });
  transport->call_at(std::numeric_limits<std::uint64_t>::max(), [&] { ran.push_back(99); });
  transport->cancel_timer(canceled);
  EXPECT_TRUE(transport->run());
  EXPECT_EQ((std::vector{1, 2, 3}), ran);
  EXPECT_FALSE(early);
}

TEST(UringTransport, ATimerThatIsOverdueRuns) {
  const auto transport = make_transport();
  transport->call_at(0, [&] { transport->stop(); });
  EXPECT_TRUE(transport->run());
}

TEST(UringTransport, WhatNeverRanIsDropped) {
  const auto held = std::make_shared<int>(1);
  {
    const auto transport = make_transport();
    transport->post([held] {});
    transport->call_at(1, [held] {});
    EXPECT_EQ(3, held.use_count());
  }
  EXPECT_EQ(1, held.use_count());
}

TEST(UringTransport, LeavesNothingOpen) {
  // The first of all makes what the process keeps.
  {
    const Server server;
  }
  const auto before = open_fds();
  {
    const Server server;
  }
  EXPECT_EQ(before, open_fds());
}

TEST(UringTransport, AConnectionThatOutlivesTheLoopIsCaught) {
  EXPECT_DEATH(
      {
        const SocketFolder folder;
        auto transport = make_transport();
        auto listener = transport->listen(std::move(*sys::listen_seqpacket(folder.node())),
                                          [](auto) { return nullptr; });
        transport.reset();
      },
      "waiting_.empty");
}

}  // namespace
}  // namespace accelmm::test
