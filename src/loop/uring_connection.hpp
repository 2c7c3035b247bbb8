// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "loop/outbox.hpp"
#include "loop/ring.hpp"
#include "loop/socket_operations.hpp"

#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>
#include <accelmm/transport.hpp>

#include <cstddef>
#include <memory>
#include <span>

namespace accelmm {

/// One accepted socket of the io_uring loop.
///
/// Receives by completion; sends directly, and through the outbox when the socket is full.
/// Owns      its operations, which share the socket: destroying the connection hangs up when the
/// last of them, at the
///           end of the loop's turn, has been canceled.
/// Threads   the loop's thread.
/// Lifetime  ends before the loop's.
class UringConnection final : public Connection {
 public:
  /// Errors  no_memory. Any errno of asking for the peer's credentials. The socket is closed then.
  [[nodiscard]] static Result<std::unique_ptr<UringConnection>> create(Ring& ring, UniqueFd socket);
  ~UringConnection() override;
  UringConnection(const UringConnection&) = delete;
  UringConnection& operator=(const UringConnection&) = delete;

  /// Begins to receive. Once.
  void begin(ConnectionEvents& events);
  /// Sets `*watcher` to nullptr if this is destroyed before watch(nullptr) is called.
  void watch(UringConnection** watcher) { watcher_ = watcher; }

  void send(std::span<const std::byte> bytes, std::span<const FdView> fds) override;
  void pause() override;
  void resume() override;
  [[nodiscard]] Peer peer() const override { return peer_; }
  [[nodiscard]] bool hung_up() const override;

 private:
  friend class ReceiveOperation;
  friend class PollOperation;
  friend class EndOperation;

  UringConnection(Ring& ring, SharedSocket socket, Peer peer);

  void received(int result);
  void deliver(int result);
  void listen_on();
  void peer_left(int revents);
  void writable(int revents);
  void end();
  void end_later();

  Ring& ring_;
  SharedSocket socket_;
  Peer peer_;
  ConnectionEvents* events_ = nullptr;
  UringConnection** watcher_ = nullptr;
  Outbox outbox_;

  std::unique_ptr<ReceiveOperation> receive_;
  std::unique_ptr<PollOperation> hang_up_poll_;  // in flight from the first pause on
  std::unique_ptr<PollOperation> write_poll_;    // in flight while the outbox holds something
  std::unique_ptr<EndOperation> end_;

  int held_result_ = 0;  // > 0: a packet that came while paused
  bool paused_ = false;
  bool peer_left_ = false;  // noticed, but what it sent before may still be unread
  bool ending_ = false;     // nothing is sent or received any more
  bool ended_ = false;      // on_end() was called
};

}  // namespace accelmm
