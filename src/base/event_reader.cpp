// SPDX-License-Identifier: Apache-2.0
#include "base/event_reader.hpp"

#include "base/system.hpp"

namespace accelmm {

Result<EventReader> EventReader::create(UniqueFd end) {
  if (const auto set = sys::set_nonblocking(end.view()); !set) return fail(set.error());
  auto guard = ForkGuard::adopt(std::move(end));
  if (!guard) return fail(guard.error());
  return EventReader(std::move(*guard));
}

Result<std::size_t> EventReader::read(std::span<std::byte> into) const {
  if (end_.in_forked_child()) return fail(Errc::no_device, "events were read after fork");
  return sys::read(end_.fd(), into);
}

}  // namespace accelmm
