// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernel/vm/nodes.hpp"

#include <accelmm/trial_import.hpp>

#include <cerrno>
#include <cstdlib>
#include <string>

#include <linux/dma-heap.h>
#include <linux/udmabuf.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xf86drm.h>
#include <xf86drmMode.h>

/// Where the guest's dma-bufs come from, asked of the kernel itself: an oracle for what the library
/// says of them.
namespace accelmm::kernel_test {

/// Memory of a sealed memfd as a dma-buf.
[[nodiscard]] inline Result<UniqueFd> make_udmabuf(ByteCount size, FdView memory) {
  const UniqueFd node = opened("/dev/udmabuf");
  udmabuf_create request{};
  request.memfd = static_cast<std::uint32_t>(memory.get());
  request.flags = UDMABUF_FLAGS_CLOEXEC;
  request.size = size.value();
  UniqueFd made(::ioctl(node.get(), UDMABUF_CREATE, &request));
  if (!made.valid()) return fail_errno(errno, "UDMABUF_CREATE");
  return made;
}

[[nodiscard]] inline UniqueFd sealed_memory(ByteCount size) {
  UniqueFd memory(::memfd_create("guest", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (::ftruncate(memory.get(), static_cast<off_t>(size.value())) != 0) return {};
  if (::fcntl(memory.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0) return {};
  return memory;
}

[[nodiscard]] inline BufferSource udmabuf_source() {
  return {.description = {.heap = "udmabuf",
                          .largest = ByteCount(64 << 20),
                          .can = {Use::cpu_map, Use::pin, Use::vmap, Use::attach, Use::charged}},
          .allocate = [](ByteCount size) -> Result<UniqueFd> {
            return make_udmabuf(size, sealed_memory(size).view());
          }};
}

[[nodiscard]] inline BufferSource system_heap_source() {
  return {.description = {.heap = "system", .can = {Use::cpu_map, Use::vmap, Use::attach}},
          .allocate = [](ByteCount size) -> Result<UniqueFd> {
            const UniqueFd heap = opened("/dev/dma_heap/system", O_RDONLY);
            dma_heap_allocation_data request{};
            request.len = size.value();
            request.fd_flags = O_RDWR | O_CLOEXEC;
            if (::ioctl(heap.get(), DMA_HEAP_IOCTL_ALLOC, &request) != 0)
              return fail_errno(errno, "DMA_HEAP_IOCTL_ALLOC");
            return UniqueFd(static_cast<int>(request.fd));
          }};
}

/// A dumb buffer of a DRM driver.
[[nodiscard]] inline BufferSource dumb_source(const std::string& driver) {
  return {.description = {.heap = driver + " dumb", .can = {Use::cpu_map, Use::vmap, Use::attach}},
          .allocate = [driver](ByteCount size) -> Result<UniqueFd> {
            const UniqueFd card = drm_card(driver);
            std::uint32_t handle = 0;
            std::uint32_t pitch = 0;
            std::uint64_t made = 0;
            const auto rows = static_cast<std::uint32_t>(size.value() / 4096);
            if (drmModeCreateDumbBuffer(card.get(), 1024, rows, 32, 0, &handle, &pitch, &made) != 0)
              return fail_errno(errno, "CREATE_DUMB");
            int fd = -1;
            if (drmPrimeHandleToFD(card.get(), handle, DRM_CLOEXEC | DRM_RDWR, &fd) != 0)
              return fail_errno(errno, "PRIME_HANDLE_TO_FD");
            return UniqueFd(fd);  // the card closes, the buffer stays
          }};
}

/// What a V4L2 driver exports of its own memory. The buffer lives on when the node closes.
[[nodiscard]] inline BufferSource expbuf_source(const std::string& node) {
  return {.description = {.heap = "EXPBUF", .can = {Use::cpu_map, Use::vmap, Use::attach}},
          .allocate = [node](ByteCount size) -> Result<UniqueFd> {
            const UniqueFd camera = opened(node);
            v4l2_format format{};
            format.type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
            format.fmt.pix.width = 1280;
            format.fmt.pix.height = 720;
            format.fmt.pix.pixelformat = V4L2_PIX_FMT_XBGR32;
            if (::ioctl(camera.get(), VIDIOC_S_FMT, &format) != 0)
              return fail_errno(errno, "S_FMT");
            if (format.fmt.pix.sizeimage < size.value())
              return fail(Errc::no_memory, "its images are smaller");
            v4l2_requestbuffers room{};
            room.count = 1;
            room.type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
            room.memory = V4L2_MEMORY_MMAP;
            if (::ioctl(camera.get(), VIDIOC_REQBUFS, &room) != 0)
              return fail_errno(errno, "REQBUFS");
            v4l2_exportbuffer exported{};
            exported.type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
            exported.flags = O_CLOEXEC | O_RDWR;
            if (::ioctl(camera.get(), VIDIOC_EXPBUF, &exported) != 0)
              return fail_errno(errno, "EXPBUF");
            return UniqueFd(exported.fd);
          }};
}

/// The path of the first vivid node that captures; of the given number where there are several.
[[nodiscard]] inline std::string vivid_capture_node(int number = 0) {
  for (int node = 0; node < 64; ++node) {
    const std::string path = "/dev/video" + std::to_string(node);
    const UniqueFd fd = opened(path);
    v4l2_capability found{};
    if (!fd.valid() || ::ioctl(fd.get(), VIDIOC_QUERYCAP, &found) != 0) continue;
    if (std::string("vivid") != reinterpret_cast<const char*>(found.driver)) continue;
    constexpr std::uint32_t wanted = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
    if ((found.device_caps & wanted) == wanted && number-- == 0) return path;
  }
  return {};
}

/// Loads vivid again. `allocators` 0: memory from vmalloc, 1: contiguous and below 4 GiB.
inline void reload_vivid(int allocators) {
  const std::string command =
      "modprobe -r vivid && modprobe vivid allocators=" + std::to_string(allocators);
  if (std::system(command.c_str()) != 0) std::abort();
}

}  // namespace accelmm::kernel_test
