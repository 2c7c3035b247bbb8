// SPDX-License-Identifier: Apache-2.0
#include "devices/point_waits.hpp"

#include "base/clock.hpp"
#include "devices/in_loop.hpp"

#include <algorithm>
#include <cerrno>
#include <new>
#include <span>
#include <utility>

namespace accelmm::devices {

Result<Charge> PointWaits::charge() const {
  if (waits_.size() + watches_ >= limit_)
    return fail(Errc::over_quota, "too many calls of this session wait");
  auto charge = Charge::make(user_, ByteCount(0));
  if (!charge) return fail(Errc::over_quota, "too many calls of this user wait");
  return charge;
}

void PointWaits::wait(Timeline& timeline, std::uint64_t point, std::uint64_t deadline_ns,
                      Completion done) {
  if (const auto outcome = timeline.outcome(point)) return done(*outcome);
  if (deadline_ns <= monotonic_ns())
    return done(fail(Errc::timed_out, "point was not reached before the deadline"));
  auto charged = charge();
  if (!charged) return done(fail(charged.error()));
  auto wait = std::make_shared<Wait>(timeline, std::move(done), std::move(*charged));
  waits_.push_back(wait);
  try {
    wait->timer = transport_.call_at(deadline_ns, [this, wait] {
      end(wait, fail(Errc::timed_out, "point was not reached before the deadline"));
    });
    wait->waiter = timeline.when_reached(
        point, in_loop(transport_, [this, held = std::weak_ptr(wait)](Result<void> outcome) {
          if (const auto w = held.lock(); w && w->done) end(w, outcome);
        }));
  } catch (const std::bad_alloc&) {
    end(wait, fail(Errc::no_memory, "no memory for a wait"));
    throw;
  }
}

void PointWaits::end(const std::shared_ptr<Wait>& wait, Result<void> result) {
  const auto at = std::ranges::find(waits_, wait);
  if (at == waits_.end()) return;
  const std::shared_ptr<Wait> ended = std::move(*at);  // `wait` may be *at, or go with the timer
  waits_.erase(at);
  Completion done = std::move(*ended->done);
  ended->done.reset();
  ended->charge = {};
  transport_.cancel_timer(ended->timer);
  ended->timeline.cancel(ended->waiter);
  done(result);
}

Result<UniqueFd> PointWaits::open_events() {
  auto pipe = EventPipe::create();
  if (!pipe) return fail(pipe.error());
  UniqueFd reader = pipe->take_reader();
  events_.emplace(std::move(*pipe));
  lost_events_ = 0;
  return reader;
}

Result<void> PointWaits::watch(Timeline& timeline, const accelmm_point& point) {
  if (!events_) return fail_errno(ENOTCONN, "session has no event descriptor");
  auto charged = charge();
  if (!charged) return fail(charged.error());
  if (const auto outcome = timeline.outcome(point.value);
      outcome && !*outcome && outcome->error().code == Errc::invalid_argument)
    return *outcome;
  auto watch = std::make_shared<Watch>(weak_from_this(), point, std::move(*charged));
  ++watches_;
  try {
    timeline.when_reached(point.value, in_loop(transport_, [watch](Result<void> outcome) {
                            const auto self = watch->waits.lock();
                            if (!self) return;
                            if (watch->accepted)
                              self->end(*watch, outcome);
                            else
                              watch->early = outcome;
                          }));
  } catch (const std::bad_alloc&) {
    --watches_;  // what its dropped completion said is nobody's
    throw;
  }
  watch->accepted = true;
  if (watch->early) end(*watch, *watch->early);
  return {};
}

void PointWaits::end(Watch& watch, Result<void> outcome) {
  --watches_;
  watch.charge = {};
  tell(watch.point, outcome);
}

void PointWaits::tell(const accelmm_point& point, Result<void> outcome) {
  if (!events_) return;
  const accelmm_event event{
      .point = point,
      .status = outcome ? 0 : -static_cast<std::int32_t>(outcome.error().code),
      .lost = lost_events_};
  if (const auto written = events_->write(std::as_bytes(std::span(&event, 1))))
    lost_events_ = 0;
  else
    ++lost_events_;  // nobody reads, or the reader is gone: the next event says how many were lost
}

void PointWaits::abandon(Errc code) {
  while (!waits_.empty()) end(waits_.front(), fail(code, "session has ended"));
  events_.reset();
}

}  // namespace accelmm::devices
