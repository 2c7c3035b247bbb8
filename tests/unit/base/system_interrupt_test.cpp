// SPDX-License-Identifier: Apache-2.0
//
// Calls that block go on after a signal, and a time limit does not start anew with each.
#include "base/system.hpp"

#include <array>
#include <atomic>
#include <chrono>
#include <climits>
#include <csignal>
#include <functional>
#include <optional>
#include <thread>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <unistd.h>

namespace accelmm {
namespace {

std::atomic<int> signals_taken{0};
static_assert(std::atomic<int>::is_always_lock_free, "used in a signal handler");

/// Runs a blocking call in a thread and interrupts it so many times, or until it ends, before it is let go on.
void interrupt(int times, const std::function<void()>& blocking,
               const std::function<void()>& let_go_on) {
  struct sigaction action = {};
  struct sigaction before = {};
  action.sa_handler = [](int) { ++signals_taken; };  // no SA_RESTART: calls end with EINTR
  ASSERT_EQ(0, ::sigaction(SIGUSR1, &action, &before));
  signals_taken = 0;
  std::atomic<bool> done{false};
  std::thread thread([&] {
    blocking();
    done = true;
  });
  while (signals_taken < times && !done) {
    ASSERT_EQ(0, ::pthread_kill(thread.native_handle(), SIGUSR1));
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  let_go_on();
  thread.join();
  ASSERT_EQ(0, ::sigaction(SIGUSR1, &before, nullptr));
}

TEST(Interruption, ABlockingReadGoesOn) {
  int ends[2];
  ASSERT_EQ(0, ::pipe2(ends, O_CLOEXEC));
  const UniqueFd reader(ends[0]);
  const UniqueFd writer(ends[1]);
  std::array<std::byte, 1> byte{};
  const std::array<std::byte, 1> sent{std::byte{1}};
  std::optional<Result<std::size_t>> count;
  interrupt(
      5, [&] { count = sys::read(reader.view(), byte); },
      [&] { ASSERT_EQ(1U, *sys::write(writer.view(), sent)); });
  ASSERT_TRUE(count->has_value());
  EXPECT_EQ(1U, **count);
  EXPECT_EQ(sent, byte);
}

TEST(Interruption, ABlockingReceiveGoesOn) {
  const auto pair = sys::socket_pair();
  ASSERT_TRUE(pair.has_value());
  std::array<std::byte, 8> bytes{};
  const std::array<std::byte, 8> sent{};
  std::optional<Result<sys::ReceivedPacket>> packet;
  interrupt(
      5, [&] { packet = sys::receive_packet(pair->first.view(), bytes, 4); },
      [&] { ASSERT_TRUE(sys::send_packet(pair->second.view(), sent, {}).has_value()); });
  ASSERT_TRUE(packet->has_value());
  EXPECT_EQ(8U, (*packet)->size);
}

TEST(Interruption, AnEndlessPollGoesOn) {
  const auto pipe = sys::pipe();
  ASSERT_TRUE(pipe.has_value());
  std::optional<Result<short>> events;
  const std::array<std::byte, 1> byte{};
  interrupt(
      5, [&] { events = sys::poll_one(pipe->reader.view(), POLLIN, -1); },
      [&] { ASSERT_EQ(1U, *sys::write(pipe->writer.view(), byte)); });
  ASSERT_TRUE(events->has_value());
  EXPECT_EQ(POLLIN, **events);
}

TEST(Interruption, APollEndsWithItsTimeHoweverOftenItIsInterrupted) {
  const auto pipe = sys::pipe();
  ASSERT_TRUE(pipe.has_value());
  std::optional<Result<short>> events;
  const std::uint64_t begin_ns = sys::monotonic_ns();
  // The signals come every few milliseconds until it ends: with a new limit after each it never would.
  interrupt(INT_MAX, [&] { events = sys::poll_one(pipe->reader.view(), POLLIN, 30); }, [] {});
  ASSERT_TRUE(events->has_value());
  EXPECT_EQ(0, **events);
  EXPECT_GE(sys::monotonic_ns() - begin_ns, 30'000'000U);
}

}  // namespace
}  // namespace accelmm
