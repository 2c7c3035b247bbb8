// SPDX-License-Identifier: Apache-2.0
//
// A node's life with one allocation more failing each time, in the thread of the loop or in the
// application's. What the test itself allocates does not count.
#include "unit/loop/loop_fixture.hpp"

#include <array>
#include <atomic>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <new>
#include <thread>

#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

// Allocations of this thread until one fails; 0: none fails.
thread_local long until_failure = 0;

void* take_block(std::size_t size) noexcept {
  if (until_failure > 0 && --until_failure == 0) return nullptr;
  return std::malloc(size == 0 ? 1 : size);
}

// Not inlined: where g++ sees free() take what operator new returned, it warns of a mismatch.
[[gnu::noinline]] void give_block(void* block) noexcept {
  std::free(block);
}

// In its scope allocations of the test's own do not fail.
class OwnCode {
 public:
  OwnCode() : left_(std::exchange(until_failure, 0)) {}
  OwnCode(const OwnCode&) = delete;
  OwnCode& operator=(const OwnCode&) = delete;
  ~OwnCode() { until_failure = left_; }

 private:
  long left_;
};

// A node of one session, which answers a flood with more than a socket holds, and anything else
// with itself.
struct Node final : ConnectionEvents {
  void on_message(std::span<const std::byte> bytes, std::vector<UniqueFd> fds) override {
    std::vector<FdView> borrowed;
    {
      const OwnCode own;
      borrowed = views(fds);
    }
    const int times = bytes.size() > 30000 ? 20 : 1;
    for (int i = 0; i < times; ++i) connection->send(bytes, borrowed);
    ++answered;
  }
  void on_lost_fds(std::span<const std::byte> /*bytes*/) override { on_end(); }
  void on_end() override { connection.reset(); }

  std::unique_ptr<Connection> connection;
  std::atomic<int> answered = 0;
};

// Serves the node in a thread whose allocation of the given number fails while it is used. Returns
// whether it was met.
template <class Use>
bool live(const SocketFolder& folder, long number, Use use) {
  auto transport = create_transport();
  auto socket = sys::listen_seqpacket(folder.node());
  EXPECT_TRUE(transport && socket);
  Node node;
  auto listener = (*transport)->listen(std::move(*socket), [&](auto connection) {
    node.connection = std::move(connection);
    return &node;
  });
  EXPECT_TRUE(listener);
  bool met = false;
  std::thread serving([&] {
    until_failure = number;
    auto ran = (*transport)->run();
    // The failure can only be the one that was asked for.
    if (!ran) {
      EXPECT_EQ(Errc::no_memory, ran.error().code);
      EXPECT_EQ(0, until_failure);
      ran = (*transport)->run();
    }
    EXPECT_TRUE(ran);
    met = number > 0 && until_failure == 0;
    until_failure = 0;
    node.connection.reset();
    listener->reset();
  });
  use(folder.node(), node);
  (*transport)->stop();
  serving.join();
  static_cast<void>(unlink(folder.node().c_str()));
  return met;
}

TEST(AllocationFailure, InTheLoopHangsUpAndLeaksNothing) {
  const SocketFolder folder;
  // What a client that gets no_device does: it tries again.
  const auto use = [](const std::string& path, const Node& node) {
    const auto flood = message(std::string(40000, 'x'), 1);
    std::vector<std::byte> bytes(ACCELMM_MAX_MESSAGE);
    const FdView fd(0);
    for (int attempt = 0; attempt < 3; ++attempt) {
      const auto client = sys::connect_seqpacket(path);
      ASSERT_TRUE(client);
      int received = 0;
      const int answered = node.answered;
      static_cast<void>(sys::send_packet(client->view(), flood, std::span(&fd, 1)));
      // Reads nothing before the whole answer was sent, so that most of it has to wait.
      while (node.answered == answered && *sys::poll_one(client->view(), POLLRDHUP, 0) == 0) {
        std::this_thread::yield();
      }
      while (received < 20) {
        const auto packet = sys::receive_packet(client->view(), bytes, ACCELMM_MAX_FDS);
        if (!packet || packet->size == 0) break;
        EXPECT_EQ(1U, packet->fds.size());
        ++received;
      }
      if (received == 20) return;
    }
    FAIL() << "three clients were hung up on";
  };
  live(folder, 0, use);
  const auto before = open_fds();
  long number = 1;
  while (live(folder, number, use)) {
    EXPECT_EQ(before, open_fds()) << number;
    ++number;
  }
  std::cout << number - 1 << " allocations\n";
  EXPECT_GT(number, 20);
}

TEST(AllocationFailure, InTheApplicationIsNoMemoryAndTheNextCallWorks) {
  const SocketFolder folder;
  long connects = 0;
  long calls = 0;
  live(folder, 0, [&](const std::string& path, const Node&) {
    for (bool failed = true; failed; ++connects) {
      until_failure = connects + 1;
      const auto channel = SocketChannel::connect(path);
      failed = until_failure == 0;
      until_failure = 0;
      ASSERT_EQ(!failed, channel.has_value());
      if (failed) {
        EXPECT_EQ(Errc::no_memory, channel.error().code);
      }
    }
    const auto channel = connect(path);
    auto request = message("question", 1);
    std::array<std::byte, 64> reply;
    const FdView fd(0);
    for (bool failed = true; failed; ++calls) {
      std::vector<UniqueFd> fds;
      until_failure = calls + 1;
      const auto size = channel->call(request, std::span(&fd, 1), reply, fds);
      failed = until_failure == 0;
      until_failure = 0;
      // Running out of memory for a reply that is on its way only delays it.
      if (size) {
        EXPECT_EQ("question", payload(std::span(reply).first(*size)));
        EXPECT_EQ(1U, fds.size());
      } else {
        EXPECT_EQ(Errc::no_memory, size.error().code);
        EXPECT_TRUE(failed);
      }
    }
  });
  std::cout << connects - 1 << " allocations to connect, " << calls - 1 << " to call\n";
  EXPECT_GT(connects, 2);
  EXPECT_GT(calls, 1);
}

TEST(AllocationFailure, InMakingALoopIsNoMemory) {
  const auto before = open_fds();
  long number = 1;
  while (true) {
    until_failure = number;
    const auto transport = create_transport();
    const bool failed = until_failure == 0;
    until_failure = 0;
    ASSERT_EQ(!failed, transport.has_value());
    if (!failed) break;
    EXPECT_EQ(Errc::no_memory, transport.error().code);
    EXPECT_EQ(before, open_fds());
    ++number;
  }
  EXPECT_GT(number, 2);
}

}  // namespace
}  // namespace accelmm::test

void* operator new(std::size_t size) {
  void* block = accelmm::test::take_block(size);
  if (block == nullptr) throw std::bad_alloc();
  return block;
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  return accelmm::test::take_block(size);
}
void* operator new[](std::size_t size) {
  return operator new(size);
}
void* operator new[](std::size_t size, const std::nothrow_t& tag) noexcept {
  return operator new(size, tag);
}
void operator delete(void* block) noexcept {
  accelmm::test::give_block(block);
}
void operator delete(void* block, std::size_t) noexcept {
  accelmm::test::give_block(block);
}
void operator delete[](void* block) noexcept {
  accelmm::test::give_block(block);
}
void operator delete[](void* block, std::size_t) noexcept {
  accelmm::test::give_block(block);
}
void operator delete(void* block, const std::nothrow_t&) noexcept {
  accelmm::test::give_block(block);
}
void operator delete[](void* block, const std::nothrow_t&) noexcept {
  accelmm::test::give_block(block);
}
