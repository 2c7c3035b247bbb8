// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/fault_injection.hpp>

#include <cerrno>

namespace accelmm::sys {

/// Passes the point `site`, then makes the call until it is not interrupted.
///
/// Returns what the call returned: -1 with errno set on failure, also when the point made it fail.
/// Not for close(2), which must not be repeated, and not for calls with a timeout.
template <class Call>
[[nodiscard]] auto system_call(const char* site, Call call) -> decltype(call()) {
  if (const int injected = fault_injection::point(site); injected != 0) {
    errno = injected;
    return -1;
  }
  while (true) {
    const auto result = call();
    if (result != -1 || errno != EINTR) return result;
  }
}

}  // namespace accelmm::sys
