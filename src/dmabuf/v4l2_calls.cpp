// SPDX-License-Identifier: Apache-2.0
#include "dmabuf/v4l2_calls.hpp"

#include "base/system_call.hpp"

#include <limits>

#include <linux/videodev2.h>
#include <sys/ioctl.h>

namespace accelmm::v4l2 {

namespace {

constexpr std::uint32_t capture = V4L2_BUF_TYPE_VIDEO_CAPTURE;

// The names of ioctls are the sites of fault injection.
struct Call {
  unsigned long request;
  const char* site;
  const char* failed;
};

template <class Argument>
Result<void> make(FdView node, const Call& call, Argument& argument) {
  const int done =
      sys::system_call(call.site, [&] { return ::ioctl(node.get(), call.request, &argument); });
  if (done != 0) return fail_errno(errno, call.failed);
  return {};
}

Format from_kernel(const v4l2_format& format) {
  const v4l2_pix_format& pixels = format.fmt.pix;
  return {.width = pixels.width,
          .height = pixels.height,
          .pixel_format = pixels.pixelformat,
          .bytes_per_line = pixels.bytesperline,
          .image_size = pixels.sizeimage};
}

v4l2_format to_kernel(const Format& format) {
  v4l2_format made{};
  made.type = capture;
  made.fmt.pix.width = format.width;
  made.fmt.pix.height = format.height;
  made.fmt.pix.pixelformat = format.pixel_format;
  made.fmt.pix.bytesperline = format.bytes_per_line;
  made.fmt.pix.field = V4L2_FIELD_NONE;
  return made;
}

Result<Format> format_call(FdView node, const Call& call, v4l2_format format) {
  if (auto done = make(node, call, format); !done) return fail(done.error());
  return from_kernel(format);
}

Result<v4l2_buffer> to_kernel(const Slot& slot) {
  if (slot.length.value() > std::numeric_limits<std::uint32_t>::max())
    return fail(Errc::overflow, "V4L2 knows no buffers of 4 GiB and more");
  v4l2_buffer buffer{};
  buffer.index = slot.index;
  buffer.type = capture;
  buffer.memory = V4L2_MEMORY_DMABUF;
  buffer.m.fd = slot.buffer.get();
  buffer.length = static_cast<std::uint32_t>(slot.length.value());
  return buffer;
}

Result<void> slot_call(FdView node, const Call& call, const Slot& slot) {
  auto buffer = to_kernel(slot);
  if (!buffer) return fail(buffer.error());
  return make(node, call, *buffer);
}

}  // namespace

Result<Captures> captures(FdView node) {
  v4l2_capability found{};
  auto done = make(node, {VIDIOC_QUERYCAP, "VIDIOC_QUERYCAP", "not a V4L2 device"}, found);
  if (!done) return fail(done.error());
  const std::uint32_t caps =
      (found.capabilities & V4L2_CAP_DEVICE_CAPS) != 0 ? found.device_caps : found.capabilities;
  constexpr std::uint32_t wanted = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
  return (caps & wanted) == wanted ? Captures::yes : Captures::no;
}

Result<std::optional<std::uint32_t>> pixel_format(FdView node, std::uint32_t index) {
  v4l2_fmtdesc found{};
  found.index = index;
  found.type = capture;
  auto done = make(node, {VIDIOC_ENUM_FMT, "VIDIOC_ENUM_FMT", "listing formats failed"}, found);
  if (done) return found.pixelformat;
  if (done.error().code == Errc::invalid_argument) return std::nullopt;
  return fail(done.error());
}

Result<Format> get_format(FdView node) {
  v4l2_format format{};
  format.type = capture;
  return format_call(node, {VIDIOC_G_FMT, "VIDIOC_G_FMT", "reading the format failed"}, format);
}

Result<Format> try_format(FdView node, const Format& wanted) {
  return format_call(node, {VIDIOC_TRY_FMT, "VIDIOC_TRY_FMT", "trying a format failed"},
                     to_kernel(wanted));
}

Result<Format> set_format(FdView node, const Format& wanted) {
  return format_call(node, {VIDIOC_S_FMT, "VIDIOC_S_FMT", "setting the format failed"},
                     to_kernel(wanted));
}

Result<std::uint32_t> least_buffers(FdView node) {
  v4l2_control control{};
  control.id = V4L2_CID_MIN_BUFFERS_FOR_CAPTURE;
  auto done = make(node, {VIDIOC_G_CTRL, "VIDIOC_G_CTRL", "reading a control failed"}, control);
  if (done) return control.value < 0 ? 0U : static_cast<std::uint32_t>(control.value);
  const Errc code = done.error().code;
  if (code == Errc::invalid_argument || code == Errc::unknown_ioctl) return 0U;
  return fail(done.error());
}

Result<std::uint32_t> request_buffers(FdView node, std::uint32_t count) {
  v4l2_requestbuffers request{};
  request.count = count;
  request.type = capture;
  request.memory = V4L2_MEMORY_DMABUF;
  auto done =
      make(node, {VIDIOC_REQBUFS, "VIDIOC_REQBUFS", "driver captures into no dma-bufs"}, request);
  if (!done) return fail(done.error());
  return request.count;
}

Result<void> prepare(FdView node, const Slot& slot) {
  return slot_call(
      node, {VIDIOC_PREPARE_BUF, "VIDIOC_PREPARE_BUF", "driver does not take the buffer"}, slot);
}

Result<void> queue(FdView node, const Slot& slot) {
  return slot_call(node, {VIDIOC_QBUF, "VIDIOC_QBUF", "driver does not take the buffer"}, slot);
}

Result<Filled> dequeue(FdView node) {
  v4l2_buffer buffer{};
  buffer.type = capture;
  buffer.memory = V4L2_MEMORY_DMABUF;
  auto done = make(node, {VIDIOC_DQBUF, "VIDIOC_DQBUF", "no frame"}, buffer);
  if (!done) return fail(done.error());
  if ((buffer.flags & V4L2_BUF_FLAG_ERROR) != 0)
    return fail(Errc::io_error, "the frame is damaged");
  return Filled{
      .index = buffer.index, .used = ByteCount(buffer.bytesused), .sequence = buffer.sequence};
}

Result<void> stream_on(FdView node) {
  int type = static_cast<int>(capture);
  return make(node, {VIDIOC_STREAMON, "VIDIOC_STREAMON", "driver does not begin to capture"}, type);
}

Result<void> stream_off(FdView node) {
  int type = static_cast<int>(capture);
  return make(node, {VIDIOC_STREAMOFF, "VIDIOC_STREAMOFF", "driver does not end to capture"}, type);
}

}  // namespace accelmm::v4l2
