// SPDX-License-Identifier: Apache-2.0
#include "loop/uring_listener.hpp"

#include "unit/loop/loop_fixture.hpp"

#include <array>

#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

// Takes every descriptor below the limit but `spare` ones.
class FullTable {
 public:
  FullTable(const Server& server, std::size_t spare)
      : limit_(static_cast<rlim_t>(*open_fds().rbegin() + 1 + 50)) {
    // An accept that is already under way goes by the limit of its beginning: use it up, and wait
    // until the server has closed its end, which would be one descriptor more than `spare`.
    const std::size_t before = open_fds().size();
    EXPECT_EQ("x", ask(*connect(server.node()), "x").text);
    while (open_fds().size() != before) std::this_thread::yield();
    while (true) {
      UniqueFd fd(dup(0));
      if (!fd.valid()) break;
      fill_.push_back(std::move(fd));
    }
    free(spare);
  }
  void free(std::size_t count) { fill_.resize(fill_.size() - count); }

 private:
  FileLimit limit_;
  std::vector<UniqueFd> fill_;
};

// The end, rather than a packet.
bool hung_up_on(FdView client) {
  std::array<std::byte, 64> bytes;
  const auto packet = sys::receive_packet(client, bytes, 0);
  return packet ? packet->size == 0 : std::to_underlying(packet.error().code) == ECONNRESET;
}

TEST(UringListener, AtTheLimitOfOpenFilesClientsAreTurnedAwayAndLaterServed) {
  Server server;
  const auto witness = connect(server.node());
  EXPECT_EQ("before", ask(*witness, "before").text);
  {
    // Each client needs a descriptor of its own in this process, and the server one more.
    constexpr std::size_t clients = 20;
    FullTable table(server, 1);
    for (std::size_t i = 0; i < clients; ++i) {
      const auto client = sys::connect_seqpacket(server.node());
      ASSERT_TRUE(client);
      EXPECT_TRUE(hung_up_on(client->view()));
      EXPECT_EQ("meanwhile", ask(*witness, "meanwhile").text);
    }
    // With room again, the next is served.
    table.free(4);
    const auto client = sys::connect_seqpacket(server.node());
    ASSERT_TRUE(client);
    EXPECT_TRUE(sys::send_packet(client->view(), message("hello"), {}));
    std::array<std::byte, 64> bytes;
    const auto packet = sys::receive_packet(client->view(), bytes, 0);
    EXPECT_TRUE(packet && packet->size == message("hello").size());
  }
  EXPECT_EQ("after", ask(*connect(server.node()), "after").text);
}

TEST(UringListener, AFloodAtTheLimitLeavesNobodyWaiting) {
  Server server;
  const auto witness = connect(server.node());
  EXPECT_EQ("before", ask(*witness, "before").text);
  std::vector<UniqueFd> clients;
  {
    FullTable table(server, 30);
    while (true) {
      auto client = sys::connect_seqpacket(server.node());
      if (!client) break;
      clients.push_back(std::move(*client));
    }
    EXPECT_GE(clients.size(), 10U);
    table.free(4);
    EXPECT_EQ("meanwhile", ask(*witness, "meanwhile").text);
  }
  // Every one was either served or turned away.
  for (const UniqueFd& client : clients) {
    std::array<std::byte, 64> bytes;
    static_cast<void>(sys::send_packet(client.view(), message("hello"), {}));
    const auto packet = sys::receive_packet(client.view(), bytes, 0);
    EXPECT_TRUE(packet || std::to_underlying(packet.error().code) == ECONNRESET);
  }
  EXPECT_EQ("after", ask(*connect(server.node()), "after").text);
}

TEST(UringListener, AnAcceptMayDestroyItsListener) {
  const SocketFolder folder;
  LoopThread loop;
  std::unique_ptr<Transport::Listener> listener;
  int accepted = 0;
  loop.run([&] {
    auto made = loop.transport().listen(std::move(*sys::listen_seqpacket(folder.node())),
                                        [&](std::unique_ptr<Connection>) {
                                          listener.reset();
                                          ++accepted;
                                          return nullptr;
                                        });
    ASSERT_TRUE(made);
    listener = std::move(*made);
  });
  const auto first = sys::connect_seqpacket(folder.node());
  EXPECT_TRUE(hung_up_on(first->view()));
  loop.run([&] { EXPECT_EQ(1, accepted); });
  EXPECT_EQ(Errc::no_device, SocketChannel::connect(folder.node()).error().code);
}

TEST(UringListener, MayBeMadeBeforeTheLoopRunsAndDestroyedAfterIt) {
  const SocketFolder folder;
  auto transport = create_transport();
  auto listener = (*transport)
                      ->listen(std::move(*sys::listen_seqpacket(folder.node())),
                               [&](std::unique_ptr<Connection>) {
                                 (*transport)->stop();
                                 return nullptr;
                               });
  ASSERT_TRUE(listener);
  const auto client = sys::connect_seqpacket(folder.node());
  EXPECT_TRUE((*transport)->run());
  EXPECT_TRUE(hung_up_on(client->view()));
  listener->reset();
  EXPECT_EQ(Errc::no_device, SocketChannel::connect(folder.node()).error().code);
}

TEST(UringListener, TwoNodesAreServedByOneLoop) {
  Server server;
  const SocketFolder folder;
  std::unique_ptr<Transport::Listener> listener;
  int accepted = 0;
  server.loop.run([&] {
    auto made =
        server.loop.transport().listen(std::move(*sys::listen_seqpacket(folder.node())),
                                       [&](std::unique_ptr<Connection>) -> ConnectionEvents* {
                                         ++accepted;
                                         return nullptr;
                                       });
    listener = std::move(*made);
  });
  const auto second = sys::connect_seqpacket(folder.node());
  EXPECT_EQ("one", ask(*connect(server.node()), "one").text);
  EXPECT_TRUE(hung_up_on(second->view()));
  server.loop.run([&] {
    EXPECT_EQ(1, accepted);
    listener.reset();
  });
}

}  // namespace
}  // namespace accelmm::test
