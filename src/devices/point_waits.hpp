// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/event_pipe.hpp"

#include <accelmm/account.hpp>
#include <accelmm/completion.hpp>
#include <accelmm/timeline.hpp>
#include <accelmm/transport.hpp>
#include <accelmm/uapi.h>

#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <utility>

namespace accelmm::devices {

/// Who waits for points of one session's timelines: calls with a deadline, and watches that become
/// events.
///
/// Threads   the loop's.
/// Lifetime  shared, because another thread may be reaching a point just now; abandon() before it
/// is destroyed.
class PointWaits : public std::enable_shared_from_this<PointWaits> {
 public:
  /// `user` is charged too.
  PointWaits(Transport& transport, std::uint32_t limit, std::shared_ptr<Account> user)
      : transport_(transport), limit_(limit), user_(std::move(user)) {}
  PointWaits(const PointWaits&) = delete;
  PointWaits& operator=(const PointWaits&) = delete;

  /// Ends `done` with the outcome of the point, or with timed_out at the deadline (0: only asks).
  /// Errors (through done)  over_quota: too many calls wait already.
  void wait(Timeline& timeline, std::uint64_t point, std::uint64_t deadline_ns, Completion done);
  /// Makes the descriptor that events come through; a second call replaces it.
  [[nodiscard]] Result<UniqueFd> open_events();
  /// Writes one event when the point has an outcome.
  /// Errors  ENOTCONN: there is no event descriptor.  over_quota.
  [[nodiscard]] Result<void> watch(Timeline& timeline, const accelmm_point& point);
  /// Ends every wait with `code`.
  void abandon(Errc code);

 private:
  struct Wait {
    Timeline& timeline;
    std::optional<Completion> done;  // empty once it has ended
    Charge charge;
    Timeline::WaiterId waiter = 0;
    Transport::TimerId timer = 0;
  };
  using Waits = std::list<std::shared_ptr<Wait>>;
  struct Watch {
    std::weak_ptr<PointWaits> waits;
    accelmm_point point;
    Charge charge;
    bool accepted = false;              // the call that asked for it has succeeded
    std::optional<Result<void>> early;  // an outcome that came before that
  };

  [[nodiscard]] Result<Charge> charge() const;
  void end(const std::shared_ptr<Wait>& wait, Result<void> result);
  void end(Watch& watch, Result<void> outcome);
  void tell(const accelmm_point& point, Result<void> outcome);

  Transport& transport_;
  std::uint32_t limit_;
  std::shared_ptr<Account> user_;
  Waits waits_;
  std::uint32_t watches_ = 0;
  std::optional<EventPipe> events_;
  std::uint32_t lost_events_ = 0;
};

}  // namespace accelmm::devices
