// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "loop/post_queue.hpp"
#include "loop/ring.hpp"
#include "loop/timer_queue.hpp"

#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>
#include <accelmm/transport.hpp>

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>

namespace accelmm {

/// The event loop on io_uring.
///
/// A turn of the loop: run what was posted, run the timers that are due, act on what the kernel
/// completed, enter the kernel once, or twice where it looks for results before it sleeps. A request
/// that arrives costs one or two io_uring_enter(2) and its reply one sendmsg(2).
///
/// Threads   as Transport says. What is posted, timers and events must not
/// throw: that ends the process. Lifetime  destroyed outside run(), after its listeners and
/// connections; what was posted and never ran is dropped.
class UringTransport final : public Transport {
 public:
  /// Errors  those of create_transport().
  [[nodiscard]] static Result<std::unique_ptr<Transport>> create(std::uint64_t busy_poll_ns);
  ~UringTransport() override;
  UringTransport(const UringTransport&) = delete;
  UringTransport& operator=(const UringTransport&) = delete;

  /// Errors  no_memory, too_many_files and other errnos of making a descriptor. The socket is
  /// closed then.
  [[nodiscard]] Result<std::unique_ptr<Listener>> listen(UniqueFd socket, Accept accept) override;
  /// std::bad_alloc leaves everything as it was.
  void post(Function function) override;
  TimerId call_at(std::uint64_t deadline_ns, Function function) override;
  void cancel_timer(TimerId timer) override;
  /// Errors  those of io_uring_setup(2) and io_uring_enter(2). Nothing is lost then; it may be run
  /// again.
  [[nodiscard]] Result<void> run() override;
  void stop() override;
  [[nodiscard]] bool in_loop() const override;

 private:
  class WakeOperation;

  UringTransport(PostQueue posts, std::uint64_t busy_poll_ns);
  [[nodiscard]] Result<void> serve();
  void finish() noexcept;

  // In this order: what is dropped with the posts and the timers may still abandon operations.
  Ring ring_;
  TimerQueue timers_;
  PostQueue posts_;
  std::unique_ptr<WakeOperation> wake_;
  std::atomic<bool> stopping_ = false;
  std::atomic<std::thread::id> loop_thread_ = std::thread::id();
};

}  // namespace accelmm
