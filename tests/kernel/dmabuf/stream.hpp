// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/mapping.hpp"

#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>
#include <accelmm/units.hpp>

#include <cerrno>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <linux/videodev2.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

namespace accelmm::dmabuf::guest {

/// vivid's camera as it streams frames, by the kernel's calls alone: into somebody's dma-bufs, or into
/// memory of its driver.
class Stream {
 public:
  static constexpr unsigned depth = 4;

  [[nodiscard]] static Result<ByteCount> frame_size() {
    const UniqueFd node = open_camera();
    v4l2_format format = {};
    format.type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
    if (::ioctl(node.get(), VIDIOC_G_FMT, &format) != 0) return fail_errno(errno, "G_FMT");
    return ByteCount(format.fmt.pix.sizeimage);
  }

  [[nodiscard]] static Result<Stream> into(std::span<const FdView> buffers) {
    Stream stream(V4L2_MEMORY_DMABUF);
    stream.buffers_.assign(buffers.begin(), buffers.end());
    return begin(std::move(stream));
  }
  [[nodiscard]] static Result<Stream> own() { return begin(Stream(V4L2_MEMORY_MMAP)); }

  /// Waits for a frame. Returns the buffer that it is in.
  [[nodiscard]] Result<unsigned> next() {
    pollfd entry{node_.get(), POLLIN, 0};
    if (::poll(&entry, 1, 20'000) != 1) return fail(Errc::timed_out, "no frame came");
    v4l2_buffer buffer = {};
    buffer.type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
    buffer.memory = memory_;
    if (::ioctl(node_.get(), VIDIOC_DQBUF, &buffer) != 0) return fail_errno(errno, "DQBUF");
    return buffer.index;
  }
  [[nodiscard]] Result<void> give_back(unsigned index) {
    v4l2_buffer buffer = {};
    buffer.type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
    buffer.memory = memory_;
    buffer.index = index;
    if (memory_ == V4L2_MEMORY_DMABUF) buffer.m.fd = buffers_[index].get();
    if (::ioctl(node_.get(), VIDIOC_QBUF, &buffer) != 0) return fail_errno(errno, "QBUF");
    return {};
  }
  /// Of the driver's memory.
  [[nodiscard]] std::span<const std::byte> bytes(unsigned index) const {
    return mappings_[index].bytes();
  }

 private:
  explicit Stream(v4l2_memory memory) : node_(open_camera()), memory_(memory) {}

  static UniqueFd open_camera() {
    for (int number = 0; number < 64; ++number) {
      UniqueFd node(::open(("/dev/video" + std::to_string(number)).c_str(), O_RDWR | O_CLOEXEC));
      v4l2_capability can = {};
      if (!node.valid() || ::ioctl(node.get(), VIDIOC_QUERYCAP, &can) != 0) continue;
      if (std::string("vivid") == reinterpret_cast<const char*>(can.driver) &&
          (can.device_caps & V4L2_CAP_VIDEO_CAPTURE) != 0)
        return node;
    }
    return {};
  }

  [[nodiscard]] static Result<Stream> begin(Stream stream) {
    const int fd = stream.node_.get();
    v4l2_requestbuffers wanted = {};
    wanted.count = depth;
    wanted.type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
    wanted.memory = stream.memory_;
    if (::ioctl(fd, VIDIOC_REQBUFS, &wanted) != 0) return fail_errno(errno, "REQBUFS");
    if (wanted.count != depth) return fail(Errc::no_memory, "other buffers than asked for");
    for (unsigned i = 0; i < depth; ++i) {
      if (stream.memory_ == V4L2_MEMORY_MMAP) {
        v4l2_buffer buffer = {};
        buffer.type = wanted.type;
        buffer.memory = wanted.memory;
        buffer.index = i;
        if (::ioctl(fd, VIDIOC_QUERYBUF, &buffer) != 0) return fail_errno(errno, "QUERYBUF");
        auto mapping = Mapping::create(FdView(fd), buffer.m.offset, ByteCount(buffer.length),
                                       PROT_READ | PROT_WRITE);
        if (!mapping) return fail(mapping.error());
        stream.mappings_.push_back(std::move(*mapping));
      }
      if (const auto given = stream.give_back(i); !given) return fail(given.error());
    }
    int type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
    if (::ioctl(fd, VIDIOC_STREAMON, &type) != 0) return fail_errno(errno, "STREAMON");
    return stream;
  }

  // Closing the node ends the stream. The mappings go first.
  UniqueFd node_;
  v4l2_memory memory_;
  std::vector<FdView> buffers_;
  std::vector<Mapping> mappings_;
};

}  // namespace accelmm::dmabuf::guest
