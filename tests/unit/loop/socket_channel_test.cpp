// SPDX-License-Identifier: Apache-2.0
#include "base/socket_channel.hpp"

#include "unit/loop/loop_fixture.hpp"

#include <ranges>
#include <thread>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

namespace accelmm::test {
namespace {

bool same_file(FdView a, FdView b) {
  struct stat first = {};
  struct stat second = {};
  return fstat(a.get(), &first) == 0 && fstat(b.get(), &second) == 0 &&
         first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

TEST(SocketChannel, EveryCallGetsItsReply) {
  Server server;
  const auto channel = connect(server.node());
  for (int i = 0; i < 1000; ++i) {
    const std::string text = "request " + std::to_string(i);
    ASSERT_EQ(text, ask(*channel, text).text);
  }
}

TEST(SocketChannel, AMessageOfTheLargestSizeGoesBothWays) {
  Server server;
  const auto channel = connect(server.node());
  const std::string text(ACCELMM_MAX_MESSAGE - sizeof(accelmm_message_header), 'x');
  EXPECT_EQ(text, ask(*channel, text).text);
}

TEST(SocketChannel, DescriptorsGoBothWaysAndAreClosedOnExec) {
  const auto before = open_fds();
  {
    Server server;
    const auto channel = connect(server.node());
    for (std::size_t count = 1; count <= ACCELMM_MAX_FDS; ++count) {
      std::vector<UniqueFd> fds;
      for (std::size_t i = 0; i < count; ++i)
        fds.push_back(std::move(*sys::memfd_create("sent", ByteCount(1 + i))));
      const Answer answer = ask(*channel, "with descriptors", views(fds));
      ASSERT_EQ("with descriptors", answer.text);
      ASSERT_EQ(count, answer.fds.size());
      for (std::size_t i = 0; i < count; ++i) {
        EXPECT_TRUE(same_file(fds[i].view(), answer.fds[i].view()));
        EXPECT_NE(fds[i].get(), answer.fds[i].get());
        EXPECT_EQ(FD_CLOEXEC, fcntl(answer.fds[i].get(), F_GETFD));
      }
    }
  }
  EXPECT_EQ(before, open_fds());
}

TEST(SocketChannel, RepliesOutOfOrderFindTheirCallers) {
  // Answers in the reverse order of arrival once all four have asked.
  std::vector<std::vector<std::byte>> held;
  Server server([&](Server::Session& session, std::span<const std::byte> bytes, auto) {
    held.emplace_back(bytes.begin(), bytes.end());
    if (held.size() < 4) return;
    for (const auto& one : held | std::views::reverse) session.connection->send(one, {});
    held.clear();
  });
  const auto channel = connect(server.node());
  for (int round = 0; round < 100; ++round) {
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&channel, round, i] {
        const std::string text = std::to_string(round) + "/" + std::to_string(i);
        EXPECT_EQ(text, ask(*channel, text).text);
      });
    }
    for (auto& thread : threads) thread.join();
  }
}

TEST(SocketChannel, ACallThatWaitsHoldsNobodyUp) {
  std::vector<std::byte> waiting;
  Server server([&](Server::Session& session, std::span<const std::byte> bytes, auto) {
    if (payload(bytes) == "wait") {
      waiting.assign(bytes.begin(), bytes.end());
      return;
    }
    if (payload(bytes) == "release") session.connection->send(waiting, {});
    session.connection->send(bytes, {});
  });
  const auto channel = connect(server.node());
  std::thread waiter([&] { EXPECT_EQ("wait", ask(*channel, "wait").text); });
  server.await([&] { return !waiting.empty(); });
  for (int i = 0; i < 100; ++i) EXPECT_EQ("go on", ask(*channel, "go on").text);
  EXPECT_EQ("release", ask(*channel, "release").text);
  waiter.join();
}

TEST(SocketChannel, ManyThreadsShareOneChannel) {
  Server server;
  const auto channel = connect(server.node());
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&channel, i] {
      for (int n = 0; n < 200; ++n) {
        const std::string text = std::to_string(i) + ":" + std::to_string(n);
        ASSERT_EQ(text, ask(*channel, text).text);
      }
    });
  }
  for (auto& thread : threads) thread.join();
}

TEST(SocketChannel, AReplyThatDoesNotFitIsTheCallersErrorOnly) {
  const auto before = open_fds();
  {
    Server server;
    const auto channel = connect(server.node());
    auto request = message("a text that is too long", 1);
    std::vector<std::byte> small(sizeof(accelmm_message_header) + 4);
    const auto sent = sys::memfd_create("sent", ByteCount(1));
    const FdView view = sent->view();
    std::vector<UniqueFd> fds;
    const auto size = channel->call(request, std::span(&view, 1), small, fds);
    ASSERT_FALSE(size);
    EXPECT_EQ(Errc::protocol_error, size.error().code);
    EXPECT_TRUE(fds.empty());
    EXPECT_EQ("next", ask(*channel, "next").text);
  }
  EXPECT_EQ(before, open_fds());
}

TEST(SocketChannel, RequestsThatCannotBeSentAreRefused) {
  Server server;
  const auto channel = connect(server.node());
  std::vector<std::byte> reply(ACCELMM_MAX_MESSAGE);
  std::vector<UniqueFd> fds;
  std::vector<std::byte> request(sizeof(accelmm_message_header) - 1);
  EXPECT_EQ(Errc::invalid_argument, channel->call(request, {}, reply, fds).error().code);
  request.resize(ACCELMM_MAX_MESSAGE + 1);
  EXPECT_EQ(Errc::invalid_argument, channel->call(request, {}, reply, fds).error().code);
  const std::vector<FdView> many(ACCELMM_MAX_FDS + 1, FdView(0));
  EXPECT_EQ(Errc::invalid_argument, ask(*channel, "fds", many).size.error().code);
  const FdView closed(1'000'000);
  EXPECT_EQ(EBADF, std::to_underlying(ask(*channel, "x", std::span(&closed, 1)).size.error().code));
  EXPECT_EQ("still there", ask(*channel, "still there").text);
}

