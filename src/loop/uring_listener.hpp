// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/fork_guard.hpp"
#include "loop/operation.hpp"
#include "loop/ring.hpp"
#include "loop/timer_queue.hpp"

#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>
#include <accelmm/transport.hpp>

#include <cstdint>
#include <memory>
#include <optional>

namespace accelmm {

/// Accepts connections, one after the other, and keeps at it whatever accept(2) says.
///
/// Owns      the listening socket, and a spare descriptor. At the limit of open files it is given
/// up when somebody
///           connects, for as long as it takes to hang up on him: he learns at once instead of
///           waiting in the queue.
class AcceptOperation final : public Operation {
 public:
  /// Errors  no_memory. Any errno of making the spare descriptor. The socket is closed then.
  [[nodiscard]] static Result<std::unique_ptr<AcceptOperation>> create(Ring& ring,
                                                                       TimerQueue& timers,
                                                                       UniqueFd socket,
                                                                       Transport::Accept accept);

  /// Forgets the timer that would start this again; before it is abandoned.
  void forget_retry() noexcept;

 private:
  AcceptOperation(Ring& ring, TimerQueue& timers, ForkGuard socket, UniqueFd spare,
                  Transport::Accept accept);
  void prepare(io_uring_sqe& sqe) override;
  void complete(int result) override;
  void discard(int result) noexcept override;

  void accepted(int result);
  void welcome(UniqueFd socket);
  void refused(int error);
  void take_spare();
  void retry_later();

  enum class Step : std::uint8_t {
    accept,
    await_client,  // at the limit of open files, with the spare still in hand
  };

  Ring& ring_;
  TimerQueue& timers_;
  ForkGuard socket_;
  UniqueFd spare_;
  Transport::Accept accept_;
  Step step_ = Step::accept;
  std::optional<TimerQueue::TimerId> retry_;  // set: waits for the timer instead of the kernel
};

/// A node's listening socket in the io_uring loop.
class UringListener final : public Transport::Listener {
 public:
  UringListener(Ring& ring, std::unique_ptr<AcceptOperation> accept);
  ~UringListener() override;
  UringListener(const UringListener&) = delete;
  UringListener& operator=(const UringListener&) = delete;

 private:
  Ring& ring_;
  std::unique_ptr<AcceptOperation> accept_;
};

}  // namespace accelmm
