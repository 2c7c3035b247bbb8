// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/access.hpp>
#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>
#include <accelmm/units.hpp>

#include <cstdint>
#include <span>
#include <string>

/// The calls of libdrm that accelmm makes, each once, as base/system.hpp has those of the kernel:
/// close-on-exec always, errno turned into Error, a fault-injection point passed first.
namespace accelmm::drm {

/// The name of the driver behind a node: "vgem", "amdgpu".
[[nodiscard]] Result<std::string> driver_name(FdView node);
/// Gives up the right to set modes, which who opens a card's node first gets unasked.
[[nodiscard]] Result<void> drop_master(FdView node);
/// A DRM_CAP_* of xf86drm.h's drm.h; 0 where the driver does not know it.
[[nodiscard]] Result<std::uint64_t> capability(FdView node, std::uint64_t which);

// --- objects: 32-bit handles of one open node ---
/// Plain memory of the driver's, at least `size`.
struct DumbObject {
  std::uint32_t handle;
  ByteCount size;
};
[[nodiscard]] Result<DumbObject> create_dumb(FdView node, ByteCount size);
/// Cannot fail for handles that the node gave out.
void close_handle(FdView node, std::uint32_t handle) noexcept;
/// PRIME: the dma-buf of an object.
[[nodiscard]] Result<UniqueFd> export_handle(FdView node, std::uint32_t handle);
/// PRIME: the object of a dma-buf. The same handle as before while that is open.
[[nodiscard]] Result<std::uint32_t> import_dma_buf(FdView node, FdView buffer);

// --- synchronisation objects ---
[[nodiscard]] Result<std::uint32_t> create_syncobj(FdView node);
void destroy_syncobj(FdView node, std::uint32_t syncobj) noexcept;
/// Makes the fence of a sync_file the object's.
[[nodiscard]] Result<void> set_syncobj_fence(FdView node, std::uint32_t syncobj, FdView fence);
/// The object's fence as a sync_file.
/// Errors  invalid_argument: it has none.
[[nodiscard]] Result<UniqueFd> syncobj_fence(FdView node, std::uint32_t syncobj);
/// Copies the fence of one point to another; point 0 is that of an object without a timeline.
struct SyncPoint {
  std::uint32_t syncobj;
  std::uint64_t point;
};
[[nodiscard]] Result<void> transfer_fence(FdView node, SyncPoint to, SyncPoint from);
/// Signals a point of a timeline from the CPU.
[[nodiscard]] Result<void> signal_point(FdView node, SyncPoint point);
/// The last point that was reached.
[[nodiscard]] Result<std::uint64_t> reached_point(FdView node, std::uint32_t syncobj);
/// Waits until a point is reached, also one that nobody has given a fence yet.
/// Errors  timed_out: not by then, a time of CLOCK_MONOTONIC.
[[nodiscard]] Result<void> wait_for_point(FdView node, SyncPoint point, std::uint64_t deadline_ns);

}  // namespace accelmm::drm
