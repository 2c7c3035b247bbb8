// SPDX-License-Identifier: Apache-2.0
//
// A node's whole life, again and again, with one system call more failing each time.
#include "support/failing_calls.hpp"
#include "unit/loop/loop_fixture.hpp"

#include <iostream>
#include <list>
#include <memory>
#include <optional>
#include <thread>

#include <gtest/gtest.h>

// What the kernel keeps in BrokenRing is leaked on purpose.
extern "C" [[gnu::visibility("default")]] const char* __lsan_default_suppressions();
const char* __lsan_default_suppressions() {
  return "leak:accelmm::UringTransport::create";
}

namespace accelmm::test {
namespace {

// A session of the node; answers with what it got, descriptors included.
struct Echo final : ConnectionEvents {
  explicit Echo(std::list<std::unique_ptr<Echo>>& all) : sessions(all) {}
  void on_message(std::span<const std::byte> bytes, std::vector<UniqueFd> fds) override {
    connection->send(bytes, views(fds));
  }
  void on_lost_fds(std::span<const std::byte> /*bytes*/) override { on_end(); }
  void on_end() override {
    sessions.remove_if([this](const auto& other) { return other.get() == this; });
  }
  std::list<std::unique_ptr<Echo>>& sessions;
  std::unique_ptr<Connection> connection;
};

// Connects and asks three times, once with a descriptor; returns the first error.
Result<void> use_node(const std::string& node) {
  auto channel = SocketChannel::connect(node);
  if (!channel) return fail(channel.error());
  const FdView fd(0);
  for (std::size_t fds = 0; fds < 3; ++fds) {
    const Answer answer = ask(**channel, "question", std::span(&fd, fds % 2));
    if (!answer.size) return fail(answer.size.error());
    EXPECT_EQ("question", answer.text);
    EXPECT_EQ(fds % 2, answer.fds.size());
  }
  return {};
}

// Makes a loop and a node, serves it, uses it and removes it all; returns the first error.
Result<void> live(const SocketFolder& folder) {
  auto transport = create_transport();
  if (!transport) return fail(transport.error());
  auto socket = sys::listen_seqpacket(folder.node());
  if (!socket) return fail(socket.error());
  std::list<std::unique_ptr<Echo>> sessions;
  auto listener = (*transport)
                      ->listen(std::move(*socket),
                               [&](std::unique_ptr<Connection> connection) -> ConnectionEvents* {
                                 sessions.push_back(std::make_unique<Echo>(sessions));
                                 sessions.back()->connection = std::move(connection);
                                 return sessions.back().get();
                               });
  if (!listener) {
    static_cast<void>(unlink(folder.node().c_str()));
    return fail(listener.error());
  }
  Result<void> ran;
  std::thread serving([&] {
    ran = (*transport)->run();
    // What is served no more is hung up on.
    sessions.clear();
    listener->reset();
  });
  const auto used = use_node(folder.node());
  (*transport)->stop();
  serving.join();
  static_cast<void>(unlink(folder.node().c_str()));
  return ran ? used : ran;
}

class FailingCalls : public testing::TestWithParam<int> {};

TEST_P(FailingCalls, EachEndsInACleanErrorAndLeaksNothing) {
  const SocketFolder folder;
  ASSERT_TRUE(live(folder));
  const auto before = open_fds();
  long number = 1;
  int errors = 0;
  while (true) {
    const FailingCall failing(number, GetParam());
    const auto lived = live(folder);
    if (failing.calls() < number) break;
    if (!lived) {
      ++errors;
      const int code = std::to_underlying(lived.error().code);
      EXPECT_TRUE(code == GetParam() || code == ENODEV) << number << ": " << code;
    }
    ASSERT_EQ(before, open_fds()) << number;
    ++number;
  }
  std::cout << number - 1 << " points, " << errors << " of them errors\n";
  EXPECT_GT(number, 20);
  EXPECT_GT(errors, 10);
  EXPECT_TRUE(live(folder));
}

INSTANTIATE_TEST_SUITE_P(Errnos, FailingCalls, testing::Values(EIO, ENOMEM, EAGAIN, EMFILE));

// Errors of the kernel's that pass by themselves cost time and nothing else.
class PassingRefusals : public testing::TestWithParam<int> {};

TEST_P(PassingRefusals, OfTheRingEndNothing) {
  const SocketFolder folder;
  for (long number = 1; number <= 8; ++number) {
    struct State {
      long left;
      int error;
    } state{.left = number, .error = GetParam()};
    fault_injection::install(
        [](void* context, const char* site) noexcept {
          auto* const at = static_cast<State*>(context);
          if (std::strcmp(site, "io_uring_enter") != 0) return 0;
          return --at->left == 0 ? at->error : 0;
        },
        &state);
    const auto lived = live(folder);
    fault_injection::install(nullptr, nullptr);
    EXPECT_TRUE(lived) << number;
  }
}

INSTANTIATE_TEST_SUITE_P(Errnos, PassingRefusals,
                         testing::Values(EAGAIN, EBUSY, EINTR, ENOMEM, ETIME));

TEST(BrokenRing, AKernelThatRefusesForEverEndsTheRunAndNotTheProcess) {
  auto transport = create_transport();
  ASSERT_TRUE(transport);
  {
    const FailingSite failing("io_uring_enter", EIO);
    const auto ran = (*transport)->run();
    ASSERT_FALSE(ran);
    EXPECT_EQ(Errc::io_error, ran.error().code);
  }
  // Nothing had reached the kernel: the ring is as good as new.
  bool ran = false;
  (*transport)->post([&] {
    ran = true;
    (*transport)->stop();
  });
  EXPECT_TRUE((*transport)->run());
  EXPECT_TRUE(ran);
}

// What is in the kernel's hands when it stops answering stays there: it is not freed, and the loop
// does not run again.
TEST(BrokenRing, AKernelThatKeepsOperationsEndsTheLoopForGood) {
  auto transport = create_transport();
  ASSERT_TRUE(transport);
  std::optional<FailingSite> failing;
  (*transport)->post([&] {
    // In the turn after the next: the wake-up is in flight by then.
    (*transport)->call_at(sys::monotonic_ns() + 1'000'000, [&] {
      failing.emplace("io_uring_enter", EIO);
    });
  });
  EXPECT_EQ(Errc::io_error, (*transport)->run().error().code);
  failing.reset();
  EXPECT_EQ(Errc::io_error, (*transport)->run().error().code);
}

TEST(NoIoUring, IsAnErrorWhenTheLoopIsMade) {
  for (const int error : {ENOSYS, EPERM}) {
    const FailingSite failing("io_uring_setup", error);
    const auto transport = create_transport();
    ASSERT_FALSE(transport);
    EXPECT_EQ(error, std::to_underlying(transport.error().code));
  }
}

TEST(NoIoUring, AKernelWithoutTheNewFlagsGetsAPlainRing) {
  const SocketFolder folder;
  // Each ring is first asked for with the flags of 6.1.
  struct State {
    bool refuse = true;
  } state;
  fault_injection::install(
      [](void* context, const char* site) noexcept {
        auto* const at = static_cast<State*>(context);
        if (std::strcmp(site, "io_uring_setup") != 0) return 0;
        at->refuse = !at->refuse;
        return at->refuse ? 0 : EINVAL;
      },
      &state);
  EXPECT_TRUE(live(folder));
  fault_injection::install(nullptr, nullptr);
}

}  // namespace
}  // namespace accelmm::test
