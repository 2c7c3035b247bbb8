// SPDX-License-Identifier: Apache-2.0
#include "devices/session_bus_mappings.hpp"

#include <accelmm/check.hpp>

#include <algorithm>
#include <iterator>
#include <utility>

namespace accelmm::devices {
namespace {

// An engine takes one address and a length.
bool is_one_range(const std::vector<Run>& runs) {
  for (std::size_t i = 1; i < runs.size(); ++i)
    if (runs[i].address != runs[i - 1].address + runs[i - 1].length) return false;
  return !runs.empty();
}

}  // namespace

// The IOMMU is told before attach() and detach() return, so every point is reached at once.
std::uint64_t SessionBusMappings::next_reached_point() {
  const std::uint64_t point = timeline_.next();
  timeline_.reach(point);
  return point;
}

auto SessionBusMappings::map(View view, mmu::Placement placement, Access access, Charge charge)
    -> Result<Mapped> {
  if (view.allocation->domain() != Domain::host)
    return fail(Errc::not_supported, "device memory is not on the host's bus");
  if (!allows(view.allocation->device_access(), access))
    return fail(Errc::not_permitted, "buffer is read-only for devices");
  if (placement.kind == mmu::Placement::Kind::fixed)
    return fail(Errc::not_supported, "the bus of this device chooses addresses");
  const auto extents = view.allocation->slice(view.offset, view.length);
  const ByteCount length = view.length;
  // The entry is made first: once memory is attached, nothing that is left to do can fail.
  Mappings entry;
  Mapping& mapping =
      entry.emplace(DeviceAddr(0), Mapping{std::move(view), {}, access, std::move(charge)})->second;
  auto runs = bus_.attach(extents, access);
  if (!runs) return fail(runs.error());
  if (!is_one_range(*runs)) {
    bus_.detach(*runs);
    return fail(Errc::not_supported, "the bus gives this memory several addresses");
  }
  mapping.attached = std::move(*runs);
  auto node = entry.extract(entry.begin());
  node.key() = DeviceAddr(mapping.attached.front().address.value());
  const DeviceAddr address = node.key();
  mappings_.insert(std::move(node));
  mapped_ += length;
  return Mapped{address, next_reached_point()};
}

Result<std::uint64_t> SessionBusMappings::unmap(DeviceAddr start) {
  const auto found = mappings_.find(start);
  if (found == mappings_.end())
    return fail(Errc::invalid_argument, "no mapping begins at this address");
  bus_.detach(found->second.attached);
  mapped_ -= found->second.view.length;
  mappings_.erase(found);
  return next_reached_point();
}

// Mappings are of whole pages, and two at different addresses do not overlap. Of those at the same
// address all have one access, or they would have another address.
bool SessionBusMappings::reaches(Range<DeviceAddr> range, Access access) const {
  if (range.empty()) return false;
  for (DeviceAddr at = range.begin; at < range.end;) {
    const auto behind = mappings_.upper_bound(at);
    if (behind == mappings_.begin()) return false;
    const auto& [begin, mapping] = *std::prev(behind);
    if (!allows(mapping.access, access) || at - begin >= mapping.view.length) return false;
    at = begin + mapping.view.length;
  }
  return true;
}

void SessionBusMappings::close() noexcept {
  for (const auto& [address, mapping] : mappings_) bus_.detach(mapping.attached);
  mappings_.clear();
  mapped_ = ByteCount(0);
}

}  // namespace accelmm::devices
