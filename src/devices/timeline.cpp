// SPDX-License-Identifier: Apache-2.0
#include "base/clock.hpp"

#include <accelmm/timeline.hpp>

#include <algorithm>
#include <utility>

namespace accelmm {
std::uint64_t Timeline::next() {
  const std::lock_guard lock(mutex_);
  return ++last_;
}

bool Timeline::is_idle() const {
  const std::lock_guard lock(mutex_);
  return reached_ == last_;
}

std::uint64_t Timeline::reached() const {
  const std::lock_guard lock(mutex_);
  return reached_;
}

void Timeline::reach(std::uint64_t point) {
  end(point, std::nullopt, std::nullopt);
}

void Timeline::fail(std::uint64_t point, Errc code) {
  end(point, code, std::nullopt);
}

void Timeline::fail(std::uint64_t point, const Fault& fault) {
  end(point, Errc::fault, fault);
}

// Needs no memory: whoever ends a point may be a thread of the hardware's, with nobody to tell.
void Timeline::end(std::uint64_t point, std::optional<Errc> code,
                   const std::optional<Fault>& fault) {
  std::uint64_t ended = 0;
  {
    const std::lock_guard lock(mutex_);
    ACCELMM_CHECK(point <= last_);
    if (point <= reached_) return;
    if (code) failures_[failed_++ % failures_.size()] = {point, *code};
    if (fault)
      last_fault_ =
          FaultRecord{*fault, point, monotonic_ns(), last_fault_ ? last_fault_->count + 1 : 1};
    ended = point - reached_;
    reached_ = point;
  }
  if (observer_) observer_(ended, fault);
  while (auto due = take_due()) due->first(due->second);
}

std::optional<std::pair<Completion, Result<void>>> Timeline::take_due() {
  const std::lock_guard lock(mutex_);
  const auto due =
      std::ranges::find_if(waiters_, [&](const Waiter& w) { return w.point <= reached_; });
  if (due == waiters_.end()) return std::nullopt;
  std::pair taken(std::move(due->done), *outcome_locked(due->point));
  waiters_.erase(due);
  return taken;
}

std::optional<Result<void>> Timeline::outcome_locked(std::uint64_t point) const {
  if (point > last_)
    return std::optional<Result<void>>(
        accelmm::fail(Errc::invalid_argument, "no such point was given out"));
  if (point > reached_) return std::nullopt;
  if (point == 0) return Result<void>{};
  for (const Failure& failure : failures_)
    if (failure.point == point)
      return std::optional<Result<void>>(
          accelmm::fail(failure.code, "the job of this point failed"));
  return Result<void>{};
}

std::optional<Result<void>> Timeline::outcome(std::uint64_t point) const {
  const std::lock_guard lock(mutex_);
  return outcome_locked(point);
}

Timeline::WaiterId Timeline::when_reached(std::uint64_t point, Completion done) {
  std::optional<Result<void>> known;
  {
    const std::lock_guard lock(mutex_);
    known = outcome_locked(point);
    if (!known) {
      // Before the completion is moved: if there is no room, it is dropped, and so ends, when the
      // lock is free again.
      if (waiters_.size() == waiters_.capacity())
        waiters_.reserve(std::max<std::size_t>(4, 2 * waiters_.size()));
      waiters_.push_back({++last_waiter_, point, std::move(done)});
      return last_waiter_;
    }
  }
  done(*known);
  return 0;
}

void Timeline::cancel(WaiterId waiter) {
  std::optional<Completion> dropped;  // destroyed, and so ended, under no lock
  const std::lock_guard lock(mutex_);
  const auto found = std::ranges::find(waiters_, waiter, &Waiter::id);
  if (found == waiters_.end()) return;
  dropped.emplace(std::move(found->done));
  waiters_.erase(found);
}

void Timeline::abandon_waiters(Errc code) {
  std::vector<Waiter> abandoned;
  {
    const std::lock_guard lock(mutex_);
    abandoned.swap(waiters_);
  }
  for (Waiter& waiter : abandoned) waiter.done(accelmm::fail(code, "nobody will reach this point"));
}

std::optional<Timeline::FaultRecord> Timeline::last_fault() const {
  const std::lock_guard lock(mutex_);
  return last_fault_;
}

}  // namespace accelmm
