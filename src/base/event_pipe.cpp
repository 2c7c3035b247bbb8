// SPDX-License-Identifier: Apache-2.0
#include "base/event_pipe.hpp"

#include "base/system.hpp"

namespace accelmm {

Result<EventPipe> EventPipe::create() {
  auto ends = sys::socket_pair();
  if (!ends) return fail(ends.error());
  return EventPipe(std::move(ends->first), std::move(ends->second));
}

Result<void> EventPipe::write(std::span<const std::byte> event) {
  return sys::send_packet(writer_.view(), event, {}, MSG_DONTWAIT);
}

}  // namespace accelmm