TEST(SocketChannel, NoNodeIsNoDevice) {
  const SocketFolder folder;
  EXPECT_EQ(Errc::no_device, SocketChannel::connect(folder.node()).error().code);
  {
    const auto listener = sys::listen_seqpacket(folder.node());
  }
  EXPECT_EQ(Errc::no_device, SocketChannel::connect(folder.node()).error().code);
}

TEST(SocketChannel, AChannelIsDeadForEverAfterTheServerHangsUp) {
  Server server([](Server::Session& session, auto, auto) { session.owner.drop(session); });
  const auto channel = connect(server.node());
  EXPECT_EQ(Errc::no_device, ask(*channel, "hang up").size.error().code);
  EXPECT_EQ(Errc::no_device, ask(*channel, "and later").size.error().code);
}

// What a server may answer that breaks the protocol.
enum class Lie { unknown_sequence, twice, magic, size, fd_count, short_packet };

void lie(Lie kind, Connection& connection, std::span<const std::byte> bytes) {
  std::vector<std::byte> reply(bytes.begin(), bytes.end());
  accelmm_message_header header;
  std::memcpy(&header, reply.data(), sizeof(header));
  if (kind == Lie::unknown_sequence) header.sequence += 7;
  if (kind == Lie::magic) header.magic ^= 1;
  if (kind == Lie::size) header.size += 1;
  if (kind == Lie::fd_count) header.fd_count += 1;
  std::memcpy(reply.data(), &header, sizeof(header));
  if (kind == Lie::short_packet) reply.resize(sizeof(header) - 1);
  connection.send(reply, {});
  if (kind == Lie::twice) connection.send(reply, {});
}

class SocketChannelLies : public testing::TestWithParam<Lie> {};

TEST_P(SocketChannelLies, BreakTheConnection) {
  Server server([](Server::Session& session, std::span<const std::byte> bytes, auto) {
    lie(GetParam(), *session.connection, bytes);
  });
  const auto channel = connect(server.node());
  // The second copy of a reply is found by the next call.
  if (GetParam() == Lie::twice) {
    EXPECT_EQ("true", ask(*channel, "true").text);
  }
  EXPECT_EQ(Errc::no_device, ask(*channel, "a").size.error().code);
  EXPECT_EQ(Errc::no_device, ask(*channel, "b").size.error().code);
}

INSTANTIATE_TEST_SUITE_P(All, SocketChannelLies,
                         testing::Values(Lie::unknown_sequence, Lie::twice, Lie::magic, Lie::size,
                                         Lie::fd_count, Lie::short_packet));

TEST(SocketChannel, DescriptorsAboveTheLimitAreTheCallersErrorOnly) {
  Server server([](Server::Session& session, std::span<const std::byte> bytes, auto) {
    const std::vector<FdView> fds(payload(bytes) == "fds" ? 4 : 0, FdView(0));
    auto reply = message("reply", fds.size());
    accelmm_message_header header;
    std::memcpy(&header, bytes.data(), sizeof(header));
    std::memcpy(reply.data() + offsetof(accelmm_message_header, sequence), &header.sequence,
                sizeof(header.sequence));
    session.connection->send(reply, fds);
  });
  const auto channel = connect(server.node());
  EXPECT_EQ(4U, ask(*channel, "fds").fds.size());
  {
    // Two more descriptors fit: the kernel delivers those and says that it cut the rest.
    const auto fds = open_fds();
    std::vector<UniqueFd> fill;
    for (int fd = 0; fd < *fds.rbegin(); ++fd)
      if (!fds.contains(fd)) fill.emplace_back(dup(0));
    const FileLimit limit(static_cast<rlim_t>(*fds.rbegin() + 3));
    const Answer answer = ask(*channel, "fds");
    ASSERT_FALSE(answer.size);
    EXPECT_EQ(Errc::too_many_files, answer.size.error().code);
    EXPECT_TRUE(answer.fds.empty());
  }
  EXPECT_EQ("reply", ask(*channel, "none").text);
  EXPECT_EQ(4U, ask(*channel, "fds").fds.size());
}

// A server that never reads, with a raw socket: the kernel's queue fills, and the sender waits for
// room.
TEST(SocketChannel, ASenderThatWaitsForRoomLearnsOfTheEnd) {
  const SocketFolder folder;
  auto listener = sys::listen_seqpacket(folder.node());
  const auto channel = connect(folder.node());
  UniqueFd accepted(accept4(listener->get(), nullptr, nullptr, SOCK_CLOEXEC));
  ASSERT_TRUE(accepted.valid());
  std::atomic<int> failed = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 6; ++i) {
    threads.emplace_back([&] {
      // Six of these are more than the 212 992 bytes of a socket.
      const std::string text(60000, 'x');
      if (ask(*channel, text).size.error().code == Errc::no_device) ++failed;
    });
  }
  // Three fill the socket: the other three wait for room, or are about to.
  int queued = 0;
  while (queued < 3 * 60000) {
    ASSERT_EQ(0, ioctl(accepted.get(), FIONREAD, &queued));
    std::this_thread::yield();
  }
  accepted.reset();
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(6, failed);
}

}  // namespace
}  // namespace accelmm::test
