// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>

#include <cstdint>
#include <limits>

namespace accelmm::dmabuf {

/// A deadline that never comes.
constexpr std::uint64_t no_deadline = std::numeric_limits<std::uint64_t>::max();

/// Waits until poll(2) says one of `events`, or that the descriptor has an error or hung up, or a
/// time of CLOCK_MONOTONIC has come; 0 only asks. Returns what it said.
/// Errors  timed_out.  Any value of poll(2).
[[nodiscard]] Result<short> poll_until(FdView fd, short events, std::uint64_t deadline_ns);

}  // namespace accelmm::dmabuf
