// SPDX-License-Identifier: Apache-2.0
#include "unit/loop/loop_fixture.hpp"

#include <array>
#include <thread>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

namespace accelmm::test {
namespace {

// Runs `function` in a forked child; returns its exit status.
template <class Function>
int status_of_child(Function function) {
  const pid_t child = fork();
  if (child == 0) _exit(function());
  int status = 0;
  EXPECT_EQ(child, waitpid(child, &status, 0));
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// A process that serves a node until it is killed.
class ServerProcess {
 public:
  explicit ServerProcess(Server::OnMessage function = Server::echo) {
    auto ready = sys::pipe();
    EXPECT_TRUE(ready);
    pid_ = fork();
    if (pid_ == 0) {
      const Server server(std::move(function));
      const std::string node = server.node();
      static_cast<void>(write(ready->writer.get(), node.data(), node.size()));
      while (true) ::pause();
    }
    std::array<char, 200> node = {};
    EXPECT_TRUE(sys::poll_one(ready->reader.view(), POLLIN, -1));
    EXPECT_GT(read(ready->reader.get(), node.data(), node.size() - 1), 0);
    node_ = node.data();
  }
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;
  ~ServerProcess() {
    if (pid_ > 0) kill();
    static_cast<void>(unlink(node_.c_str()));
    static_cast<void>(rmdir(node_.substr(0, node_.rfind('/')).c_str()));
  }
  void kill() {
    ::kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }
  [[nodiscard]] const std::string& node() const { return node_; }

 private:
  pid_t pid_ = 0;
  std::string node_;
};

TEST(KilledServer, EveryWaitingCallIsNoDevice) {
  // Never answers "wait".
  ServerProcess server([](Server::Session& session, auto bytes, auto fds) {
    if (payload(bytes) != "wait") Server::echo(session, bytes, std::move(fds));
  });
  const auto channel = connect(server.node());
  EXPECT_EQ("hello", ask(*channel, "hello").text);
  std::atomic<int> waiting = 0;
  std::atomic<int> gone = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      ++waiting;
      if (ask(*channel, "wait").size.error().code == Errc::no_device) ++gone;
    });
  }
  while (waiting < 4) std::this_thread::yield();
  // Served as long as it lives, while the others wait.
  for (int i = 0; i < 50; ++i) EXPECT_EQ("hello", ask(*channel, "hello").text);
  server.kill();
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(4, gone);
  EXPECT_EQ(Errc::no_device, ask(*channel, "hello").size.error().code);
}

TEST(KilledServer, ClientsThatLeaveAreForgottenByAServerThatLives) {
  Server server;
  const auto channel = connect(server.node());
  EXPECT_EQ("hello", ask(*channel, "hello").text);
  for (int i = 0; i < 10; ++i) {
    const pid_t client = fork();
    if (client == 0) {
      const auto own = connect(server.node());
      static_cast<void>(ask(*own, "hello"));
      while (true) ::pause();
    }
    server.await_sessions(2);
    ::kill(client, SIGKILL);
    waitpid(client, nullptr, 0);
    server.await_sessions(1);
  }
  EXPECT_EQ("still here", ask(*channel, "still here").text);
}

TEST(Fork, TheChildsCallsAreNoDeviceAndTheParentGoesOn) {
  Server server;
  const auto channel = connect(server.node());
  EXPECT_EQ("parent", ask(*channel, "parent").text);
  const auto fds = open_fds();
  EXPECT_EQ(0, status_of_child([&] {
              const Answer answer = ask(*channel, "child");
              if (answer.size || answer.size.error().code != Errc::no_device) return 1;
              // The socket, the listener, the server's end and its ring are not there.
              return fds.size() - open_fds().size() == 4 ? 0 : 2;
            }));
  EXPECT_EQ("parent again", ask(*channel, "parent again").text);
}

TEST(Fork, TheChildMayDestroyWhatItInheritedAndConnectItself) {
  const ServerProcess server;
  auto channel = connect(server.node());
  EXPECT_EQ("parent", ask(*channel, "parent").text);
  EXPECT_EQ(0, status_of_child([&] {
              channel.reset();
              const auto own = connect(server.node());
              if (ask(*own, "child").text != "child") return 1;
              // And so may the grandchild.
              return status_of_child([&] {
                if (ask(*own, "grandchild").size.error().code != Errc::no_device) return 2;
                return ask(*connect(server.node()), "own").text == "own" ? 0 : 3;
              });
            }));
  EXPECT_EQ("parent again", ask(*channel, "parent again").text);
}

