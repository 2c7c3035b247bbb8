// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/access.hpp>
#include <accelmm/completion.hpp>
#include <accelmm/units.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

namespace accelmm {

/// What a device's engine could not reach.
struct Fault {
  DeviceAddr address;
  Access access;  ///< what was refused
  std::uint32_t asid;
  std::uint32_t engine;  ///< the driver's numbering
  std::uint32_t level;   ///< page-table level where the walk ended; 0 is the root
};

/// A monotonic counter that others wait for: jobs of a session, or changes of its address space.
///
/// Points are taken in order by next() and reached in order: reaching n reaches all before it. A
/// point may fail instead; then whoever waits for exactly that point gets its error, and later
/// points are unaffected.
/// Threads   all functions from any thread; completions run in the thread that reaches the point.
/// Lifetime  shared: a job that ends after its session may still reach its point.
class Timeline {
 public:
  /// Sees what monitoring counts: how many points ended, and the fault if one of them failed by
  /// one.
  using Observer = std::function<void(std::uint64_t ended, const std::optional<Fault>& fault)>;
  /// `observer` is called under no lock by the thread that ends points. May be empty.
  explicit Timeline(Observer observer = {}) : observer_(std::move(observer)) {}

  /// Takes the next point; the first one is 1.
  [[nodiscard]] std::uint64_t next();
  /// The last point reached; 0 before any.
  [[nodiscard]] std::uint64_t reached() const;
  /// Whether every point that was given out has ended.
  [[nodiscard]] bool is_idle() const;
  /// Ends `point` and all before it. A point already reached is ignored.
  void reach(std::uint64_t point);
  /// Ends `point` with an error, and all before it without.
  void fail(std::uint64_t point, Errc code);
  /// Ends `point` with Errc::fault and keeps what happened for last_fault().
  void fail(std::uint64_t point, const Fault& fault);

  /// The outcome of a point, or nothing while it is pending. Outcomes of the last 64 failures are
  /// kept. A point that next() never gave out reads as Errc::invalid_argument.
  [[nodiscard]] std::optional<Result<void>> outcome(std::uint64_t point) const;
  using WaiterId = std::uint64_t;
  /// Calls `done` with the outcome once there is one, at once if there is (then the id is 0).
  WaiterId when_reached(std::uint64_t point, Completion done);
  /// Forgets a waiter, whose completion ends as `canceled`; one that has ended is ignored.
  void cancel(WaiterId waiter);
  /// Ends all waiting with `code`; points stay as they are.
  void abandon_waiters(Errc code);

  struct FaultRecord {
    Fault fault;
    std::uint64_t point;
    std::uint64_t time_ns;  ///< CLOCK_MONOTONIC
    std::uint64_t count;    ///< faults on this timeline so far
  };
  [[nodiscard]] std::optional<FaultRecord> last_fault() const;

 private:
  struct Waiter {
    WaiterId id;
    std::uint64_t point;
    Completion done;
  };
  struct Failure {
    std::uint64_t point;
    Errc code;
  };
  void end(std::uint64_t point, std::optional<Errc> code, const std::optional<Fault>& fault);
  [[nodiscard]] std::optional<std::pair<Completion, Result<void>>> take_due();
  [[nodiscard]] std::optional<Result<void>> outcome_locked(std::uint64_t point) const;

  Observer observer_;
  mutable std::mutex mutex_;
  std::uint64_t last_ = 0;
  std::uint64_t reached_ = 0;
  // The last failures; older ones are forgotten and read as reached: whoever waits for a job learns
  // of its end long before 64 others have failed.
  std::array<Failure, 64> failures_{};
  std::size_t failed_ = 0;
  std::vector<Waiter> waiters_;
  WaiterId last_waiter_ = 0;
  std::optional<FaultRecord> last_fault_;
};

}  // namespace accelmm
