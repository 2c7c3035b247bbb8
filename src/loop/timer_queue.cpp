// SPDX-License-Identifier: Apache-2.0
#include "loop/timer_queue.hpp"

namespace accelmm {

TimerQueue::TimerId TimerQueue::add(std::uint64_t deadline_ns, Function function) {
  const TimerId id = next_id_;
  const auto place = deadlines_.emplace(id, deadline_ns).first;
  try {
    timers_.emplace(Key(deadline_ns, id), std::move(function));
  } catch (...) {
    deadlines_.erase(place);
    throw;
  }
  ++next_id_;
  return id;
}

bool TimerQueue::cancel(TimerId timer) noexcept {
  const auto found = deadlines_.find(timer);
  if (found == deadlines_.end()) return false;
  // The function may own what cancels other timers when it goes: it is destroyed last.
  const auto node = timers_.extract(Key(found->second, timer));
  deadlines_.erase(found);
  return true;
}

std::optional<std::uint64_t> TimerQueue::next_deadline() const {
  if (timers_.empty()) return std::nullopt;
  return timers_.begin()->first.first;
}

void TimerQueue::run_due(std::uint64_t now_ns) noexcept {
  const TimerId end = next_id_;
  auto at = timers_.begin();
  while (at != timers_.end() && at->first.first <= now_ns) {
    if (at->first.second >= end) {
      ++at;
      continue;
    }
    {
      auto node = timers_.extract(at);
      deadlines_.erase(node.key().second);
      node.mapped()();
    }
    // The function, or its destruction, may have changed the queue: look again from the beginning.
    at = timers_.begin();
  }
}

void TimerQueue::drop() noexcept {
  while (!timers_.empty()) cancel(timers_.begin()->first.second);
}

}  // namespace accelmm