TEST(Fork, AChildForkedWhileOtherThreadsCallHasNoDevice) {
  const ServerProcess server;
  const auto channel = connect(server.node());
  std::atomic<bool> stop = false;
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&] {
      while (!stop) EXPECT_EQ("on", ask(*channel, "on").text);
    });
  }
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(0, status_of_child([&] {
                auto request = message("child");
                std::array<std::byte, 64> reply;
                std::vector<UniqueFd> none;
                const auto size = channel->call(request, {}, reply, none);
                return !size && size.error().code == Errc::no_device ? 0 : 1;
              }));
  }
  stop = true;
  for (auto& thread : threads) thread.join();
}

TEST(Fork, TheSessionEndsWithTheParentEvenIfTheChildLives) {
  Server server;
  auto left = sys::pipe();
  const pid_t parent = fork();
  if (parent == 0) {
    const auto channel = connect(server.node());
    static_cast<void>(ask(*channel, "hello"));
    const pid_t child = fork();
    if (child == 0) {
      while (true) ::pause();
    }
    static_cast<void>(write(left->writer.get(), &child, sizeof(child)));
    while (true) ::pause();
  }
  pid_t child = 0;
  ASSERT_TRUE(sys::poll_one(left->reader.view(), POLLIN, -1));
  ASSERT_EQ(ssize_t{sizeof(child)}, read(left->reader.get(), &child, sizeof(child)));
  server.await_sessions(1);
  ::kill(parent, SIGKILL);
  waitpid(parent, nullptr, 0);
  server.await_sessions(0);
  EXPECT_EQ(0, ::kill(child, 0));
  ::kill(child, SIGKILL);
}

TEST(Fork, ClientsLearnOfAServersDeathEvenIfItsChildLives) {
  auto left = sys::pipe();
  const pid_t server = fork();
  if (server == 0) {
    const Server served;
    const pid_t child = fork();
    if (child == 0) {
      while (true) ::pause();
    }
    const std::string text = std::to_string(child) + " " + served.node();
    static_cast<void>(write(left->writer.get(), text.data(), text.size()));
    while (true) ::pause();
  }
  std::array<char, 200> text = {};
  ASSERT_TRUE(sys::poll_one(left->reader.view(), POLLIN, -1));
  ASSERT_GT(read(left->reader.get(), text.data(), text.size() - 1), 0);
  const std::string line = text.data();
  const std::string node = line.substr(line.find(' ') + 1);
  const auto channel = connect(node);
  EXPECT_EQ("hello", ask(*channel, "hello").text);
  ::kill(server, SIGKILL);
  waitpid(server, nullptr, 0);
  EXPECT_EQ(Errc::no_device, ask(*channel, "hello").size.error().code);
  // The kernel closes the listening socket a moment later; nobody is served by it.
  if (const auto late = SocketChannel::connect(node)) {
    EXPECT_EQ(Errc::no_device, ask(**late, "hello").size.error().code);
  } else {
    EXPECT_EQ(Errc::no_device, late.error().code);
  }
  ::kill(std::stoi(line), SIGKILL);
  static_cast<void>(unlink(node.c_str()));
  static_cast<void>(rmdir(node.substr(0, node.rfind('/')).c_str()));
}

TEST(Fork, ALoopThatForksGoesOnAndItsChildsLoopEnds) {
  auto transport = create_transport();
  ASSERT_TRUE(transport);
  pid_t child = -1;
  (*transport)->post([&] {
    child = fork();
    if (child != 0) (*transport)->post([&] { (*transport)->stop(); });
  });
  const auto ran = (*transport)->run();
  if (child == 0) {
    transport->reset();
    _exit(!ran && ran.error().code == Errc::no_device ? 0 : 1);
  }
  EXPECT_TRUE(ran);
  int status = 0;
  EXPECT_EQ(child, waitpid(child, &status, 0));
  EXPECT_EQ(0, status);
}

}  // namespace
}  // namespace accelmm::test
