// SPDX-License-Identifier: Apache-2.0
#include "loop/uring_listener.hpp"

#include "base/system.hpp"
#include "loop/uring_connection.hpp"

#include <accelmm/fault_injection.hpp>

#include <cerrno>
#include <new>
#include <utility>

#include <poll.h>
#include <sys/socket.h>

namespace accelmm {

namespace {

// How long accepting rests when the system has no descriptors or no memory: 20 attempts a second
// cost nothing, and nobody who waits for a connection notices.
constexpr std::uint64_t retry_after_ns = 50'000'000;

}  // namespace

Result<std::unique_ptr<AcceptOperation>> AcceptOperation::create(Ring& ring, TimerQueue& timers,
                                                                 UniqueFd socket,
                                                                 Transport::Accept accept) {
  // Of a kind that does no harm when a forked child inherits it.
  auto spare = sys::eventfd();
  if (!spare) return fail(spare.error());
  auto guarded = ForkGuard::adopt(std::move(socket));
  if (!guarded) return fail(guarded.error());
  std::unique_ptr<AcceptOperation> operation(new (std::nothrow) AcceptOperation(
      ring, timers, std::move(*guarded), std::move(*spare), std::move(accept)));
  if (operation == nullptr) return fail(Errc::no_memory, "no memory for a listener");
  return operation;
}

AcceptOperation::AcceptOperation(Ring& ring, TimerQueue& timers, ForkGuard socket, UniqueFd spare,
                                 Transport::Accept accept)
    : ring_(ring),
      timers_(timers),
      socket_(std::move(socket)),
      spare_(std::move(spare)),
      accept_(std::move(accept)) {}

void AcceptOperation::prepare(io_uring_sqe& sqe) {
  if (step_ == Step::accept) {
    io_uring_prep_accept(&sqe, socket_.fd().get(), nullptr, nullptr, SOCK_CLOEXEC);
  } else {
    io_uring_prep_poll_add(&sqe, socket_.fd().get(), POLLIN);
  }
}

void AcceptOperation::complete(int result) {
  if (step_ == Step::accept) {
    accepted(result);
  } else if (result < 0) {
    refused(-result);
  } else {
    spare_.reset();
    step_ = Step::accept;
  }
  if (!abandoned() && idle() && !retry_) ring_.start(*this);
}

void AcceptOperation::discard(int result) noexcept {
  if (step_ == Step::accept) UniqueFd(result).reset();
}

void AcceptOperation::accepted(int result) {
  UniqueFd socket(result);
  if (const int injected = fault_injection::point("io_uring_accept"); injected != 0) {
    socket.reset();
    result = -injected;
  }
  if (result < 0) return refused(-result);
  if (!spare_.valid()) {
    take_spare();
    if (!spare_.valid()) {
      socket.reset();
      return take_spare();
    }
  }
  welcome(std::move(socket));
}

void AcceptOperation::welcome(UniqueFd socket) {
  // What cannot be served is hung up on: the application sees no_device and may try again.
  auto connection = UringConnection::create(ring_, std::move(socket));
  if (!connection) return;
  UringConnection* accepted = connection->get();
  accepted->watch(&accepted);
  ConnectionEvents* const events = accept_(std::move(*connection));
  if (accepted == nullptr) return;
  accepted->watch(nullptr);
  if (events != nullptr) accepted->begin(*events);
}

void AcceptOperation::refused(int error) {
  switch (error) {
    case ECONNABORTED:  // whoever connected has left
    case EINTR:
      return;
    case EMFILE:
    case ENFILE:
      if (!spare_.valid()) break;
      step_ = Step::await_client;
      return;
    default:
      break;
  }
  retry_later();
}

void AcceptOperation::take_spare() {
  if (spare_.valid()) return;
  if (auto spare = sys::eventfd()) spare_ = std::move(*spare);
}

void AcceptOperation::retry_later() {
  step_ = Step::accept;
  try {
    retry_ = timers_.add(sys::monotonic_ns() + retry_after_ns, [this] {
      retry_.reset();
      take_spare();
      ring_.start(*this);
    });
  } catch (const std::bad_alloc&) {
    // Without memory for a timer the next attempt is made at once.
    retry_.reset();
  }
}

void AcceptOperation::forget_retry() noexcept {
  if (retry_) timers_.cancel(*retry_);
  retry_.reset();
}

UringListener::UringListener(Ring& ring, std::unique_ptr<AcceptOperation> accept)
    : ring_(ring), accept_(std::move(accept)) {
  ring_.start(*accept_);
}

UringListener::~UringListener() {
  accept_->forget_retry();
  ring_.abandon(std::move(accept_));
}

}  // namespace accelmm
