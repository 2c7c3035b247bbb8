// SPDX-License-Identifier: Apache-2.0
#include "bus/window_bus.hpp"

#include "base/mapping.hpp"

#include <accelmm/check.hpp>

#include <new>

// An access to host memory holds the lock shared from the check of what is attached to the end of
// the copy, so that detach(), which takes it exclusively, has waited for every access that it must
// end. The locks are taken in the order bus, window. Accesses to device memory need no lock of the
// bus.

namespace accelmm {

namespace {

constexpr ByteCount largest_window{WindowBus::host_base.value()};

Extent extent_of(Run run) {
  return {RegionOffset(run.address.value() - WindowBus::host_base.value()), run.length};
}

Run run_of(Extent extent) {
  return {WindowBus::host_base + ByteCount(extent.offset.value()), extent.length};
}

RegionOffset host_offset(BusAddr address) {
  return RegionOffset(address.value() - WindowBus::host_base.value());
}

}  // namespace

WindowBus::WindowBus(MemoryWindow* device, MemoryWindow& host) : device_(device), host_(host) {
  ACCELMM_CHECK(device == nullptr || device->size() <= largest_window);
  ACCELMM_CHECK(host.size() <= largest_window);
}

WindowBus::~WindowBus() {
  const ReaderLock lock(mutex_);
  ACCELMM_CHECK(attached_.empty());
}

Result<void> WindowBus::check_extents(std::span<const Extent> host_extents) const {
  const Alignment page(host_page_size().value());
  const ByteCount size = host_.size();
  for (const auto& [offset, length] : host_extents) {
    if (length == ByteCount() || !page.divides(offset) || !page.divides(length))
      return fail(Errc::invalid_argument, "attached memory is not whole pages");
    if (offset.value() > size.value() || length.value() > size.value() - offset.value())
      return fail(Errc::invalid_argument, "attached memory is outside the window");
  }
  return {};
}

void WindowBus::remove_extents(std::span<const Extent> host_extents) noexcept {
  for (const Extent& extent : host_extents) attached_.remove(extent);
}

Result<std::vector<Run>> WindowBus::attach(std::span<const Extent> host_extents,
                                           Access /*access*/) {
  if (const auto valid = check_extents(host_extents); !valid) return fail(valid.error());
  std::vector<Run> runs;
  try {
    runs.reserve(host_extents.size());
  } catch (const std::bad_alloc&) {
    return fail(Errc::no_memory, "no memory for bus addresses");
  }
  const WriterLock lock(mutex_);
  for (std::size_t i = 0; i < host_extents.size(); ++i) {
    if (const auto added = attached_.add(host_extents[i]); !added) {
      remove_extents(host_extents.first(i));
      return fail(added.error());
    }
    runs.push_back(run_of(host_extents[i]));
  }
  return runs;
}

void WindowBus::detach(std::span<const Run> runs) noexcept {
  const WriterLock lock(mutex_);
  for (const Run& run : runs) {
    ACCELMM_CHECK(run.address >= host_base);
    attached_.remove(extent_of(run));
  }
}

Result<void> WindowBus::read(BusAddr address, std::span<std::byte> into) {
  if (address < host_base) {
    if (device_ == nullptr) return fail(Errc::fault, "bus read where nothing is");
    return device_->read(RegionOffset(address.value()), into);
  }
  const ReaderLock lock(mutex_);
  if (!attached_.covers(host_offset(address), ByteCount(into.size())))
    return fail(Errc::fault, "bus read of host memory that is not attached");
  return host_.read(host_offset(address), into);
}

Result<void> WindowBus::write(BusAddr address, std::span<const std::byte> from) {
  if (address < host_base) {
    if (device_ == nullptr) return fail(Errc::fault, "bus write where nothing is");
    return device_->write(RegionOffset(address.value()), from);
  }
  const ReaderLock lock(mutex_);
  if (!attached_.covers(host_offset(address), ByteCount(from.size())))
    return fail(Errc::fault, "bus write to host memory that is not attached");
  return host_.write(host_offset(address), from);
}

BusAddr WindowBus::device(RegionOffset offset) const {
  ACCELMM_CHECK(device_ != nullptr);
  ACCELMM_CHECK(offset.value() < device_->size().value());
  return BusAddr(offset.value());
}

RegionOffset WindowBus::device_offset(BusAddr address) const {
  ACCELMM_CHECK(device_ != nullptr);
  ACCELMM_CHECK(address.value() < device_->size().value());
  return RegionOffset(address.value());
}

}  // namespace accelmm
