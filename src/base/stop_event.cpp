// SPDX-License-Identifier: Apache-2.0
#include "base/stop_event.hpp"

#include "base/system.hpp"

#include <cerrno>
#include <cstdint>
#include <span>

namespace accelmm {

Result<StopEvent> StopEvent::create() {
  auto fd = sys::eventfd();
  if (!fd) return fail(fd.error());
  return StopEvent(std::move(*fd));
}

void StopEvent::set() noexcept {
  const int interrupted = errno;  // a signal handler must leave it alone
  const std::uint64_t one = 1;
  static_cast<void>(sys::write(fd_.view(), std::as_bytes(std::span(&one, 1))));
  errno = interrupted;
}

void StopEvent::wait() const {
  // Nobody reads the event, so it stays set. A wait that the system refuses is tried again.
  while (sys::poll_one(fd_.view(), POLLIN, -1).value_or(0) == 0) {
  }
}

}  // namespace accelmm
