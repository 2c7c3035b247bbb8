// SPDX-License-Identifier: Apache-2.0
#include "loop/uring_connection.hpp"

#include "unit/loop/loop_fixture.hpp"

#include <array>
#include <thread>

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>

namespace accelmm::test {
namespace {

// A client without manners: a plain socket.
UniqueFd raw_client(const Server& server) {
  auto socket = sys::connect_seqpacket(server.node());
  EXPECT_TRUE(socket);
  return std::move(*socket);
}

// Waits until the server hung up on a client that reads nothing else. False: a packet came.
bool hung_up_on(FdView client) {
  std::array<std::byte, 64> bytes;
  const auto packet = sys::receive_packet(client, bytes, 0);
  return packet ? packet->size == 0 : std::to_underlying(packet.error().code) == ECONNRESET;
}

// A test that the other clients go on and that nothing is left open.
class UringConnectionTest : public testing::Test {
 protected:
  void SetUp() override {
    {
      const Server warm;
    }
    before_ = open_fds();
    server_ = std::make_unique<Server>();
    witness_ = connect(server_->node());
    ASSERT_EQ("before", ask(*witness_, "before").text);
  }
  void TearDown() override {
    EXPECT_EQ("after", ask(*witness_, "after").text);
    witness_.reset();
    server_->await_sessions(0);
    server_.reset();
    EXPECT_EQ(before_, open_fds());
  }

  std::unique_ptr<Server> server_;
  std::unique_ptr<Channel> witness_;

 private:
  std::set<int> before_;
};

TEST_F(UringConnectionTest, KnowsItsPeer) {
  Peer peer = {};
  server_->loop.run([&] { peer = server_->sessions.front()->connection->peer(); });
  EXPECT_EQ(getpid(), peer.pid);
  EXPECT_EQ(geteuid(), peer.uid);
  EXPECT_EQ(getegid(), peer.gid);
}

TEST_F(UringConnectionTest, ServesManyClientsAtOnce) {
  constexpr int clients = 200;
  std::vector<std::unique_ptr<Channel>> channels;
  for (int i = 0; i < clients; ++i) channels.push_back(connect(server_->node()));
  for (int round = 0; round < 3; ++round)
    for (const auto& channel : channels) ASSERT_EQ("hello", ask(*channel, "hello").text);
  // More than fit into one submission to the kernel end at the same time.
  channels.clear();
  server_->await_sessions(1);
}

TEST_F(UringConnectionTest, MoreConnectionsThanOneSubmissionHolds) {
  std::vector<UniqueFd> clients;
  for (int i = 0; i < 600; ++i) clients.push_back(raw_client(*server_));
  server_->await_sessions(601);
  // All of them in one turn of the loop: 600 packets, then 600 ends.
  server_->loop.stop();
  for (const auto& client : clients) ASSERT_TRUE(sys::send_packet(client.view(), message("x"), {}));
  server_->loop.start();
  std::array<std::byte, 64> bytes;
  for (const auto& client : clients) ASSERT_TRUE(sys::receive_packet(client.view(), bytes, 0));
  server_->loop.stop();
  clients.clear();
  server_->loop.start();
  server_->await_sessions(1);
}

TEST_F(UringConnectionTest, AnEmptyPacketEndsTheConnection) {
  const UniqueFd client = raw_client(*server_);
  EXPECT_EQ(0, ::send(client.get(), "", 0, MSG_NOSIGNAL));
  EXPECT_TRUE(hung_up_on(client.view()));
}

TEST_F(UringConnectionTest, APacketThatIsTooLargeEndsTheConnection) {
  const UniqueFd client = raw_client(*server_);
  const std::vector<std::byte> large(ACCELMM_MAX_MESSAGE + 1);
  EXPECT_TRUE(sys::send_packet(client.view(), large, {}));
  EXPECT_TRUE(hung_up_on(client.view()));
}

// Leaves this process room for so many more descriptors while it lives.
class Room {
 public:
  explicit Room(rlim_t more) {
    EXPECT_EQ(0, ::getrlimit(RLIMIT_NOFILE, &before_));
    std::vector<UniqueFd> filling;  // numbers below those in use
    int next = 0;
    for (rlim_t i = 0; i <= more; ++i) {
      filling.emplace_back(::dup(0));
      next = filling.back().get();
    }
    const rlimit less{static_cast<rlim_t>(next), before_.rlim_max};
    EXPECT_EQ(0, ::setrlimit(RLIMIT_NOFILE, &less));
  }
  Room(const Room&) = delete;
  Room& operator=(const Room&) = delete;
  ~Room() { EXPECT_EQ(0, ::setrlimit(RLIMIT_NOFILE, &before_)); }

