// SPDX-License-Identifier: Apache-2.0
#include "dmabuf/deadline.hpp"

#include "base/clock.hpp"
#include "base/system.hpp"

#include <algorithm>

namespace accelmm::dmabuf {

namespace {

constexpr std::uint64_t ns_per_ms = 1'000'000;
// poll(2) counts in an int; a longer wait is made of several.
constexpr std::uint64_t longest_wait_ms = 3'600'000;

// Rounded up, so that a wait does not end before its deadline.
std::uint64_t left_ms(std::uint64_t deadline_ns) {
  const std::uint64_t now_ns = monotonic_ns();
  if (deadline_ns <= now_ns) return 0;
  const std::uint64_t left_ns = deadline_ns - now_ns;
  return left_ns / ns_per_ms + (left_ns % ns_per_ms != 0 ? 1 : 0);
}

}  // namespace

Result<short> poll_until(FdView fd, short events, std::uint64_t deadline_ns) {
  while (true) {
    const std::uint64_t wait_ms = std::min(left_ms(deadline_ns), longest_wait_ms);
    const auto seen = sys::poll_one(fd, events, static_cast<int>(wait_ms));
    if (!seen || *seen != 0) return seen;
    if (wait_ms < longest_wait_ms) return fail(Errc::timed_out, "the deadline passed");
  }
}

}  // namespace accelmm::dmabuf
