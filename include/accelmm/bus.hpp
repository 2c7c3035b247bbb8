// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/access.hpp>
#include <accelmm/error.hpp>
#include <accelmm/extent.hpp>
#include <accelmm/units.hpp>

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <vector>

namespace accelmm {

/// What a device, or the model of one, reaches memory through: the far side of its own MMU.
///
/// Threads   any thread, at any time, also while memory is attached and detached.
/// Invariant an access reaches memory that is attached or the device's own, or nothing: never a
/// neighbour.
class BusPort {
 public:
  virtual ~BusPort() = default;

  /// Copies memory into `into`. Each aligned 8-byte word of memory is read at once, as hardware
  /// would: an entry of a page table is seen old or new, never half. Errors  fault: a byte of the
  /// range is not there, or is not to be reached (nothing was copied).
  [[nodiscard]] virtual Result<void> read(BusAddr address, std::span<std::byte> into) = 0;

  /// Copies `from` into memory, each aligned 8-byte word that it fills at once.
  /// Errors  fault: as read(), or a byte of the range is read-only (nothing was copied).
  [[nodiscard]] virtual Result<void> write(BusAddr address, std::span<const std::byte> from) = 0;
};

/// Lets a device reach pieces of the host window, and tells at which bus addresses.
///
/// Implemented by the model's window, where host memory has fixed bus addresses, and by VFIO, where
/// the IOMMU gives them. Device memory needs no attaching: a device reaches its own. Threads   any
/// thread; see the implementations for what waits for what.
class Bus {
 public:
  virtual ~Bus() = default;

  /// Makes extents of the host window reachable. Each call counts: an extent attached twice is
  /// reachable until it is detached twice. Pre     the memory stays in place until it is detached.
  /// Returns runs that cover the extents in their order; they go to detach() as they are.
  /// `access`  what the device shall be able to do; a bus that cannot tell reading from writing
  ///         allows both.
  /// Errors  invalid_argument: an extent is empty, not whole pages or outside the window.
  ///         no_memory.  The bus's own: over_quota, not_supported.
  ///         The state is unchanged.
  [[nodiscard]] virtual Result<std::vector<Run>> attach(std::span<const Extent> host_extents,
                                                        Access access) = 0;
  /// For reading and writing.
  [[nodiscard]] Result<std::vector<Run>> attach(std::span<const Extent> host_extents) {
    return attach(host_extents, Access::read_write);
  }

  /// Makes memory of another device reachable: `extents` of what that device calls its own, whose
  /// first byte the host's bus has at `begin`. As attach() otherwise.
  /// Errors  not_supported: this bus reaches no other device; those of attach().
  [[nodiscard]] virtual Result<std::vector<Run>> attach_peer(BusAddr /*begin*/,
                                                             std::span<const Extent> /*extents*/) {
    return fail(Errc::not_supported, "bus reaches no memory of other devices");
  }

  /// Makes memory of this process reachable that is not in the host window, as it lies there. Nothing
  /// is shared with what else is attached of it: addresses may be other memory by the next time.
  /// Pre     the memory stays in place until it is detached; if it does not, the device goes on to
  ///         reach what was there.
  /// Errors  invalid_argument: it is empty or not whole pages.  not_supported: this bus reaches the
  ///         host window only.  As attach() otherwise.
  [[nodiscard]] virtual Result<std::vector<Run>> attach_memory(std::span<std::byte> /*memory*/,
                                                               Access /*access*/) {
    return fail(Errc::not_supported, "bus reaches no memory but the host window");
  }

  /// Takes back what one attach() returned. Once it returns, no access through the bus reaches that
  /// memory any more unless another attach() holds it. Never fails. Pre     nothing translates to
  /// these runs any more: unmapped, and invalidated in the device.
  virtual void detach(std::span<const Run> runs) noexcept = 0;
};

/// Makes a device's bus over the host window as this process maps it: the first byte is at offset 0.
/// Called once, before Driver::probe. The window outlives the bus.
using BusFactory =
    std::function<Result<std::unique_ptr<Bus>>(std::span<const std::byte> host_window)>;

}  // namespace accelmm