 private:
  rlimit before_{};
};

TEST_F(UringConnectionTest, DescriptorsWithoutRoomCostOneCallAndNotTheConnection) {
  const UniqueFd client = raw_client(*server_);
  server_->await_sessions(2);
  const auto before = open_fds();
  const std::vector<FdView> fds(3, FdView(0));
  std::array<std::byte, 64> bytes;
  for (rlim_t more = 0; more < fds.size(); ++more) {
    const Room room(more);
    ASSERT_TRUE(sys::send_packet(client.view(), message("x", fds.size()), fds));
    const auto answer = sys::receive_packet(client.view(), bytes, 0);
    ASSERT_TRUE(answer.has_value()) << more << ": " << answer.error().what;
  }
  server_->await([&] { return server_->sessions.back()->lost == 3; });
  EXPECT_EQ(before, open_fds()) << "what came of them was not closed";
  ASSERT_TRUE(sys::send_packet(client.view(), message("x", fds.size()), fds));
  const auto answer = sys::receive_packet(client.view(), bytes, fds.size());
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(fds.size(), answer->fds.size());
}

TEST_F(UringConnectionTest, TooManyDescriptorsEndTheConnectionAndAreClosed) {
  for (const std::size_t count : {9UZ, 10UZ, 253UZ}) {
    const UniqueFd client = raw_client(*server_);
    const std::vector<FdView> fds(count, FdView(0));
    EXPECT_TRUE(sys::send_packet(client.view(), message("x", count), fds));
    EXPECT_TRUE(hung_up_on(client.view()));
  }
}

TEST_F(UringConnectionTest, DescriptorsOfMessagesThatNobodyReadAreClosed) {
  server_->loop.run([this] {
    server_->on_message = [](Server::Session& session, auto bytes, auto fds) {
      if (payload(bytes) == "die") return session.owner.drop(session);
      Server::echo(session, bytes, std::move(fds));
    };
  });
  const UniqueFd client = raw_client(*server_);
  const std::vector<FdView> fds(ACCELMM_MAX_FDS, FdView(0));
  EXPECT_TRUE(sys::send_packet(client.view(), message("die", fds.size()), fds));
  for (int i = 0; i < 10; ++i)
    static_cast<void>(sys::send_packet(client.view(), message("late", fds.size()), fds));
  EXPECT_TRUE(hung_up_on(client.view()));
}

TEST_F(UringConnectionTest, APeerThatNeverReadsIsHungUpOn) {
  const UniqueFd client = raw_client(*server_);
  // Each of its packets is answered with as many bytes; it sends until it is cut off.
  const auto flood = message(std::string(60000, 'x'));
  bool cut = false;
  for (int i = 0; i < 10000 && !cut; ++i) {
    const auto sent = sys::send_packet(client.view(), flood, {});
    cut = !sent;
    if (cut) {
      // The latter when it was waiting for room.
      const int error = std::to_underlying(sent.error().code);
      EXPECT_TRUE(error == EPIPE || error == ECONNRESET) << error;
    }
    if (i % 8 == 0) {
      EXPECT_EQ("meanwhile", ask(*witness_, "meanwhile").text);
    }
  }
  EXPECT_TRUE(cut);
  server_->await_sessions(1);
}

TEST_F(UringConnectionTest, WhatASlowPeerHasNotReadYetArrivesInOrder) {
  // Fewer than the outbox holds, more than the socket holds.
  constexpr int packets = 20;
  server_->loop.run([this] {
    server_->on_message = [](Server::Session& session, auto bytes, auto fds) {
      if (payload(bytes) != "many") return Server::echo(session, bytes, std::move(fds));
      for (int i = 0; i < packets; ++i) {
        const auto packet = message(std::to_string(i) + std::string(40000, ' '), 2);
        const std::array two = {FdView(0), FdView(1)};
        session.connection->send(packet, two);
      }
    };
  });
  const UniqueFd client = raw_client(*server_);
  EXPECT_TRUE(sys::send_packet(client.view(), message("many"), {}));
  EXPECT_EQ("served", ask(*witness_, "served").text);
  std::vector<std::byte> bytes(ACCELMM_MAX_MESSAGE);
  for (int i = 0; i < packets; ++i) {
    const auto packet = sys::receive_packet(client.view(), bytes, ACCELMM_MAX_FDS);
    ASSERT_TRUE(packet);
    EXPECT_EQ(2U, packet->fds.size());
    EXPECT_EQ(i, std::stoi(payload(std::span(bytes).first(packet->size))));
  }
}

TEST_F(UringConnectionTest, TheOutboxIsBoundedInPackets) {
  server_->loop.run([this] {
    server_->on_message = [](Server::Session& session, auto bytes, auto fds) {
      if (payload(bytes) != "many") return Server::echo(session, bytes, std::move(fds));
      // 278 of these fit the socket, 64 the outbox.
      for (int i = 0; i < 1000; ++i) session.connection->send(message("small"), {});
    };
  });
  const UniqueFd client = raw_client(*server_);
  EXPECT_TRUE(sys::send_packet(client.view(), message("many"), {}));
  server_->await_sessions(1);
}

TEST_F(UringConnectionTest, SendingToAPeerThatIsGoneEndsLaterAndNotWithinTheSend) {
  const UniqueFd first = raw_client(*server_);
  server_->await_sessions(2);
  bool alive_after_send = false;
  server_->loop.run([&] {
    // The loop cannot have noticed: it is here.
    Server::Session& session = *server_->sessions.back();
    ASSERT_EQ(0, shutdown(first.get(), SHUT_RDWR));
    session.connection->send(message("into the void"), {});
    session.connection->send(message("again"), {});
    alive_after_send = server_->sessions.size() == 2;
  });
  EXPECT_TRUE(alive_after_send);
  server_->await_sessions(1);
  EXPECT_EQ(1, server_->ended);
}

TEST_F(UringConnectionTest, TellsWhetherThePeerIsGoneBeforeTheLoopNoticed) {
  UniqueFd client = raw_client(*server_);
  server_->await_sessions(2);
  server_->loop.run([&] {
    const Connection& connection = *server_->sessions.back()->connection;
    EXPECT_FALSE(connection.hung_up());
    client.reset();
    EXPECT_TRUE(connection.hung_up());
  });
  server_->await_sessions(1);
}

TEST_F(UringConnectionTest, APausedConnectionReadsNothingUntilItIsResumed) {
  const UniqueFd client = raw_client(*server_);
  server_->await_sessions(2);
  server_->loop.run([this] { server_->sessions.back()->connection->pause(); });
  // The peer's sends block when the socket is full.
  int queued = 0;
  while (sys::send_packet(client.view(), message(std::string(10000, 'x')), {}, MSG_DONTWAIT))
    ++queued;
  EXPECT_GT(queued, 10);
  EXPECT_EQ("others go on", ask(*witness_, "others go on").text);
  server_->loop.run([this] {
    EXPECT_EQ(0, server_->sessions.back()->messages);
    server_->sessions.back()->connection->resume();
  });
  server_->await([&] { return server_->sessions.back()->messages == queued; });
}

TEST_F(UringConnectionTest, PausingWithinAMessageStopsTheNext) {
  server_->loop.run([this] {
    server_->on_message = [](Server::Session& session, auto bytes, auto fds) {
      if (payload(bytes) == "pause") session.connection->pause();
      Server::echo(session, bytes, std::move(fds));
    };
  });
  const UniqueFd client = raw_client(*server_);
  EXPECT_TRUE(sys::send_packet(client.view(), message("pause"), {}));
  EXPECT_TRUE(sys::send_packet(client.view(), message("pause"), {}));
  for (int expected = 1; expected <= 2; ++expected) {
    server_->await([&] {
      return server_->sessions.size() == 2 && server_->sessions.back()->messages == expected;
    });
    EXPECT_EQ("turn", ask(*witness_, "turn").text);
    server_->loop.run([&] {
      EXPECT_EQ(expected, server_->sessions.back()->messages);
      server_->sessions.back()->connection->resume();
    });
  }
}

TEST_F(UringConnectionTest, PausingAndResumingAtOnceLosesNothing) {
  server_->loop.run([this] {
    server_->on_message = [](Server::Session& session, auto bytes, auto fds) {
      session.connection->pause();
      session.connection->resume();
      session.connection->pause();
      session.connection->resume();
      Server::echo(session, bytes, std::move(fds));
    };
  });
  for (int i = 0; i < 100; ++i) {
    server_->loop.run([this] {
      Connection& connection = *server_->sessions.front()->connection;
      connection.pause();
      connection.resume();
    });
    EXPECT_EQ("once", ask(*witness_, "once").text);
  }
  int messages = 0;
  server_->loop.run([&] { messages = server_->sessions.front()->messages; });
  EXPECT_EQ(101, messages);
}

TEST_F(UringConnectionTest, TheEndIsNoticedWhilePaused) {
  UniqueFd client = raw_client(*server_);
  server_->await_sessions(2);
  server_->loop.run([this] { server_->sessions.back()->connection->pause(); });
  // With packets that were never read, and with one that was received when the pause began.
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(sys::send_packet(client.view(), message("unread"), {}));
  EXPECT_EQ("turn", ask(*witness_, "turn").text);
  client.reset();
  server_->await_sessions(1);
}

TEST_F(UringConnectionTest, TheEndIsNoticedInASecondPause) {
  UniqueFd client = raw_client(*server_);
  server_->await_sessions(2);
  server_->loop.run([this] { server_->sessions.back()->connection->pause(); });
  EXPECT_TRUE(sys::send_packet(client.view(), message("held"), {}));
  EXPECT_EQ("turn", ask(*witness_, "turn").text);
  server_->loop.run([this] { server_->sessions.back()->connection->resume(); });
  server_->await([this] { return server_->sessions.back()->messages == 1; });
  server_->loop.run([this] { server_->sessions.back()->connection->pause(); });
  client.reset();
  server_->await_sessions(1);
}

TEST_F(UringConnectionTest, AHandlerMayDestroyItsOwnConnection) {
  server_->loop.run([this] {
    server_->on_message = [](Server::Session& session, auto bytes, auto fds) {
      if (payload(bytes) == "die") return session.owner.drop(session);
      Server::echo(session, bytes, std::move(fds));
    };
  });
  for (int i = 0; i < 20; ++i) {
    const auto channel = connect(server_->node());
    EXPECT_EQ(Errc::no_device, ask(*channel, "die").size.error().code);
  }
}

TEST_F(UringConnectionTest, AHandlerMayDestroyAllOtherConnections) {
  server_->loop.run([this] {
    server_->on_message = [](Server::Session& session, auto bytes, auto fds) {
      if (payload(bytes) == "alone") {
        session.owner.sessions.remove_if(
            [&](const auto& other) { return other.get() != &session; });
      }
      Server::echo(session, bytes, std::move(fds));
    };
  });
  std::vector<UniqueFd> clients;
  for (int i = 0; i < 50; ++i) clients.push_back(raw_client(*server_));
  server_->await_sessions(51);
  // All have sent when the loop starts again, so that their packets are ready when they are
  // destroyed.
  server_->loop.stop();
  const auto request = message("alone");
  for (const auto& client : clients) ASSERT_TRUE(sys::send_packet(client.view(), request, {}));
  server_->loop.start();
  server_->await_sessions(1);
  // Whichever was served first destroyed the witness as well.
  clients.clear();
  server_->await_sessions(0);
  witness_ = connect(server_->node());
}

TEST_F(UringConnectionTest, AnAcceptMayRefuse) {
  server_->loop.run([this] { server_->refusing = true; });
  for (int i = 0; i < 10; ++i) {
    const UniqueFd client = raw_client(*server_);
    EXPECT_TRUE(hung_up_on(client.view()));
  }
  server_->loop.run([this] { server_->refusing = false; });
}

}  // namespace
}  // namespace accelmm::test
