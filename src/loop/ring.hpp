// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/busy_poll.hpp"
#include "base/fork_guard.hpp"
#include "loop/operation.hpp"

#include <accelmm/error.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include <liburing.h>

namespace accelmm {

/// The io_uring of one loop, and the operations that it carries out.
///
/// The kernel's ring exists between open() and close() only, in one thread, as
/// IORING_SETUP_SINGLE_ISSUER wants; operations outlive it: started without a ring they wait for
/// the next, and close() takes back those in flight. Results are first all taken out of the
/// kernel's queue and only then acted upon, so that what runs may start, abandon and destroy
/// whatever it likes. Owns      abandoned operations, until the kernel is done with them. Threads
/// externally synchronised; from open() to close() one thread. Lifetime  all operations are
/// abandoned before it is destroyed. Source    kernel 6.1 or later; falls back to a plain ring
/// where SINGLE_ISSUER and DEFER_TASKRUN are refused.
class Ring {
 public:
  /// Where results come in quick succession the thread looks for the next one for so long before it
  /// sleeps (BusyPoll). Nanoseconds; 0: it sleeps at once.
  explicit Ring(std::uint64_t busy_poll_ns = 0) : busy_poll_(busy_poll_ns) {}
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;
  ~Ring();

  /// Makes the kernel's ring, in the thread that will use it.
  /// Errors  not_supported: the kernel lacks an operation that the loop needs.  Any errno of
  /// io_uring_setup(2):
  ///         ENOSYS and EPERM where a container forbids it.
  [[nodiscard]] Result<void> open();
  /// Takes back what is in flight and drops the kernel's ring. Results that came meanwhile are
  /// ready.
  void close() noexcept;

  /// Has an idle operation carried out. Nothing reaches the kernel before the next wait().
  void start(Operation& operation);
  /// Has complete(result) called without asking the kernel: for what must not happen within the
  /// current call.
  void make_ready(Operation& operation, int result);
  /// Takes an operation over from its owner: cancels it, and destroys it when the kernel is done
  /// with it.
  void abandon(std::unique_ptr<Operation> operation) noexcept;

  /// Submits what waits and sleeps until something is ready or the deadline (CLOCK_MONOTONIC, 0:
  /// not at all) is there. Errors  any errno of io_uring_enter(2) that will not pass by itself.
  [[nodiscard]] Result<void> wait(std::optional<std::uint64_t> deadline_ns);
  /// Completes what is ready now; what gets ready meanwhile is for the next time.
  void run_ready() noexcept;
  /// Whether run_ready() would do something.
  [[nodiscard]] bool has_ready() const { return !ready_.empty(); }
  /// Whether the kernel's ring is another process's, which forked this one.
  [[nodiscard]] bool in_forked_child() const { return guard_ && guard_->in_forked_child(); }

 private:
  [[nodiscard]] Result<UniqueFd> set_up();
  void tear_down() noexcept;
  [[nodiscard]] Result<void> check_operations();
  void fill();
  [[nodiscard]] io_uring_sqe* next_submission();
  [[nodiscard]] int enter(std::optional<std::uint64_t> deadline_ns);
  [[nodiscard]] int await_results(std::optional<std::uint64_t> deadline_ns);
  [[nodiscard]] bool has_results() const;
  void drain() noexcept;
  void take(Operation& operation, int result) noexcept;
  void recall() noexcept;

  enum class State : std::uint8_t {
    closed,
    open,
    closing,
    broken,  // the kernel still has operations and would not give them back
  };
  State state_ = State::closed;
  io_uring ring_ = {};
  std::optional<ForkGuard> guard_;  // of the ring's descriptor, while there is a ring
  std::size_t outstanding_ = 0;     // submissions, cancellations included, that have no result yet
  BusyPoll busy_poll_;
  OperationQueue waiting_;
  OperationQueue ready_;
  OperationQueue canceling_;  // abandoned, in flight, and their cancellation not yet submitted
};

}  // namespace accelmm
