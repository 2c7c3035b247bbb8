// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/clock.hpp"
#include "base/peer.hpp"

#include <accelmm/transport.hpp>
#include <accelmm/uapi.h>

#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

namespace accelmm::test {

/// A transport without sockets or a thread: what is posted runs in drain(), in the thread that made
/// it.
class InlineTransport final : public Transport {
 public:
  Result<std::unique_ptr<Listener>> listen(UniqueFd, Accept) override {
    return fail(Errc::not_supported, "this transport has no nodes");
  }
  void post(Function function) override {
    const std::lock_guard lock(mutex_);
    posted_.push_back(std::move(function));
  }
  TimerId call_at(std::uint64_t deadline_ns, Function function) override {
    timers_.emplace(++last_timer_, Timer{deadline_ns, std::move(function)});
    return last_timer_;
  }
  void cancel_timer(TimerId timer) override { timers_.erase(timer); }
  Result<void> run() override { return fail(Errc::not_supported, "use drain()"); }
  void stop() override {}
  [[nodiscard]] bool in_loop() const override { return std::this_thread::get_id() == owner_; }

  /// Runs what was posted, and what that posts, and the timers that are due.
  void drain() {
    while (auto next = take()) (*next)();
    const std::uint64_t now = monotonic_ns();
    for (auto timer = timers_.begin(); timer != timers_.end(); timer = timers_.begin()) {
      while (timer != timers_.end() && timer->second.deadline_ns > now) ++timer;
      if (timer == timers_.end()) return;
      auto function = std::move(timer->second.function);
      timers_.erase(timer);
      function();
      while (auto next = take()) (*next)();
    }
  }
  [[nodiscard]] std::size_t timers() const { return timers_.size(); }

 private:
  struct Timer {
    std::uint64_t deadline_ns;
    Function function;
  };
  std::optional<Function> take() {
    const std::lock_guard lock(mutex_);
    if (posted_.empty()) return std::nullopt;
    std::optional<Function> next(std::move(posted_.front()));
    posted_.pop_front();
    return next;
  }

  std::thread::id owner_ = std::this_thread::get_id();
  std::mutex mutex_;
  std::deque<Function> posted_;
  std::map<TimerId, Timer> timers_;
  TimerId last_timer_ = 0;
};

/// The driver's end of a connection that keeps what is sent on it.
class KeptConnection final : public Connection {
 public:
  struct Packet {
    accelmm_message_header header;
    std::vector<std::byte> payload;
    std::vector<UniqueFd> fds;
  };
  /// Shared with the test: the connection itself belongs to the port.
  struct Log {
    std::deque<Packet> sent;
    bool open = true;
    bool paused = false;
    Peer peer = own_peer();
  };
  explicit KeptConnection(std::shared_ptr<Log> log) : log_(std::move(log)) {}
  ~KeptConnection() override { log_->open = false; }

  void send(std::span<const std::byte> bytes, std::span<const FdView> fds) override {
    Packet packet{};
    std::memcpy(&packet.header, bytes.data(), sizeof packet.header);
    const auto payload = bytes.subspan(sizeof packet.header);
    packet.payload.assign(payload.begin(), payload.end());
    for (const FdView fd : fds)
      if (auto copy = duplicate(fd)) packet.fds.push_back(std::move(*copy));
    log_->sent.push_back(std::move(packet));
  }
  void pause() override { log_->paused = true; }
  void resume() override { log_->paused = false; }
  [[nodiscard]] Peer peer() const override { return log_->peer; }
  [[nodiscard]] bool hung_up() const override { return false; }

 private:
  std::shared_ptr<Log> log_;
};

}  // namespace accelmm::test
