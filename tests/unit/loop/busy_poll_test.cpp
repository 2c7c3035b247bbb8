// SPDX-License-Identifier: Apache-2.0
//
// A loop that looks for results before it sleeps. Its limit is longer than the tests may take: what
// it does not see while it looks is seen too late.
#include "unit/loop/loop_fixture.hpp"

#include <accelmm/fault_injection.hpp>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <future>
#include <string_view>
#include <thread>

#include <gtest/gtest.h>
#include <sched.h>

namespace accelmm::test {
namespace {

constexpr std::uint64_t second = 1'000'000'000;
constexpr std::uint64_t limit = 600 * second;

class BusyLoop : public testing::Test {
 protected:
  void SetUp() override {
    if (sys::is_on_one_processor()) GTEST_SKIP() << "nobody looks with one processor";
    // The first wait sleeps, and after a short one the loop looks.
    loop_.run([] {});
    loop_.run([] {});
  }

  LoopThread loop_{limit};
};

TEST_F(BusyLoop, SeesWhatIsPosted) {
  for (int i = 0; i < 500; ++i) loop_.run([] {});
}

TEST_F(BusyLoop, SeesThatItIsToStop) {
  loop_.stop();
  loop_.start();
  loop_.run([] {});
}

TEST_F(BusyLoop, RunsATimerAtItsTime) {
  const std::uint64_t begin_ns = sys::monotonic_ns();
  std::promise<std::uint64_t> ran;
  loop_.run([&] {
    loop_.transport().call_at(begin_ns + 20'000'000, [&] { ran.set_value(sys::monotonic_ns()); });
  });
  EXPECT_LE(begin_ns + 20'000'000, ran.get_future().get());
}

TEST_F(BusyLoop, ServesWhoConnectsAsksAndLeaves) {
  const auto fds = open_fds().size();
  for (int i = 0; i < 20; ++i) {
    Server server(Server::echo, limit);
    const auto channel = connect(server.node());
    for (int n = 0; n < 20; ++n) EXPECT_EQ("again", ask(*channel, "again").text);
  }
  EXPECT_EQ(fds, open_fds().size());
}

// Every third entry is refused, be it before a look or after it.
int refuse_every_third(void* context, const char* site) noexcept {
  if (std::string_view(site) != "io_uring_enter") return 0;
  return ++*static_cast<std::atomic<unsigned>*>(context) % 3 == 0 ? EAGAIN : 0;
}

TEST(FailingBusyLoop, GoesOnWhenTheKernelRefusesToBeEntered) {
  std::atomic<unsigned> entries = 0;
  fault_injection::install(refuse_every_third, &entries);
  {
    LoopThread loop(limit);
    for (int i = 0; i < 100; ++i) loop.run([] {});
  }
  fault_injection::install(nullptr, nullptr);
  EXPECT_LE(100U, entries.load());
}

TEST(Processors, AreOneForAThreadThatMayRunOnOneOnly) {
  std::thread([] {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(static_cast<std::size_t>(sched_getcpu()), &set);
    ASSERT_EQ(0, sched_setaffinity(0, sizeof set, &set));
    EXPECT_TRUE(sys::is_on_one_processor());
  }).join();
  EXPECT_EQ(std::thread::hardware_concurrency() == 1, sys::is_on_one_processor());
}

}  // namespace
}  // namespace accelmm::test
