// SPDX-License-Identifier: Apache-2.0
#include "mm/backing/prefault.hpp"

#include "base/mapping.hpp"
#include "base/system.hpp"

#include <accelmm/check.hpp>

#include <algorithm>
#include <condition_variable>
#include <list>
#include <mutex>
#include <new>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

// Jobs stand in a queue. A thread takes the first one, moves its mark by one piece, puts the job at
// the end if pieces are left, and makes the piece without the lock. A job that is in no queue and
// in no thread's hands has ended. The last thread that has a piece of it in its hands ends it, and
// only then lets go: the destructor of the job waits for that.

namespace accelmm {

namespace {

// Large enough that a system call and the lock cost nothing beside it (1 MiB is cleared in some
// hundred microseconds), small enough that who cancels need not wait long.
constexpr std::size_t least_piece = std::size_t{1} << 20;

unsigned thread_count(std::uint32_t asked_for) {
  constexpr unsigned most = 16;  // one memory controller is busy with fewer
  if (asked_for != 0) return asked_for;
  return std::clamp(std::thread::hardware_concurrency(), 1U, most);
}

// Adds nothing to one byte of each page: a write to the kernel, and none to anybody else.
void touch(std::span<std::byte> piece) noexcept {
  const std::size_t page = host_page_size().value();
  for (std::size_t at = 0; at < piece.size(); at += page)
    __atomic_fetch_or(reinterpret_cast<unsigned char*>(&piece[at]), 0, __ATOMIC_RELAXED);
}

Result<void> make_pages(std::span<std::byte> piece, PrefaultMeans means) {
  const auto made = sys::populate(piece.data(), ByteCount(piece.size()));
  if (made || made.error().code != Errc::invalid_argument || means == PrefaultMeans::populate)
    return made;
  touch(piece);
  return {};
}

}  // namespace

struct Prefault::Job {
  Prefaulter::State& owner;
  std::span<std::byte> place;
  std::size_t piece;
  PrefaultMeans means;
  Prefaulter::Done done;
  std::atomic<std::uint64_t> made{0};
  // The rest is guarded by the owner's mutex.
  std::size_t next = 0;   // where the next piece begins
  unsigned in_hands = 0;  // threads that make a piece of it
  enum class Place : std::uint8_t { queued, taken } where = Place::queued;
  std::optional<Error> error = std::nullopt;
  std::optional<Result<void>> outcome = std::nullopt;
};

struct Prefaulter::State {
  using Job = Prefault::Job;
  using Lock = std::unique_lock<std::mutex>;

  explicit State(unsigned thread_count) : wanted_threads(thread_count) {}

  unsigned wanted_threads;
  std::mutex mutex;
  std::condition_variable work;   // a job was queued, or the end has come
  std::condition_variable ended;  // a job has ended
  std::list<Job*> queue;
  std::vector<std::thread> threads;
  enum class Life : std::uint8_t { running, ending } life = Life::running;

