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

// `attach` attaches the memory of the mapping, of which all else is there.
template <class Attach>
auto SessionBusMappings::add(Mapping mapping, mmu::Placement placement, Attach attach)
    -> Result<Mapped> {
  if (placement.kind == mmu::Placement::Kind::fixed)
    return fail(Errc::not_supported, "the bus of this device chooses addresses");
  // The entry is made first: once memory is attached, nothing that is left to do can fail.
  Mappings entry;
  Mapping& entered = entry.emplace(DeviceAddr(0), std::move(mapping))->second;
  Result<std::vector<Run>> runs = attach();
  if (!runs) return fail(runs.error());
  if (!is_one_range(*runs)) {
    bus_.detach(*runs);
    return fail(Errc::not_supported, "the bus gives this memory several addresses");
  }
  entered.attached = std::move(*runs);
  const DeviceAddr address(entered.attached.front().address.value());
  mapped_ += entered.length;
  auto node = entry.extract(entry.begin());
  node.key() = address;
  mappings_.insert(std::move(node));
  return Mapped{address, next_reached_point()};
}

auto SessionBusMappings::map(View view, mmu::Placement placement, Access access, Charge charge)
    -> Result<Mapped> {
  if (view.allocation->domain() != Domain::host)
    return fail(Errc::not_supported, "device memory is not on the host's bus");
  if (!allows(view.allocation->device_access(), access))
    return fail(Errc::not_permitted, "buffer is read-only for devices");
  const auto extents = view.allocation->slice(view.offset, view.length);
  return add({.allocation = std::move(view.allocation),
              .length = view.length,
              .access = access,
              .charge = std::move(charge)},
             placement, [&] { return bus_.attach(extents, access); });
}

auto SessionBusMappings::map_memory(std::span<std::byte> memory, mmu::Placement placement,
                                    Access access, Charge charge) -> Result<Mapped> {
  return add({.allocation = nullptr,
              .length = ByteCount(memory.size()),
              .access = access,
              .charge = std::move(charge)},
             placement, [&] { return bus_.attach_memory(memory, access); });
}

Result<std::uint64_t> SessionBusMappings::unmap(DeviceAddr start) {
  const auto found = mappings_.find(start);
  if (found == mappings_.end())
    return fail(Errc::invalid_argument, "no mapping begins at this address");
  bus_.detach(found->second.attached);
  mapped_ -= found->second.length;
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
    if (!allows(mapping.access, access) || at - begin >= mapping.length) return false;
    at = begin + mapping.length;
  }
  return true;
}

void SessionBusMappings::close() noexcept {
  for (const auto& [address, mapping] : mappings_) bus_.detach(mapping.attached);
  mappings_.clear();
  mapped_ = ByteCount(0);
}

}  // namespace accelmm::devices
