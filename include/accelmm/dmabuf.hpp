// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/units.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

namespace accelmm {

/// How a driver process shares its memory with kernel drivers and other processes.
struct SharingPolicy {
  /// Whether buffers become dma-bufs where the kernel can make them: /dev/udmabuf.
  enum class Udmabuf : std::uint8_t { if_present, never };
  Udmabuf udmabuf = Udmabuf::if_present;
  /// Heaps of the kernel that memory may be had from, by their names in /dev/dma_heap. Their memory
  /// is charged to nobody and has no limit but these, so that none is used unasked.
  std::vector<std::string> dma_heaps = {};
  /// A DRM node that memory may be had from, such as vgem's. Empty: none.
  std::string drm_node = {};
  /// Of one buffer of a heap or a DRM device, and of all that this process holds of each.
  ByteCount largest_sourced = ByteCount(std::uint64_t{64} << 20);
  ByteCount total_sourced = ByteCount(std::uint64_t{256} << 20);
};

/// A way to share, and why this machine or its policy does not have it.
struct SharingBackEnd {
  std::string name;             ///< "udmabuf", "memfd", "dma-heap system", "drm vgem"
  std::optional<Errc> refused;  ///< none: it is in use
};

/// A dma-buf over memory of this process.
struct ExportedBuffer {
  dev_t
      device;  ///< with the inode it tells dma-bufs apart, as fstat(2) and fdinfo of all who hold it do
  ino_t inode;
  ByteCount offset;  ///< where in its buffer it begins
  ByteCount length;
  std::string name;  ///< as the kernel shows it: "accelmm0:session3"
};

/// The ways in the order in which they are tried, as one line for people: "udmabuf, memfd; not
/// dma-heap system (no such file or directory)".
[[nodiscard]] std::string describe(const std::vector<SharingBackEnd>& back_ends);

}  // namespace accelmm
