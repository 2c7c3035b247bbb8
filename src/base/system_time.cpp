// SPDX-License-Identifier: Apache-2.0
#include "base/system.hpp"
#include "base/system_call.hpp"

#include <accelmm/check.hpp>

#include <sched.h>
#include <time.h>

namespace accelmm::sys {

namespace {

constexpr std::uint64_t ns_per_second = 1'000'000'000;
constexpr std::uint64_t ns_per_ms = 1'000'000;

// What is left of a time limit, rounded up so that a wait never ends early.
int remaining_ms(std::uint64_t deadline_ns) {
  const std::uint64_t now_ns = monotonic_ns();
  if (now_ns >= deadline_ns) return 0;
  return static_cast<int>((deadline_ns - now_ns + ns_per_ms - 1) / ns_per_ms);
}

}  // namespace

Result<short> poll_one(FdView fd, short events, int timeout_ms) {
  if (const int injected = fault_injection::point("poll_one"); injected != 0)
    return fail_errno(injected, "poll failed");
  const bool endless = timeout_ms < 0;
  const std::uint64_t deadline_ns =
      endless ? 0 : monotonic_ns() + static_cast<std::uint64_t>(timeout_ms) * ns_per_ms;
  int wait_ms = timeout_ms;
  while (true) {
    pollfd entry{.fd = fd.get(), .events = events, .revents = 0};
    if (::poll(&entry, 1, wait_ms) >= 0) return entry.revents;
    if (errno != EINTR) return fail_errno(errno, "poll failed");
    if (!endless) wait_ms = remaining_ms(deadline_ns);
  }
}

Result<int> poll_any(std::span<pollfd> entries, int timeout_ms) {
  if (const int injected = fault_injection::point("poll_any"); injected != 0)
    return fail_errno(injected, "poll failed");
  const int count = ::poll(entries.data(), entries.size(), timeout_ms);
  if (count >= 0) return count;
  if (errno == EINTR) return 0;
  return fail_errno(errno, "poll failed");
}

std::uint64_t monotonic_ns() noexcept {
  timespec now = {};
  ACCELMM_CHECK(::clock_gettime(CLOCK_MONOTONIC, &now) == 0);
  return static_cast<std::uint64_t>(now.tv_sec) * ns_per_second +
         static_cast<std::uint64_t>(now.tv_nsec);
}

bool is_on_one_processor() noexcept {
  // More processors than there is room for are an error, and not one.
  cpu_set_t set = {};
  return ::sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) == 1;
}

}  // namespace accelmm::sys
