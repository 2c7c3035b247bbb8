// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/fork_guard.hpp"
#include "base/socket_channel.hpp"
#include "base/system.hpp"
#include "loop/loop.hpp"

#include <accelmm/fd.hpp>
#include <accelmm/transport.hpp>
#include <accelmm/uapi.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <future>
#include <list>
#include <memory>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <dirent.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

/// What the tests of the loop and of the channel share: a server around a real loop, and messages
/// for it.
namespace accelmm::test {

/// A folder for sockets, removed with what is in it.
class SocketFolder {
 public:
  SocketFolder() {
    const char* base = std::getenv("TMPDIR");
    path_ = std::string(base != nullptr ? base : "/tmp") + "/accelmm-loop-XXXXXX";
    EXPECT_NE(nullptr, mkdtemp(path_.data()));
  }
  SocketFolder(const SocketFolder&) = delete;
  SocketFolder& operator=(const SocketFolder&) = delete;
  ~SocketFolder() {
    static_cast<void>(unlink(node().c_str()));
    static_cast<void>(rmdir(path_.c_str()));
  }
  [[nodiscard]] std::string node() const { return path_ + "/node"; }

 private:
  std::string path_;
};

/// The open descriptors of this process, by number.
inline std::set<int> open_fds() {
  std::set<int> fds;
  DIR* const directory = opendir("/proc/self/fd");
  if (directory == nullptr) return fds;
  while (const dirent* entry = readdir(directory)) {
    const int fd = std::atoi(entry->d_name);
    if (entry->d_name[0] != '.' && fd != dirfd(directory)) fds.insert(fd);
  }
  closedir(directory);
  return fds;
}

/// A message with a payload, as it goes over the socket.
inline std::vector<std::byte> message(std::string_view payload, std::size_t fd_count = 0) {
  accelmm_message_header header = {};
  header.magic = ACCELMM_MAGIC;
  header.kind = ACCELMM_MESSAGE_IOCTL;
  header.fd_count = static_cast<__u16>(fd_count);
  header.size = static_cast<__u32>(payload.size());
  std::vector<std::byte> bytes(sizeof(header) + payload.size());
  std::memcpy(bytes.data(), &header, sizeof(header));
  std::memcpy(bytes.data() + sizeof(header), payload.data(), payload.size());
  return bytes;
}

inline std::string payload(std::span<const std::byte> bytes) {
  if (bytes.size() < sizeof(accelmm_message_header)) return "(no header)";
  const auto body = bytes.subspan(sizeof(accelmm_message_header));
  std::string text(body.size(), '\0');
  std::memcpy(text.data(), body.data(), body.size());
  return text;
}

inline std::vector<FdView> views(const std::vector<UniqueFd>& fds) {
  std::vector<FdView> borrowed;
  for (const UniqueFd& fd : fds) borrowed.push_back(fd.view());
  return borrowed;
}

/// A loop and the thread that runs it.
class LoopThread {
 public:
  explicit LoopThread(std::uint64_t busy_poll_ns = 0) {
    auto made = create_transport(busy_poll_ns);
    if (!made) throw std::runtime_error(made.error().what);
    transport_ = std::move(*made);
    start();
  }
  LoopThread(const LoopThread&) = delete;
  LoopThread& operator=(const LoopThread&) = delete;
  ~LoopThread() {
    if (thread_.joinable()) stop();
  }
  void start() {
    thread_ = std::thread([this] {
      const auto ran = transport_->run();
      EXPECT_TRUE(ran) << ran.error().what;
    });
  }
  void stop() {
    transport_->stop();
    thread_.join();
  }
  [[nodiscard]] Transport& transport() { return *transport_; }

  /// Runs `function` in the loop's thread and waits for it.
  void run(std::function<void()> function) {
    std::promise<void> done;
    transport_->post([&] {
      function();
      done.set_value();
    });
    done.get_future().wait();
  }

 private:
  std::unique_ptr<Transport> transport_;
  std::thread thread_;
};

/// A node that does with each message what the test says; echoes unless told otherwise.
class Server {
 public:
  struct Session final : ConnectionEvents {
    explicit Session(Server& server) : owner(server) {}
    void on_message(std::span<const std::byte> bytes, std::vector<UniqueFd> fds) override {
      ++messages;
      owner.on_message(*this, bytes, std::move(fds));
    }
    void on_lost_fds(std::span<const std::byte> bytes) override {
      ++lost;
      connection->send(bytes, {});
    }
    void on_end() override { owner.drop(*this); }

