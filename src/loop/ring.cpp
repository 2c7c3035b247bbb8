// SPDX-License-Identifier: Apache-2.0
#include "loop/ring.hpp"

#include "base/system.hpp"

#include <accelmm/check.hpp>
#include <accelmm/fault_injection.hpp>

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

// Theory. An operation goes round: idle -> waiting -> in flight -> ready -> idle. start() only
// queues it; wait() turns the queue into submissions, enters the kernel once, and moves every
// result to the ready queue; run_ready() calls the owners. No owner runs while the kernel's queues
// are being walked, and no submission exists outside wait(), so that an operation that is not in
// flight can be taken out of its queue and destroyed at any moment. One in flight can not: the
// kernel writes to its buffers. It is canceled instead and kept until its result comes.
//
// A cancellation names its target by address. The address may be that of a newer operation by then
// only if the older one's result came, which takes it out of canceling_; and submissions are
// carried out in order, so that a cancellation that was submitted cannot meet an operation that was
// started later.
namespace accelmm {

namespace {

// Operations submitted in one go; more wait a turn. Results of more than twice as many are kept by
// the kernel (IORING_FEAT_NODROP), so that this bounds the work of one turn and nothing else.
constexpr unsigned submissions = 256;

// How often in a row close() tries to enter a kernel that refuses. Refusals that pass by themselves
// pass sooner.
constexpr int close_attempts = 16;

constexpr std::uint64_t ns_per_second = 1'000'000'000;

constexpr std::uint64_t max_ns = std::numeric_limits<std::uint64_t>::max();

constexpr std::uint64_t canceled_by_ring =
    0;  // user_data of cancellations: no operation has this address

// Leaves a processor that is shared by two threads to the other for a moment.
void relax_processor() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

__kernel_timespec time_until(std::uint64_t deadline_ns) {
  const std::uint64_t now_ns = sys::monotonic_ns();
  const std::uint64_t left_ns = deadline_ns > now_ns ? deadline_ns - now_ns : 0;
  __kernel_timespec left = {};
  left.tv_sec = static_cast<std::int64_t>(left_ns / ns_per_second);
  left.tv_nsec = static_cast<std::int64_t>(left_ns % ns_per_second);
  return left;
}

// Sleeps for a millisecond.
void pause_briefly() {
  static_cast<void>(sys::poll_one(FdView(), 0, 1));
}

int make_ring(io_uring& ring, unsigned flags) {
  if (const int injected = fault_injection::point("io_uring_setup"); injected != 0)
    return -injected;
  return io_uring_queue_init(submissions, &ring, flags | IORING_SETUP_CLAMP);
}

}  // namespace

Ring::~Ring() {
  if (in_forked_child()) return;
  ACCELMM_CHECK(state_ != State::open && state_ != State::closing);
  ACCELMM_CHECK(waiting_.empty() && ready_.empty());
  ACCELMM_CHECK(outstanding_ == 0 || state_ == State::broken);
}

Result<void> Ring::open() {
  if (in_forked_child()) return fail(Errc::no_device, "a loop was used after fork");
  if (state_ == State::broken) return fail(Errc::io_error, "the ring of this loop is broken");
  ACCELMM_CHECK(state_ == State::closed);
  auto guard = ForkGuard::open([this] { return set_up(); });
  if (!guard) {
    tear_down();
    return fail(guard.error());
  }
  guard_ = std::move(*guard);
  state_ = State::open;
  if (const auto checked = check_operations(); !checked) {
    close();
    return checked;
  }
  return {};
}

// Makes the kernel's ring; called again when a fork came between. The descriptor's owner is the
// guard from then on.
Result<UniqueFd> Ring::set_up() {
  tear_down();
  constexpr unsigned flags =
      IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
  int error = make_ring(ring_, flags);
  if (error == -EINVAL) error = make_ring(ring_, 0);
  if (error < 0) return fail_errno(-error, "io_uring_setup failed");
  // Mappings keep a ring alive as its descriptor does.
  error = io_uring_ring_dontfork(&ring_);
  UniqueFd fd(ring_.ring_fd);
  if (error < 0) return fail_errno(-error, "keeping the ring from children failed");
  return fd;
}

// Unmaps the ring. Its descriptor is not the ring's to close.
void Ring::tear_down() noexcept {
  if (ring_.sq.ring_sz == 0) return;
  ring_.ring_fd = -1;
  io_uring_queue_exit(&ring_);
  ring_ = {};
}

Result<void> Ring::check_operations() {
  constexpr unsigned features = IORING_FEAT_EXT_ARG | IORING_FEAT_NODROP | IORING_FEAT_FAST_POLL;
  if ((ring_.features & features) != features)
    return fail(Errc::not_supported, "io_uring lacks a feature that the loop needs");
  const std::unique_ptr<io_uring_probe, void (*)(io_uring_probe*)> probe(
      io_uring_get_probe_ring(&ring_), io_uring_free_probe);
  if (probe == nullptr) return fail(Errc::no_memory, "no memory to ask io_uring what it can do");
  constexpr std::array needed = {IORING_OP_ACCEPT, IORING_OP_RECVMSG, IORING_OP_POLL_ADD,
                                 IORING_OP_READ, IORING_OP_ASYNC_CANCEL};
  for (const int operation : needed)
    if (io_uring_opcode_supported(probe.get(), operation) == 0)
      return fail(Errc::not_supported, "io_uring lacks an operation that the loop needs");
  return {};
}

void Ring::start(Operation& operation) {
  ACCELMM_CHECK(operation.state_ == Operation::State::idle && !operation.abandoned_);
  operation.state_ = Operation::State::waiting;
  waiting_.push(operation);
}

void Ring::make_ready(Operation& operation, int result) {
  ACCELMM_CHECK(operation.state_ == Operation::State::idle && !operation.abandoned_);
  operation.state_ = Operation::State::ready;
  operation.result_ = result;
  ready_.push(operation);
}

void Ring::abandon(std::unique_ptr<Operation> operation) noexcept {
  Operation& abandoned = *operation;
  abandoned.abandoned_ = true;
  switch (abandoned.state_) {
    case Operation::State::in_flight:
      canceling_.push(*operation.release());
      return;
    case Operation::State::waiting:
      ACCELMM_CHECK(waiting_.remove(abandoned));
      break;
    case Operation::State::ready:
      ACCELMM_CHECK(ready_.remove(abandoned));
      abandoned.discard(abandoned.result_);
      break;
    case Operation::State::idle:
      break;
  }
  abandoned.state_ = Operation::State::idle;
  if (abandoned.completing_) static_cast<void>(operation.release());  // run_ready() destroys it
}

io_uring_sqe* Ring::next_submission() {
  io_uring_sqe* const sqe = io_uring_get_sqe(&ring_);
  if (sqe != nullptr) ++outstanding_;
  return sqe;
}

void Ring::fill() {
  while (!canceling_.empty()) {
    io_uring_sqe* const sqe = next_submission();
    if (sqe == nullptr) return;
    io_uring_prep_cancel(sqe, canceling_.pop(), 0);
    io_uring_sqe_set_data64(sqe, canceled_by_ring);
  }
  while (!waiting_.empty()) {
    io_uring_sqe* const sqe = next_submission();
    if (sqe == nullptr) return;
    Operation* const operation = waiting_.pop();
    operation->prepare(*sqe);
    io_uring_sqe_set_data(sqe, operation);
    operation->state_ = Operation::State::in_flight;
  }
}

// One io_uring_enter(2): submits, and waits unless the deadline has passed. Returns 0 or a negative
// errno.
int Ring::enter(std::optional<std::uint64_t> deadline_ns) {
  if (const int injected = fault_injection::point("io_uring_enter"); injected != 0)
    return -injected;
  int result = 0;
  if (!deadline_ns) {
    result = io_uring_submit_and_wait(&ring_, 1);
  } else if (*deadline_ns == 0) {
    result = io_uring_submit_and_get_events(&ring_);
  } else {
    __kernel_timespec left = time_until(*deadline_ns);
    io_uring_cqe* first = nullptr;
    result = io_uring_submit_and_wait_timeout(&ring_, &first, 1, &left, nullptr);
  }
  return result < 0 ? result : 0;
}

// Whether there are results, or what becomes one when the kernel is entered.
bool Ring::has_results() const {
  return io_uring_cq_ready(&ring_) != 0 ||
         (__atomic_load_n(ring_.sq.kflags, __ATOMIC_ACQUIRE) & IORING_SQ_TASKRUN) != 0;
}

// Submits, looks for results where that is likely to pay, and sleeps until there are some. Returns 0
// or a negative errno.
int Ring::await_results(std::optional<std::uint64_t> deadline_ns) {
  const std::uint64_t begin_ns = sys::monotonic_ns();
  if (const std::uint64_t look_ns = busy_poll_.begin(); look_ns != 0) {
    if (const int submitted = enter(0); submitted != 0) return submitted;
    const std::uint64_t left_ns = std::max(deadline_ns.value_or(max_ns), begin_ns) - begin_ns;
    const std::uint64_t most_ns = std::min(look_ns, left_ns);
    while (!has_results() && sys::monotonic_ns() - begin_ns < most_ns) relax_processor();
  }
  const int result = io_uring_cq_ready(&ring_) != 0 ? 0 : enter(deadline_ns);
  busy_poll_.end(sys::monotonic_ns() - begin_ns);
  return result;
}

Result<void> Ring::wait(std::optional<std::uint64_t> deadline_ns) {
  ACCELMM_CHECK(state_ == State::open);
  if (in_forked_child()) return fail(Errc::no_device, "a loop was used after fork");
  fill();
  // Without room for all there is no time to sleep.
  if (!waiting_.empty() || !canceling_.empty() || !ready_.empty()) deadline_ns = 0;
  const int result = deadline_ns == 0 ? enter(0) : await_results(deadline_ns);
  drain();
  switch (result) {
    case 0:
    case -ETIME:
    case -EINTR:
    case -EBUSY:  // the kernel keeps results that did not fit; they have just been taken
      return {};
    case -EAGAIN:
    case -ENOMEM:
      // The kernel is short of memory. What could not be submitted stays where it is for the next
      // turn.
      pause_briefly();
      return {};
    default:
      return fail_errno(-result, "io_uring_enter failed");
  }
}

void Ring::drain() noexcept {
  unsigned head = 0;
  unsigned count = 0;
  io_uring_cqe* cqe = nullptr;
  io_uring_for_each_cqe(&ring_, head, cqe) {
    ++count;
    ACCELMM_CHECK(outstanding_ > 0);
    --outstanding_;
    if (cqe->user_data == canceled_by_ring) continue;
    take(*static_cast<Operation*>(io_uring_cqe_get_data(cqe)), cqe->res);
  }
  io_uring_cq_advance(&ring_, count);
}

void Ring::take(Operation& operation, int result) noexcept {
  ACCELMM_CHECK(operation.state_ == Operation::State::in_flight);
  if (operation.abandoned_) {
    canceling_.remove(operation);
    operation.discard(result);
    delete &operation;
    return;
  }
  if (result == -ECANCELED && state_ == State::closing) {
    operation.state_ = Operation::State::waiting;
    waiting_.push(operation);
    return;
  }
  operation.state_ = Operation::State::ready;
  operation.result_ = result;
  ready_.push(operation);
}

void Ring::run_ready() noexcept {
  for (std::size_t left = ready_.size(); left > 0 && !ready_.empty(); --left) {
    Operation* const operation = ready_.pop();
    operation->state_ = Operation::State::idle;
    operation->completing_ = true;
    operation->complete(operation->result_);
    operation->completing_ = false;
    if (operation->abandoned_) delete operation;
  }
}

void Ring::close() noexcept {
  ACCELMM_CHECK(state_ == State::open);
  if (in_forked_child()) {
    // The memory of the ring is not here, and its operations are the parent's.
    state_ = State::broken;
    return;
  }
  state_ = State::closing;
  int refusals = 0;
  while (outstanding_ > 0 && refusals < close_attempts) {
    // Cancels whatever there is, what is submitted with it included. When there is no room for
    // that, entering once without waiting makes some.
    io_uring_sqe* const sqe = next_submission();
    if (sqe != nullptr) {
      io_uring_prep_cancel64(sqe, 0, IORING_ASYNC_CANCEL_ANY);
      io_uring_sqe_set_data64(sqe, canceled_by_ring);
    }
    const int result = sqe != nullptr ? enter(std::nullopt) : enter(0);
    drain();
    if (result == 0 || result == -EINTR) {
      refusals = 0;
      continue;
    }
    ++refusals;
    pause_briefly();
  }
  if (outstanding_ > 0) recall();
  tear_down();
  guard_.reset();
  // What the kernel keeps is never freed: it may still write there.
  state_ = outstanding_ == 0 ? State::closed : State::broken;
}

// Takes back the submissions that the kernel never looked at.
void Ring::recall() noexcept {
  const io_uring_sq& queue = ring_.sq;
  for (unsigned at = *queue.khead; at != queue.sqe_tail; ++at) {
    const io_uring_sqe& sqe = queue.sqes[at & queue.ring_mask];
    --outstanding_;
    if (sqe.user_data == canceled_by_ring) continue;
    take(*reinterpret_cast<Operation*>(sqe.user_data), -ECANCELED);
  }
}

}  // namespace accelmm
