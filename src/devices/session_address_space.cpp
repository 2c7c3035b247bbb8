// SPDX-License-Identifier: Apache-2.0
#include "devices/session_address_space.hpp"

#include "devices/in_loop.hpp"

#include <accelmm/mmu/invalidation_gather.hpp>

#include <algorithm>
#include <span>
#include <utility>

namespace accelmm::devices {
namespace {

// A device sees its own memory at bus addresses from 0 on.
std::vector<Run> on_device(std::span<const Extent> extents) {
  std::vector<Run> runs;
  runs.reserve(extents.size());
  for (const Extent& extent : extents)
    runs.push_back({BusAddr(extent.offset.value()), extent.length});
  return runs;
}

}  // namespace

// What a device may hold stale until it has been invalidated: mappings that are gone from the tables,
// the tables and device addresses they had, and the memory behind them; or that nothing was mapped
// where now something is.
struct SessionAddressSpace::Retired {
  std::shared_ptr<mmu::AddressSpace> tables;
  Bus& bus;
  mmu::InvalidationGather gather;
  Mappings mappings;
  std::optional<std::uint64_t> point;  // of the unmap; none at the end of the session
  std::optional<Completion> moved;     // of mappings that now lead elsewhere

  Retired(std::shared_ptr<mmu::AddressSpace> of, const AddressSpaceBinding& binding)
      : tables(std::move(of)),
        bus(binding.bus),
        gather(binding.asid, binding.hardware.invalidation_policy()) {}

