// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/fault_injection.hpp>

#include <atomic>
#include <cstring>

namespace accelmm::test {

/// Counts the system calls made while it lives and lets the k-th of them fail. One at a time.
class FailingCall {
 public:
  /// `number`  1 is the first call; 0 lets none fail.
  FailingCall(long number, int errno_value) : number_(number), errno_value_(errno_value) {
    fault_injection::install(&hook, this);
  }
  FailingCall(const FailingCall&) = delete;
  FailingCall& operator=(const FailingCall&) = delete;
  ~FailingCall() { fault_injection::install(nullptr, nullptr); }

  [[nodiscard]] long calls() const { return calls_.load(); }

 private:
  static int hook(void* context, const char* /*site*/) noexcept {
    auto* const self = static_cast<FailingCall*>(context);
    return ++self->calls_ == self->number_ ? self->errno_value_ : 0;
  }

  std::atomic<long> calls_{0};
  long number_;
  int errno_value_;
};

/// Lets every system call of one name fail while it lives. One at a time. Where other threads make
/// calls it outlives them, with no name (nullptr) at first.
class FailingSite {
 public:
  FailingSite(const char* site, int errno_value) : site_(site), errno_value_(errno_value) {
    fault_injection::install(&hook, this);
  }
  FailingSite(const FailingSite&) = delete;
  FailingSite& operator=(const FailingSite&) = delete;
  ~FailingSite() { fault_injection::install(nullptr, nullptr); }

  /// From here on it is the calls of this name that fail; nullptr: none.
  void turn_to(const char* site) { site_.store(site); }
  /// How many calls failed.
  [[nodiscard]] long failures() const { return failures_.load(); }

 private:
  static int hook(void* context, const char* site) noexcept {
    auto* const self = static_cast<FailingSite*>(context);
    const char* const failing = self->site_.load();
    if (failing == nullptr || std::strcmp(site, failing) != 0) return 0;
    ++self->failures_;
    return self->errno_value_;
  }

  std::atomic<long> failures_{0};
  std::atomic<const char*> site_;
  int errno_value_;
};

}  // namespace accelmm::test
