// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/access.hpp>
#include <accelmm/fd.hpp>

#include <cstdint>

#include <gtest/gtest.h>
#include <xf86drm.h>

/// vgem's two ioctls, with which a program is a driver that works on a dma-buf. No Debian package has
/// the kernel's header of them (include/uapi/drm/vgem_drm.h).
namespace accelmm::dmabuf::guest {

struct VgemFenceAttach {
  std::uint32_t handle;
  std::uint32_t flags;  // 1: writes
  std::uint32_t out_fence;
  std::uint32_t pad;
};
static_assert(sizeof(VgemFenceAttach) == 16, "the kernel's");
struct VgemFenceSignal {
  std::uint32_t fence;
  std::uint32_t flags;
};
static_assert(sizeof(VgemFenceSignal) == 8, "the kernel's");

/// The driver begins to read, or to write, an object: its dma-buf has a fence from now on, for ten
/// seconds at most.
[[nodiscard]] inline std::uint32_t begin_work(FdView node, std::uint32_t object, Access access) {
  VgemFenceAttach args{object, allows(access, Access::write) ? 1U : 0U, 0, 0};
  EXPECT_EQ(0, drmIoctl(node.get(), DRM_IOWR(DRM_COMMAND_BASE + 1, VgemFenceAttach), &args));
  return args.out_fence;
}
inline void end_work(FdView node, std::uint32_t fence) {
  VgemFenceSignal args{fence, 0};
  EXPECT_EQ(0, drmIoctl(node.get(), DRM_IOW(DRM_COMMAND_BASE + 2, VgemFenceSignal), &args));
}

}  // namespace accelmm::dmabuf::guest