  [[nodiscard]] Result<void> start_threads();
  void run();
  void make_piece(Job& job, Lock& lock);
  void withdraw(Job& job) noexcept;
  void end(Job& job, Lock& lock) noexcept;
};

// Under the lock. Fewer threads than wanted will do.
Result<void> Prefaulter::State::start_threads() {
  if (!threads.empty()) return {};
  try {
    threads.reserve(wanted_threads);
    while (threads.size() < wanted_threads) threads.emplace_back([this] { run(); });
  } catch (const std::bad_alloc&) {
    if (threads.empty()) return fail(Errc::no_memory, "no memory for a thread");
  } catch (const std::system_error& error) {
    if (threads.empty()) return fail_errno(error.code().value(), "a thread could not be started");
  }
  return {};
}

void Prefaulter::State::run() {
  Lock lock(mutex);
  while (true) {
    work.wait(lock, [this] { return !queue.empty() || life == Life::ending; });
    if (queue.empty()) return;
    make_piece(*queue.front(), lock);
  }
}

void Prefaulter::State::make_piece(Job& job, Lock& lock) {
  const std::size_t begin = job.next;
  const std::size_t size = std::min(job.piece, job.place.size() - begin);
  job.next += size;
  ++job.in_hands;
  if (job.next == job.place.size()) {
    withdraw(job);
  } else {
    queue.splice(queue.end(), queue, queue.begin());
  }
  lock.unlock();
  const auto made = make_pages(job.place.subspan(begin, size), job.means);
  if (made) job.made.fetch_add(size, std::memory_order_release);
  lock.lock();
  if (!made) {
    if (!job.error) job.error = made.error();
    withdraw(job);
  }
  if (job.in_hands == 1 && job.where == Job::Place::taken) end(job, lock);
  --job.in_hands;
  ended.notify_all();
}

void Prefaulter::State::withdraw(Job& job) noexcept {
  if (job.where == Job::Place::queued) queue.remove(&job);
  job.where = Job::Place::taken;
}

// Pre: the job is in no queue, and in no other thread's hands.
void Prefaulter::State::end(Job& job, Lock& lock) noexcept {
  // Before it is told, so that whoever is told finds it ended; it is not let go of before.
  job.outcome = job.error ? Result<void>(fail(*job.error)) : Result<void>();
  ++job.in_hands;
  lock.unlock();
  if (job.done) job.done(*job.outcome);
  lock.lock();
  --job.in_hands;
}

Prefaulter::Prefaulter(std::uint32_t threads) : state_(new State(thread_count(threads))) {}

Prefaulter::~Prefaulter() {
  {
    const std::lock_guard lock(state_->mutex);
    ACCELMM_CHECK(state_->queue.empty());
    state_->life = State::Life::ending;
  }
  state_->work.notify_all();
  for (std::thread& thread : state_->threads) thread.join();
}

Result<Prefault> Prefaulter::start(std::span<std::byte> place, Alignment page, PrefaultMeans means,
                                   Done done) try {
  ACCELMM_CHECK(!place.empty());
  const std::size_t piece = std::max<std::size_t>(least_piece, page.value());
  std::unique_ptr<Prefault::Job> job(
      new Prefault::Job{*state_, place, piece, means, std::move(done)});
  {
    const std::lock_guard lock(state_->mutex);
    if (const auto started = state_->start_threads(); !started) return fail(started.error());
    state_->queue.push_back(job.get());
  }
  state_->work.notify_all();
  return Prefault(std::move(job));
} catch (const std::bad_alloc&) {
  return fail(Errc::no_memory, "no memory to note a place");
}

Prefault::Prefault(std::unique_ptr<Job> job) noexcept : job_(std::move(job)) {}
Prefault::Prefault(Prefault&&) noexcept = default;

Prefault::~Prefault() {
  if (job_ == nullptr) return;
  cancel();
  Prefaulter::State::Lock lock(job_->owner.mutex);
  job_->owner.ended.wait(lock, [this] { return job_->outcome && job_->in_hands == 0; });
}

ByteCount Prefault::progress() const noexcept {
  return ByteCount(job_->made.load(std::memory_order_acquire));
}

bool Prefault::has_ended() const {
  const std::lock_guard lock(job_->owner.mutex);
  return job_->outcome.has_value();
}

void Prefault::cancel() noexcept {
  Prefaulter::State& owner = job_->owner;
  Prefaulter::State::Lock lock(owner.mutex);
  if (job_->where == Job::Place::taken) return;
  if (!job_->error) job_->error = Error{Errc::canceled, "making pages was canceled"};
  owner.withdraw(*job_);
  // The last thread that has a piece of it ends it; without one, nobody else does.
  if (job_->in_hands == 0) owner.end(*job_, lock);
  owner.ended.notify_all();
}

Result<void> Prefault::wait() const {
  Prefaulter::State::Lock lock(job_->owner.mutex);
  job_->owner.ended.wait(lock, [this] { return job_->outcome.has_value(); });
  return *job_->outcome;
}

}  // namespace accelmm
