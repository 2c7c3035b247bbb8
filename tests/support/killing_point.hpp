// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/fault_injection.hpp>

#include <atomic>
#include <cstdlib>
#include <new>

#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

namespace accelmm::test {

/// Kills an application with SIGKILL when a process passes its k-th fault-injection point of one
/// call.
///
/// Lives in memory that forked processes share. The test chooses whose points count and which of
/// them kills; the application begins and ends the counting around the one call.
class KillingPoint {
 public:
  /// Whose points count.
  enum class Side : int { application, driver };

  KillingPoint() {
    void* const page =
        ::mmap(nullptr, sizeof(State), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) std::abort();
    state_ = new (page) State;
  }
  KillingPoint(const KillingPoint&) = delete;
  KillingPoint& operator=(const KillingPoint&) = delete;
  ~KillingPoint() { ::munmap(state_, sizeof(State)); }

  /// The test: the `number`-th point of that side from begin() on kills; the first is 1.
  void choose(Side side, long number) {
    state_->counting.store(false);
    state_->side.store(side);
    state_->number.store(number);
    state_->passed.store(0);
    state_->killed.store(false);
  }
  /// The test, when the application is gone.
  void stop() { state_->counting.store(false); }
  /// Whether the point was reached.
  [[nodiscard]] bool killed() const { return state_->killed.load(); }

  /// The application, before and after the call.
  void begin() {
    state_->victim.store(::getpid());
    state_->counting.store(true);
  }
  void end() { state_->counting.store(false); }

  /// Watches the points of the calling process.
  void watch(Side side) {
    fault_injection::install(side == Side::driver ? &driver_hook : &application_hook, state_);
  }

 private:
  struct State {
    std::atomic<bool> counting{false};
    std::atomic<Side> side{Side::application};
    std::atomic<long> number{0};
    std::atomic<long> passed{0};
    std::atomic<pid_t> victim{0};
    std::atomic<bool> killed{false};
  };

  static bool reached(State& state, Side side) {
    if (!state.counting.load() || state.side.load() != side) return false;
    if (++state.passed != state.number.load()) return false;
    state.killed.store(true);
    return true;
  }
  static int application_hook(void* context, const char* /*site*/) noexcept {
    if (reached(*static_cast<State*>(context), Side::application)) ::kill(::getpid(), SIGKILL);
    return 0;
  }
  // Goes on only when the victim is gone, so that the rest of the call is for nobody.
  static int driver_hook(void* context, const char* /*site*/) noexcept {
    State& state = *static_cast<State*>(context);
    if (!reached(state, Side::driver)) return 0;
    const auto victim = static_cast<int>(::syscall(SYS_pidfd_open, state.victim.load(), 0));
    if (victim < 0) std::abort();
    ::kill(state.victim.load(), SIGKILL);
    pollfd gone{.fd = victim, .events = POLLIN, .revents = 0};
    while (::poll(&gone, 1, -1) != 1) {
    }
    ::close(victim);
    return 0;
  }

  State* state_;
};

}  // namespace accelmm::test
