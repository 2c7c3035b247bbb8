// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/mutex.hpp"
#include "bus/attached_ranges.hpp"
#include "mm/backing/memory_window.hpp"

#include <accelmm/bus.hpp>

namespace accelmm {

/// The bus of a device whose hardware is a model in this process.
///
/// Device memory is at bus addresses [0, size of the device window), always reachable. Host memory
/// is at host_base plus its offset in the host window, and reachable only while it is attached: as
/// behind an IOMMU. Owns      the set of attached extents; not the windows, which outlive it.
/// Devices may share a host window: each has
///           its own bus, and what one attached is nothing to the others.
/// Threads   any thread. detach() waits for the accesses to host memory that are under way.
/// Lifetime  destroyed with everything detached: checked.
/// Invariant an access reaches attached host memory or the device's own memory, within one of the
/// two, or nothing.
class WindowBus final : public Bus, public BusPort {
 public:
  /// Where host memory begins on the bus. Above every device memory, so that the two cannot be
  /// confused; below 2^48 with as much room again, so that a page-table format with 48-bit bus
  /// addresses can point at all of it. No host window is larger than this: user space has 47 bits
  /// of addresses on x86-64.
  static constexpr BusAddr host_base{std::uint64_t{1} << 47};

  /// Pre     neither window is larger than host_base; both stay where they are.
  /// `device`  null for a device without memory of its own.
  WindowBus(MemoryWindow* device, MemoryWindow& host);
  WindowBus(const WindowBus&) = delete;
  WindowBus& operator=(const WindowBus&) = delete;
  ~WindowBus() override;

  /// Reachable for reading and writing, as far as the place in the window allows it.
  [[nodiscard]] Result<std::vector<Run>> attach(std::span<const Extent> host_extents,
                                                Access access) override;
  using Bus::attach;
  void detach(std::span<const Run> runs) noexcept override;

  [[nodiscard]] Result<void> read(BusAddr address, std::span<std::byte> into) override;
  [[nodiscard]] Result<void> write(BusAddr address, std::span<const std::byte> from) override;

  /// Where the bus sees an offset in device memory, and the reverse.
  /// Pre     the offset, or the address, is one of device memory.
  [[nodiscard]] BusAddr device(RegionOffset offset) const;
  [[nodiscard]] RegionOffset device_offset(BusAddr address) const;

 private:
  [[nodiscard]] Result<void> check_extents(std::span<const Extent> host_extents) const;
  void remove_extents(std::span<const Extent> host_extents) noexcept ACCELMM_REQUIRES(mutex_);

  MemoryWindow* device_;
  MemoryWindow& host_;
  SharedMutex mutex_;
  AttachedRanges attached_ ACCELMM_GUARDED_BY(mutex_);
};

}  // namespace accelmm
