// SPDX-License-Identifier: Apache-2.0
#include "loop/uring_connection.hpp"

#include "base/system.hpp"

#include <accelmm/check.hpp>

#include <new>
#include <utility>

#include <poll.h>
#include <sys/socket.h>

namespace accelmm {

Result<std::unique_ptr<UringConnection>> UringConnection::create(Ring& ring, UniqueFd socket) {
  const auto credentials = sys::peer_credentials(socket.view());
  if (!credentials) return fail(credentials.error());
  const Peer peer{.pid = credentials->pid, .uid = credentials->uid, .gid = credentials->gid};
  auto guarded = ForkGuard::adopt(std::move(socket));
  if (!guarded) return fail(guarded.error());
  try {
    auto shared = std::make_shared<const ForkGuard>(std::move(*guarded));
    std::unique_ptr<UringConnection> connection(new UringConnection(ring, std::move(shared), peer));
    auto receive = ReceiveOperation::create(*connection, connection->socket_);
    if (!receive) return fail(receive.error());
    connection->receive_ = std::move(*receive);
    connection->hang_up_poll_ = std::make_unique<PollOperation>(
        *connection, connection->socket_, POLLRDHUP | POLLHUP, &UringConnection::peer_left);
    connection->write_poll_ = std::make_unique<PollOperation>(*connection, connection->socket_,
                                                              POLLOUT, &UringConnection::writable);
    connection->end_ = std::make_unique<EndOperation>(*connection);
    return connection;
  } catch (const std::bad_alloc&) {
    return fail(Errc::no_memory, "no memory for a connection");
  }
}

UringConnection::UringConnection(Ring& ring, SharedSocket socket, Peer peer)
    : ring_(ring), socket_(std::move(socket)), peer_(peer) {}

UringConnection::~UringConnection() {
  if (watcher_ != nullptr) *watcher_ = nullptr;
  // create() may have failed half-way.
  if (receive_ != nullptr) ring_.abandon(std::move(receive_));
  if (hang_up_poll_ != nullptr) ring_.abandon(std::move(hang_up_poll_));
  if (write_poll_ != nullptr) ring_.abandon(std::move(write_poll_));
  if (end_ != nullptr) ring_.abandon(std::move(end_));
}

void UringConnection::begin(ConnectionEvents& events) {
  ACCELMM_CHECK(events_ == nullptr);
  events_ = &events;
  listen_on();
}

void UringConnection::send(std::span<const std::byte> bytes, std::span<const FdView> fds) {
  if (ending_) return;
  if (outbox_.empty()) {
    const auto sent = sys::send_packet(socket_->fd(), bytes, fds, MSG_DONTWAIT);
    if (sent) return;
    if (sent.error().code != Errc::try_again) return end_later();
  }
  // A packet that cannot be sent cannot be reported either: whoever waits for it learns by the
  // hang-up.
  if (const auto queued = outbox_.push(bytes, fds); !queued) return end_later();
  if (write_poll_->idle()) ring_.start(*write_poll_);
}

void UringConnection::writable(int revents) {
  if (ending_) return;
  if (revents < 0) return end_later();
  if (const auto flushed = outbox_.flush(socket_->fd()); !flushed) return end_later();
  if (!outbox_.empty()) ring_.start(*write_poll_);
}

void UringConnection::pause() {
  paused_ = true;
  if (events_ != nullptr) listen_on();
}

void UringConnection::resume() {
  paused_ = false;
  if (ending_ || events_ == nullptr) return;
  if (held_result_ > 0 && receive_->idle()) {
    ring_.make_ready(*receive_, std::exchange(held_result_, 0));
    return;
  }
  listen_on();
}

// Has the kernel tell what comes next: packets, or while paused only the peer's end. A receive that
// is already under way when the connection is paused stays: what it brings is held.
void UringConnection::listen_on() {
  if (ending_ || !receive_->idle()) return;
  if (!paused_ && held_result_ == 0) return ring_.start(*receive_);
  if (peer_left_) return end_later();
  if (hang_up_poll_->idle()) ring_.start(*hang_up_poll_);
}

void UringConnection::received(int result) {
  if (ending_) return receive_->drop_fds();
  if (!receive_->whole(result)) {
    receive_->drop_fds();
    return end();
  }
  if (paused_) {
    held_result_ = result;
    return;
  }
  deliver(result);
}

void UringConnection::deliver(int result) {
  if (receive_->lost_fds()) {
    receive_->drop_fds();
    return events_->on_lost_fds(receive_->bytes(result));
  }
  auto fds = receive_->take_fds();
  if (!fds) return end();
  events_->on_message(receive_->bytes(result), std::move(*fds));
}

void UringConnection::peer_left(int /*revents*/) {
  peer_left_ = true;
  if (ending_) return;
  // Unread packets come first, unless nobody wants them: the receive under way reads them, and then
  // the end.
  if (paused_ && receive_->idle()) end();
}

bool UringConnection::hung_up() const {
  if (ended_) return true;
  const auto revents = sys::poll_one(socket_->fd(), POLLRDHUP, 0);
  return revents && (*revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

void UringConnection::end_later() {
  if (ending_) return;
  ending_ = true;
  outbox_.clear();
  ring_.make_ready(*end_, 0);
}

void UringConnection::end() {
  ending_ = true;
  if (ended_) return;
  ended_ = true;
  outbox_.clear();
  if (events_ != nullptr) events_->on_end();
}

}  // namespace accelmm
