// SPDX-License-Identifier: Apache-2.0
#include "loop/uring_transport.hpp"

#include "base/system.hpp"
#include "loop/uring_listener.hpp"

#include <accelmm/check.hpp>

#include <new>
#include <optional>
#include <utility>

namespace accelmm {

/// Ends the kernel's wait when something is posted: reads the eventfd, which also resets it.
class UringTransport::WakeOperation final : public Operation {
 public:
  WakeOperation(Ring& ring, FdView event) : ring_(ring), event_(event) {}

 private:
  void prepare(io_uring_sqe& sqe) override {
    io_uring_prep_read(&sqe, event_.get(), &counter_, sizeof(counter_), 0);
  }
  void complete(int /*result*/) override { ring_.start(*this); }
  void discard(int /*result*/) noexcept override {}

  Ring& ring_;
  FdView event_;
  std::uint64_t counter_ = 0;
};

Result<std::unique_ptr<Transport>> UringTransport::create(std::uint64_t busy_poll_ns) {
  auto posts = PostQueue::create();
  if (!posts) return fail(posts.error());
  try {
    std::unique_ptr<UringTransport> transport(new UringTransport(std::move(*posts), busy_poll_ns));
    transport->wake_ = std::make_unique<WakeOperation>(transport->ring_, transport->posts_.fd());
    // Whether run() can be expected to work is asked now, while another way can still be chosen.
    if (const auto opened = transport->ring_.open(); !opened) return fail(opened.error());
    transport->ring_.close();
    transport->ring_.start(*transport->wake_);
    return transport;
  } catch (const std::bad_alloc&) {
    return fail(Errc::no_memory, "no memory for an event loop");
  }
}

UringTransport::UringTransport(PostQueue posts, std::uint64_t busy_poll_ns)
    : ring_(sys::is_on_one_processor() ? 0 : busy_poll_ns), posts_(std::move(posts)) {}

UringTransport::~UringTransport() {
  ACCELMM_CHECK(loop_thread_.load() == std::thread::id() || ring_.in_forked_child());
  posts_.drop();
  timers_.drop();
  if (wake_ != nullptr) ring_.abandon(std::move(wake_));
}

Result<std::unique_ptr<Transport::Listener>> UringTransport::listen(UniqueFd socket,
                                                                    Accept accept) {
  auto operation = AcceptOperation::create(ring_, timers_, std::move(socket), std::move(accept));
  if (!operation) return fail(operation.error());
  std::unique_ptr<Listener> listener(new (std::nothrow)
                                         UringListener(ring_, std::move(*operation)));
  if (listener == nullptr) return fail(Errc::no_memory, "no memory for a listener");
  return listener;
}

void UringTransport::post(Function function) {
  // The loop's own thread looks at the queue before it sleeps.
  if (posts_.push(std::move(function)) == PostQueue::Before::empty && !in_loop()) posts_.wake();
}

Transport::TimerId UringTransport::call_at(std::uint64_t deadline_ns, Function function) {
  return timers_.add(deadline_ns, std::move(function));
}

void UringTransport::cancel_timer(TimerId timer) {
  timers_.cancel(timer);
}

void UringTransport::stop() {
  stopping_.store(true);
  posts_.wake();
}

bool UringTransport::in_loop() const {
  return loop_thread_.load() == std::this_thread::get_id();
}

Result<void> UringTransport::run() {
  ACCELMM_CHECK(loop_thread_.load() == std::thread::id());
  if (const auto opened = ring_.open(); !opened) return opened;
  loop_thread_.store(std::this_thread::get_id());
  const auto served = serve();
  finish();
  loop_thread_.store(std::thread::id());
  return served;
}

Result<void> UringTransport::serve() {
  while (true) {
    posts_.run();
    if (timers_.next_deadline().has_value()) timers_.run_due(sys::monotonic_ns());
    ring_.run_ready();
    if (stopping_.load()) return {};
    const bool more = ring_.has_ready() || !posts_.empty();
    const auto deadline_ns = more ? std::optional<std::uint64_t>(0) : timers_.next_deadline();
    if (const auto waited = ring_.wait(deadline_ns); !waited) return waited;
  }
}

// Takes the operations back from the kernel and acts on those that completed meanwhile, and on what
// was posted.
void UringTransport::finish() noexcept {
  ring_.close();
  while (ring_.has_ready() || !posts_.empty()) {
    ring_.run_ready();
    posts_.run();
  }
  stopping_.store(false);
}

}  // namespace accelmm
