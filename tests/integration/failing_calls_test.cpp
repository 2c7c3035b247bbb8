// SPDX-License-Identifier: Apache-2.0
//
// The k-th system call of each call of an application fails, for each k, on its own side and on the
// driver's: the call fails cleanly, or happens, or the session is over; nothing leaks.
#include "support/failing_session.hpp"

#include <accelmm/fault_injection.hpp>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <iostream>
#include <string_view>
#include <thread>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

using test::Path;

enum class Side { application, driver };

// Errnos that a system call can give; each run of the test takes one of each row.
constexpr std::size_t runs = 3;
struct SiteErrors {
  std::string_view site;
  std::array<int, runs> errors;
};
constexpr std::array<int, runs> common_errors{EMFILE, ENOMEM, ENOSPC};
// What io_uring gives is not any errno: of io_uring_enter(2) the loop relies on that.
constexpr std::array special_errors = {
    SiteErrors{"io_uring_enter", {EAGAIN, ENOMEM, EBUSY}},
    SiteErrors{"io_uring_accept", {EMFILE, ENOMEM, ECONNABORTED}},
    SiteErrors{"io_uring_recvmsg", {ECONNRESET, ENOMEM, ETIMEDOUT}},
};

int error_of(std::string_view site, std::size_t run) {
  for (const auto& special : special_errors)
    if (special.site == site) return special.errors.at(run);
  return common_errors.at(run);
}

// One for the whole program: a thread may still be in the hook when it is removed.
struct HookState {
  std::thread::id application;
  Side side = Side::application;
  std::size_t run = 0;
  std::atomic<long> number{0};
  std::atomic<long> passed{0};
};
HookState hook_state;

int hook(void* /*context*/, const char* site) noexcept {
  const bool own = std::this_thread::get_id() == hook_state.application;
  if (own != (hook_state.side == Side::application)) return 0;
  if (++hook_state.passed != hook_state.number.load()) return 0;
  return error_of(site, hook_state.run);
}

class FailingCallOfASide final : public test::Trouble {
 public:
  FailingCallOfASide(Side side, std::size_t run) {
    hook_state.application = std::this_thread::get_id();
    hook_state.side = side;
    hook_state.run = run;
  }
  void begin(long number) override {
    hook_state.passed = 0;
    hook_state.number = number;
    fault_injection::install(&hook, nullptr);
  }
  bool end() override {
    fault_injection::install(nullptr, nullptr);
    return hook_state.passed.load() >= hook_state.number.load();
  }
};

class FailingSystemCalls : public test::FailingSession {
 protected:
  FailingSystemCalls() : FailingSession([](const std::string&) { return std::size_t{0}; }) {}

  void fail_in_each_call(Side side, Path path) {
    for (std::size_t run = 0; run < runs && !HasFailure(); ++run) {
      FailingCallOfASide trouble(side, run);
      long total = fail_connect_at_each_point(path, trouble);
      std::cout << "run " << run << "\n  connect: " << total << "\n";
      for (const auto& call : test::session_calls()) {
        const long points = fail_at_each_point(call, path, trouble);
        std::cout << "  " << call.name << ": " << points << "\n";
        EXPECT_TRUE(points > 0 || path == Path::embedded) << call.name;
        total += points;
        if (HasFailure()) return;
      }
      const long closing = side == Side::driver ? fail_close_at_each_point(path, trouble) : 0;
      std::cout << "  close: " << closing << "\n  together: " << total + closing << std::endl;
    }
    expect_whole_regions();
  }
};

TEST_F(FailingSystemCalls, OfTheApplicationLeaveNothingBehind) {
  fail_in_each_call(Side::application, Path::socket);
}

TEST_F(FailingSystemCalls, OfTheDriverLeaveNothingBehind) {
  fail_in_each_call(Side::driver, Path::socket);
}

TEST_F(FailingSystemCalls, OfTheApplicationInEmbeddedModeLeaveNothingBehind) {
  fail_in_each_call(Side::application, Path::embedded);
}

TEST_F(FailingSystemCalls, OfTheDriverInEmbeddedModeLeaveNothingBehind) {
  fail_in_each_call(Side::driver, Path::embedded);
}

}  // namespace
}  // namespace accelmm