    Server& owner;
    std::unique_ptr<Connection> connection;
    int messages = 0;
    int lost = 0;  // messages whose descriptors there was no room for
  };
  using OnMessage =
      std::function<void(Session&, std::span<const std::byte>, std::vector<UniqueFd>)>;

  explicit Server(OnMessage function = echo, std::uint64_t busy_poll_ns = 0)
      : loop(busy_poll_ns), on_message(std::move(function)) {
    auto socket = sys::listen_seqpacket(folder_.node());
    EXPECT_TRUE(socket);
    loop.run([&] {
      auto listener = loop.transport().listen(
          std::move(*socket),
          [this](std::unique_ptr<Connection> connection) { return open(std::move(connection)); });
      EXPECT_TRUE(listener);
      listener_ = std::move(*listener);
    });
  }
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  ~Server() {
    loop.run([this] {
      sessions.clear();
      listener_.reset();
    });
  }

  static void echo(Session& session, std::span<const std::byte> bytes, std::vector<UniqueFd> fds) {
    session.connection->send(bytes, views(fds));
  }

  /// Ends a session, in the loop's thread.
  void drop(Session& session) {
    ++ended;
    sessions.remove_if([&](const auto& other) { return other.get() == &session; });
  }
  /// Waits until so many sessions are open.
  void await_sessions(std::size_t count) {
    await([this, count] { return sessions.size() == count; });
  }
  /// Waits until a condition, looked at in the loop's thread, holds.
  void await(const std::function<bool()>& condition) {
    bool holds = false;
    while (!holds) {
      loop.run([&] { holds = condition(); });
      if (!holds) std::this_thread::yield();
    }
  }
  [[nodiscard]] std::string node() const { return folder_.node(); }
  void close_listener() { listener_.reset(); }

 private:
  SocketFolder folder_;

 public:
  LoopThread loop;
  // In the loop's thread.
  OnMessage on_message;
  std::list<std::unique_ptr<Session>> sessions;
  bool refusing = false;  // destroy connections instead of taking them
  std::atomic<int> opened = 0;
  std::atomic<int> ended = 0;

 private:
  ConnectionEvents* open(std::unique_ptr<Connection> connection) {
    ++opened;
    if (refusing) return nullptr;
    sessions.push_back(std::make_unique<Session>(*this));
    sessions.back()->connection = std::move(connection);
    return sessions.back().get();
  }
  std::unique_ptr<Transport::Listener> listener_;
};

/// One call over a channel: the payload of the reply, or the name of what went wrong.
struct Answer {
  Result<std::size_t> size = std::size_t{0};
  std::string text;
  std::vector<UniqueFd> fds;
};
inline Answer ask(Channel& channel, std::string_view text, std::span<const FdView> fds = {}) {
  Answer answer;
  auto request = message(text, fds.size());
  std::vector<std::byte> reply(ACCELMM_MAX_MESSAGE);
  answer.size = channel.call(request, fds, reply, answer.fds);
  if (answer.size) answer.text = payload(std::span(reply).first(*answer.size));
  return answer;
}

inline std::unique_ptr<Channel> connect(const std::string& node) {
  auto channel = SocketChannel::connect(node);
  EXPECT_TRUE(channel) << channel.error().what;
  return channel ? std::move(*channel) : nullptr;
}

/// Lowers the limit of open files for a while.
class FileLimit {
 public:
  explicit FileLimit(rlim_t limit) {
    getrlimit(RLIMIT_NOFILE, &before_);
    const rlimit lowered{.rlim_cur = limit, .rlim_max = before_.rlim_max};
    EXPECT_EQ(0, setrlimit(RLIMIT_NOFILE, &lowered));
  }
  FileLimit(const FileLimit&) = delete;
  FileLimit& operator=(const FileLimit&) = delete;
  ~FileLimit() { setrlimit(RLIMIT_NOFILE, &before_); }

 private:
  rlimit before_ = {};
};

}  // namespace accelmm::test