  // Pre: the invalidation is done, or the device is down.
  void release() {
    const mmu::InvalidationDone done(gather.invalidation());
    std::move(gather).release(done);
    for (const auto& [address, mapping] : mappings)
      if (!mapping.attached.empty()) bus.detach(mapping.attached);
    mappings.clear();
  }
};

SessionAddressSpace::SessionAddressSpace(AddressSpaceBinding binding,
                                         std::shared_ptr<mmu::AddressSpace> tables)
    : binding_(std::move(binding)), tables_(std::move(tables)) {}

void SessionAddressSpace::bind(Completion done) {
  binding_.hardware.bind(
      binding_.asid, tables_->root(),
      in_loop(binding_.transport,
              [done = std::move(done)](Result<void> result) mutable { done(result); }));
}

Result<std::vector<Run>> SessionAddressSpace::attach(Mapping& mapping, Access access) const {
  const Allocation& allocation = *mapping.view.allocation;
  const auto extents = allocation.slice(mapping.view.offset, mapping.view.length);
  if (allocation.domain() == Domain::host) {
    auto runs = binding_.bus.attach(extents, access);
    if (runs) mapping.attached = *runs;
    return runs;
  }
  return on_device(extents);
}

auto SessionAddressSpace::map(View view, mmu::Placement placement, Access access, Charge charge)
    -> Result<Mapped> {
  if (!allows(view.allocation->device_access(), access))
    return fail(Errc::not_permitted, "buffer is read-only for devices");
  // The book entry is made first: nothing after the page tables are written can fail.
  Mappings entry;
  Mapping& mapping = entry[DeviceAddr(0)];
  mapping.view = std::move(view);
  mapping.charge = std::move(charge);
  std::shared_ptr<Retired> faults;  // that the device may remember of these addresses
  if (remembers_faults()) faults = std::make_shared<Retired>(tables_, binding_);
  const auto runs = attach(mapping, access);
  if (!runs) return fail(runs.error());
  const auto mapped = tables_->map(*runs, placement, access);
  if (!mapped) {
    if (!mapping.attached.empty()) binding_.bus.detach(mapping.attached);
    return fail(mapped.error());
  }
  auto node = entry.extract(entry.begin());
  node.key() = mapped->range.begin;
  ACCELMM_CHECK(mappings_.insert(std::move(node)).inserted);
  const std::uint64_t point = timeline_.next();
  if (faults != nullptr) {
    faults->gather.add(*mapped);
    faults->point = point;
    invalidate(std::move(faults));
  } else {
    timeline_.reach(point);  // the CPU wrote the tables: the device sees them now
  }
  return Mapped{mapped->range.begin, point};
}

bool SessionAddressSpace::remembers_faults() const {
  return binding_.hardware.invalidation_policy().negative_entries ==
         mmu::InvalidationPolicy::NegativeEntries::cached;
}

void SessionAddressSpace::invalidate(std::shared_ptr<Retired> retired) {
  const mmu::Invalidation invalidation = retired->gather.invalidation();
  ++invalidating_;
  binding_.hardware.invalidate(
      invalidation, in_loop_surely(binding_.transport, when_invalidated(std::move(retired))));
}

Result<std::uint64_t> SessionAddressSpace::unmap(DeviceAddr start) {
  const auto found = mappings_.find(start);
  if (found == mappings_.end())
    return fail(Errc::invalid_argument, "no mapping begins at this address");
  // All that needs memory is made first: from the tables' change on, nothing can fail.
  auto retired = std::make_shared<Retired>(tables_, binding_);
  Completion invalidated = in_loop(binding_.transport, when_invalidated(retired));
  auto unmapped = tables_->unmap(start);
  ACCELMM_CHECK(unmapped.has_value());
  retired->gather.add(std::move(*unmapped));
  retired->mappings.insert(mappings_.extract(found));
  const std::uint64_t point = timeline_.next();
  retired->point = point;
  ++invalidating_;
  binding_.hardware.invalidate(retired->gather.invalidation(), std::move(invalidated));
  return point;
}

auto SessionAddressSpace::prepare_moves(std::span<const MovedAllocation> moved) -> Result<Moving> {
  ACCELMM_CHECK(is_resting());
  Moving moving;
  for (const auto& [start, mapping] : mappings_) {
    const auto found =
        std::ranges::find(moved, mapping.view.allocation, &MovedAllocation::allocation);
    if (found == moved.end()) continue;
    const auto runs = on_device(slice(found->extents, mapping.view.offset, mapping.view.length));
    auto remap = tables_->prepare_remap(start, runs);
    if (!remap) return fail(remap.error());
    moving.remaps.push_back(std::move(*remap));
  }
  if (moving.remaps.empty()) return moving;
  moving.retired = std::make_shared<Retired>(tables_, binding_);
  return moving;
}

void SessionAddressSpace::apply_moves(Moving moving, Completion done) {
  if (moving.remaps.empty()) return done({});
  Retired& retired = *moving.retired;
  for (mmu::Remap& remap : moving.remaps) retired.gather.add(std::move(remap).apply());
  retired.moved.emplace(std::move(done));
  invalidate(std::move(moving.retired));
}

Completion::Function SessionAddressSpace::when_invalidated(std::shared_ptr<Retired> retired) {
  return [this, retired = std::move(retired)](Result<void> result) mutable {
    invalidated(std::exchange(retired, nullptr), result);
  };
}

void SessionAddressSpace::invalidated(std::shared_ptr<Retired> retired, Result<void> result) {
  const auto point = retired->point;
  auto moved = std::exchange(retired->moved, std::nullopt);
  if (result && !point && !moved) forgotten_.emplace(retired->gather.invalidation());
  if (result)
    retired->release();
  else
    quarantine(std::move(retired));
  retired.reset();
  --invalidating_;
  if (moved) return (*moved)(result);
  if (point) {
    if (result)
      timeline_.reach(*point);
    else
      timeline_.fail(*point, result.error().code);
  }
  if (invalidating_ > 0 || !closed_) return;
  if (!point) return finish_close();  // the session's end itself; may destroy this object
  close_idle();
}

void SessionAddressSpace::quarantine(std::shared_ptr<Retired> retired) {
  tainted_ = true;
  binding_.quarantine([kept = std::move(retired)] { kept->release(); });
}

void SessionAddressSpace::close(Completion done) {
  closed_.emplace(std::move(done));
  if (invalidating_ == 0) close_idle();
}

void SessionAddressSpace::close_idle() {
  auto retired = until_memory([&] { return std::make_shared<Retired>(tables_, binding_); });
  retired->gather.add(tables_->unmap_all());
  retired->mappings.swap(mappings_);
  auto unbound = [this, retired = std::move(retired)](Result<void> result) mutable {
    if (!result) {
      quarantine(std::move(retired));
      return finish_close();
    }
    invalidate(std::move(retired));
  };
  binding_.hardware.unbind(binding_.asid, in_loop_surely(binding_.transport, std::move(unbound)));
}

void SessionAddressSpace::finish_close() {
  Completion closed = std::move(*closed_);
  closed_.reset();
  closed({});
}

}  // namespace accelmm::devices
