// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/transport.hpp>

#include <cstdint>
#include <map>
#include <optional>
#include <unordered_map>
#include <utility>

namespace accelmm {

/// Functions to be run at their times, in order of time and, at one time, of asking.
///
/// Threads   the loop's thread.
/// Cost      O(log timers) for each operation.
class TimerQueue {
 public:
  using Function = Transport::Function;
  using TimerId = Transport::TimerId;

  /// Strong guarantee: std::bad_alloc leaves the queue as it was.
  TimerId add(std::uint64_t deadline_ns, Function function);
  /// Returns whether the timer was still there.
  bool cancel(TimerId timer) noexcept;
  /// The earliest time that something is to be run at.
  [[nodiscard]] std::optional<std::uint64_t> next_deadline() const;
  /// Runs what is due at `now_ns`; what gets due by being added meanwhile is for the next time.
  void run_due(std::uint64_t now_ns) noexcept;

  /// Forgets all timers, and those that their functions' destruction adds.
  void drop() noexcept;

 private:
  using Key = std::pair<std::uint64_t, TimerId>;  // deadline, then order of asking
  std::map<Key, Function> timers_;
  std::unordered_map<TimerId, std::uint64_t> deadlines_;
  TimerId next_id_ = 1;
};

}  // namespace accelmm
