// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>
#include <accelmm/units.hpp>

#include <string>

#include <fcntl.h>
#include <linux/videodev2.h>
#include <poll.h>
#include <sys/ioctl.h>

/// vivid's camera, which writes frames into dma-bufs by its own mapping of them.
namespace accelmm::dmabuf::guest {

class Camera {
 public:
  /// The first capturing node of vivid; invalid where there is none.
  Camera() {
    for (int number = 0; number < 64 && !node_.valid(); ++number) {
      UniqueFd node(::open(("/dev/video" + std::to_string(number)).c_str(), O_RDWR | O_CLOEXEC));
      v4l2_capability can = {};
      if (!node.valid() || ::ioctl(node.get(), VIDIOC_QUERYCAP, &can) != 0) continue;
      if (std::string(reinterpret_cast<const char*>(can.driver)) == "vivid" &&
          (can.device_caps & V4L2_CAP_VIDEO_CAPTURE) != 0)
        node_ = std::move(node);
    }
    v4l2_format format = {};
    format.type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
    if (node_.valid() && ::ioctl(node_.get(), VIDIOC_G_FMT, &format) == 0)
      frame_ = ByteCount(format.fmt.pix.sizeimage);
  }
  [[nodiscard]] bool valid() const { return node_.valid(); }
  [[nodiscard]] ByteCount frame() const { return frame_; }

  /// One frame into a dma-buf.
  [[nodiscard]] Result<void> capture(FdView buffer) const {
    const auto call = [&](unsigned long request, void* args) {
      return ::ioctl(node_.get(), request, args) == 0;
    };
    v4l2_requestbuffers wanted = {};
    wanted.count = 1;
    wanted.type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
    wanted.memory = V4L2_MEMORY_DMABUF;
    if (!call(VIDIOC_REQBUFS, &wanted)) return fail_errno(errno, "REQBUFS");
    v4l2_buffer frame = {};
    frame.type = wanted.type;
    frame.memory = wanted.memory;
    frame.m.fd = buffer.get();
    int type = static_cast<int>(wanted.type);
    if (!call(VIDIOC_QBUF, &frame)) return fail_errno(errno, "QBUF");
    if (!call(VIDIOC_STREAMON, &type)) return fail_errno(errno, "STREAMON");
    pollfd entry{node_.get(), POLLIN, 0};
    Result<void> done;
    if (::poll(&entry, 1, 20'000) != 1) {
      done = fail(Errc::timed_out, "no frame came");
    } else if (!call(VIDIOC_DQBUF, &frame)) {
      done = fail_errno(errno, "DQBUF");
    }
    static_cast<void>(call(VIDIOC_STREAMOFF, &type));
    wanted.count = 0;
    static_cast<void>(call(VIDIOC_REQBUFS, &wanted));
    return done;
  }

 private:
  UniqueFd node_;
  ByteCount frame_;
};

}  // namespace accelmm::dmabuf::guest
