// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>
#include <accelmm/units.hpp>

#include <cstdint>
#include <optional>
#include <string>

/// The ioctls of V4L2 that accelmm makes, each once, as base/system.hpp has the system's calls: every
/// struct zero where nothing is said, errno turned into Error, a fault-injection point passed first.
/// Of single-planar capture, with memory that others made.
namespace accelmm::v4l2 {

/// Whether a node captures images, single-planar, by streaming.
enum class Captures : std::uint8_t { no, yes };
[[nodiscard]] Result<Captures> captures(FdView node);

/// How images lie, by V4L2's own fourcc.
struct Format {
  std::uint32_t width = 0;
  std::uint32_t height = 0;
  std::uint32_t pixel_format = 0;
  std::uint32_t bytes_per_line = 0;  // of the first plane
  std::uint32_t image_size = 0;
  bool operator==(const Format&) const = default;
};

/// The pixel format at an index; nothing behind the last.
[[nodiscard]] Result<std::optional<std::uint32_t>> pixel_format(FdView node, std::uint32_t index);
[[nodiscard]] Result<Format> get_format(FdView node);
/// What the driver would make of a format; set_format() makes it so.
[[nodiscard]] Result<Format> try_format(FdView node, const Format& wanted);
[[nodiscard]] Result<Format> set_format(FdView node, const Format& wanted);
/// Buffers that the driver must hold to capture; 0: it does not say.
[[nodiscard]] Result<std::uint32_t> least_buffers(FdView node);

/// Makes room for buffers, 0 to take it back; returns how many there are.
/// Errors  busy: it streams, or they are in use.
[[nodiscard]] Result<std::uint32_t> request_buffers(FdView node, std::uint32_t count);
/// A dma-buf in the room of an index.
struct Slot {
  std::uint32_t index = 0;
  FdView buffer;
  ByteCount length;
};
/// Attaches and maps, and does not capture yet.
[[nodiscard]] Result<void> prepare(FdView node, const Slot& slot);
[[nodiscard]] Result<void> queue(FdView node, const Slot& slot);
struct Filled {
  std::uint32_t index = 0;
  ByteCount used;
  std::uint32_t sequence = 0;  // of the frame; what is left out was dropped
};
/// Errors  try_again: none yet.  io_error: the frame is damaged.
[[nodiscard]] Result<Filled> dequeue(FdView node);
[[nodiscard]] Result<void> stream_on(FdView node);
[[nodiscard]] Result<void> stream_off(FdView node);

}  // namespace accelmm::v4l2
