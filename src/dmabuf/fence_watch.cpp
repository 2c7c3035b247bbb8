// SPDX-License-Identifier: Apache-2.0
#include "base/clock.hpp"
#include "base/mutex.hpp"
#include "base/system.hpp"

#include <accelmm/fence_watch.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <iterator>
#include <limits>
#include <span>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <poll.h>

namespace accelmm {

/// The thread and what it waits for. New waits lie in `added_` until the thread takes them.
class FenceWatch::Poller {
 public:
  explicit Poller(UniqueFd wake) : wake_(std::move(wake)) {}
  ~Poller() {
    if (!thread_.joinable()) return;
    stop_.store(true, std::memory_order_release);
    wake();
    thread_.join();
  }
  Poller(const Poller&) = delete;
  Poller& operator=(const Poller&) = delete;

  [[nodiscard]] Result<void> start() {
    try {
      thread_ = std::thread([this] { run(); });
    } catch (const std::system_error&) {
      return fail(Errc::no_memory, "no thread to wait for fences");
    }
    return {};
  }

  void add(Fence fence, Completion done, std::uint64_t deadline_ns) {
    waiting_.fetch_add(1, std::memory_order_relaxed);
    {
      const MutexLock lock(mutex_);
      added_.push_back({std::move(fence), std::move(done), deadline_ns});
    }
    wake();
  }
  [[nodiscard]] std::size_t waiting() const { return waiting_.load(std::memory_order_relaxed); }

 private:
  struct Wait {
    Fence fence;
    Completion done;
    std::uint64_t deadline_ns;
  };

  // A full counter wakes just as well, so that the only failure is none.
  void wake() noexcept {
    constexpr std::uint64_t one = 1;
    static_cast<void>(sys::write(wake_.view(), std::as_bytes(std::span(&one, 1))));
  }

  void take_added() {
    std::array<std::byte, sizeof(std::uint64_t)> count{};
    static_cast<void>(sys::read(wake_.view(), count));
    const MutexLock lock(mutex_);
    std::ranges::move(added_, std::back_inserter(waits_));
    added_.clear();
  }

  [[nodiscard]] int next_timeout_ms() const {
    std::uint64_t earliest = std::numeric_limits<std::uint64_t>::max();
    for (const Wait& wait : waits_) earliest = std::min(earliest, wait.deadline_ns);
    if (earliest == std::numeric_limits<std::uint64_t>::max()) return -1;
    const std::uint64_t now = monotonic_ns();
    if (earliest <= now) return 0;
    // An hour at most, which only makes the thread look again.
    constexpr std::uint64_t ns_per_ms = 1'000'000;
    return static_cast<int>(
        std::min<std::uint64_t>((earliest - now + ns_per_ms - 1) / ns_per_ms, 3'600'000));
  }

  // Ends the waits whose fence has ended or whose time has come.
  void end_due() {
    const std::uint64_t now = monotonic_ns();
    for (std::size_t i = 0; i < waits_.size();) {
      auto outcome = waits_[i].fence.outcome();
      if (!outcome && waits_[i].deadline_ns <= now)
        outcome = Result<void>(fail(Errc::timed_out, "the fence had not ended in time"));
      if (!outcome) {
        ++i;
        continue;
      }
      Completion done = std::move(waits_[i].done);
      if (i + 1 != waits_.size()) waits_[i] = std::move(waits_.back());
      waits_.pop_back();
      waiting_.fetch_sub(1, std::memory_order_relaxed);
      done(*outcome);
    }
  }

  void run() {
    std::vector<pollfd> entries;
    while (!stop_.load(std::memory_order_acquire)) {
      entries.clear();
      entries.push_back({wake_.get(), POLLIN, 0});
      for (const Wait& wait : waits_) entries.push_back({wait.fence.fd().get(), POLLIN, 0});
      static_cast<void>(sys::poll_any(entries, next_timeout_ms()));
      take_added();
      end_due();
    }
    take_added();
    // Their completions end them as dropped.
    waits_.clear();
  }

  UniqueFd wake_;
  std::atomic<bool> stop_{false};
  std::atomic<std::size_t> waiting_{0};
  Mutex mutex_;
  std::vector<Wait> added_ ACCELMM_GUARDED_BY(mutex_);
  std::vector<Wait> waits_;  // the thread's
  std::thread thread_;
};

FenceWatch::FenceWatch(std::unique_ptr<Poller> poller) : poller_(std::move(poller)) {}
FenceWatch::~FenceWatch() = default;

Result<std::unique_ptr<FenceWatch>> FenceWatch::create() {
  auto wake = sys::eventfd();
  if (!wake) return fail(wake.error());
  auto poller = std::make_unique<Poller>(std::move(*wake));
  if (const auto started = poller->start(); !started) return fail(started.error());
  return std::unique_ptr<FenceWatch>(new FenceWatch(std::move(poller)));
}

void FenceWatch::wait(Fence fence, Completion done, std::uint64_t deadline_ns) {
  poller_->add(std::move(fence), std::move(done), deadline_ns);
}

std::size_t FenceWatch::waiting() const {
  return poller_->waiting();
}

}  // namespace accelmm
