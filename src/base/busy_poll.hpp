// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>

namespace accelmm {

/// Decides whether a thread looks again and again before it goes to sleep.
///
/// Who waits for a few microseconds pays more for going to sleep and being woken, 5 us on bare metal
/// and 30 us on a virtual machine whose processors halt, than he waits. Each wait is foretold by the
/// one before: was that over within the limit, waking up included, the next begins by looking for as
/// long as the limit, otherwise it sleeps at once. After a look in vain, as at the end of a burst,
/// the next wait sleeps; after more in a row, as where the one who is waited for needs this very
/// processor, more of the following waits do.
/// Units     nanoseconds of CLOCK_MONOTONIC.
/// Threads   externally synchronised.
class BusyPoll {
 public:
  /// A limit of 0 never looks.
  explicit BusyPoll(std::uint64_t limit_ns) noexcept : limit_ns_(limit_ns) {}

  /// A wait begins. Returns how long to look before sleeping; 0: not at all.
  [[nodiscard]] std::uint64_t begin() noexcept {
    looks_ = soon_ && skips_ == 0;
    return looks_ ? limit_ns_ : 0;
  }
  /// The wait ended.
  void end(std::uint64_t waited_ns) noexcept {
    soon_ = limit_ns_ != 0 && waited_ns <= limit_ns_;
    if (looks_) {
      penalty_ = soon_ ? 0 : std::min(2 * penalty_ + 1, most_skips);
      skips_ = penalty_;
    } else if (skips_ != 0) {
      --skips_;
    }
  }

 private:
  // One look in vain among so many waits is lost in what they cost.
  static constexpr unsigned most_skips = 1023;

  std::uint64_t limit_ns_;
  bool soon_ = false;     // the last wait was over within the limit
  bool looks_ = false;    // this wait began by looking
  unsigned penalty_ = 0;  // waits that the last look in vain cost; 0 after one that was not
  unsigned skips_ = 0;    // waits to come that sleep at once
};

}  // namespace accelmm
