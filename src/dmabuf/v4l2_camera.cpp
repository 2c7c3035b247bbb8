// SPDX-License-Identifier: Apache-2.0
#include "base/system.hpp"
#include "dmabuf/v4l2_calls.hpp"
#include "dmabuf/v4l2_formats.hpp"

#include <accelmm/v4l2_camera.hpp>

#include <algorithm>
#include <utility>

#include <drm_fourcc.h>
#include <fcntl.h>

namespace accelmm {

namespace {

// More than any line has: a driver that can pad lines answers with its longest.
constexpr std::uint32_t beyond_any_line = std::uint32_t{1} << 24;
// One is filled while another waits to be; a driver that needs more says so.
constexpr std::uint32_t least_to_capture = 2;
constexpr std::uint32_t most_buffers = 32;  // VIDEO_MAX_FRAME

bool is_exactly(const v4l2::Format& found, std::uint32_t pixel_format, const ImageSize& size) {
  return found.pixel_format == pixel_format && found.width == size.width &&
         found.height == size.height && found.bytes_per_line != 0;
}

// videobuf2 does not see that a buffer is too small before it maps it, and then says EFAULT, as for
// one that is scattered.
Result<void> check_size(FdView buffer, ByteCount length) {
  const auto status = sys::fstat(buffer);
  if (!status) return fail(status.error());
  if (status->st_size < 0 || static_cast<std::uint64_t>(status->st_size) < length.value())
    return fail(Errc::invalid_argument, "the buffer is smaller than agreed");
  return {};
}

// What a refusal means for a V4L2 driver: videobuf2 for contiguous memory counts how much of a buffer
// lies in one piece, and fails with EFAULT where that is less than the image.
Error meaning(const Error& error) {
  if (error.code == Errc::fault)
    return {error.code, "it wants contiguous memory, and the buffer's pages are scattered"};
  if (error.code == Errc::invalid_argument)
    return {error.code, "it is no dma-buf, or the driver's bus does not reach it"};
  return error;
}

}  // namespace

Result<std::unique_ptr<V4l2Camera>> V4l2Camera::open(const std::string& node) {
  auto fd = sys::open(node, O_RDWR | O_NONBLOCK);
  if (!fd) return fail(fd.error());
  const auto captures = v4l2::captures(fd->view());
  if (!captures) return fail(captures.error());
  if (*captures == v4l2::Captures::no)
    return fail(Errc::not_supported, "node captures no images, single-planar");
  return std::unique_ptr<V4l2Camera>(new V4l2Camera(*std::move(fd), "camera " + node));
}

V4l2Camera::~V4l2Camera() {
  if (!buffers_.empty()) (void)end();
}

Result<void> V4l2Camera::add_format(std::uint32_t pixel_format, const ImageSize& size,
                                    Constraints& wanted) {
  const auto fourcc = v4l2::drm_format(pixel_format);
  if (!fourcc) return {};
  v4l2::Format asked{.width = size.width, .height = size.height, .pixel_format = pixel_format};
  const auto least = v4l2::try_format(node_.view(), asked);
  if (!least) return fail(least.error());
  if (!is_exactly(*least, pixel_format, size)) return {};
  asked.bytes_per_line = beyond_any_line;
  const auto longest = v4l2::try_format(node_.view(), asked);
  if (!longest) return fail(longest.error());
  const auto cost = static_cast<std::uint32_t>(wanted.images->size());
  wanted.images->emplace(FormatPattern{.fourcc = fourcc, .modifier = DRM_FORMAT_MOD_LINEAR},
                         ImageConstraints{.min_stride = ByteCount(least->bytes_per_line),
                                          .max_stride = ByteCount(std::max(longest->bytes_per_line,
                                                                           least->bytes_per_line)),
                                          .rows = least->image_size / least->bytes_per_line,
                                          .min_size = ByteCount(least->image_size),
                                          .cost = cost});
  return {};
}

Result<Constraints> V4l2Camera::constraints(const ImageSize& size) {
  Constraints wanted;
  wanted.needs = {Use::attach};
  wanted.domains = {CoherenceDomain::cpu, CoherenceDomain::ram};
  wanted.images.emplace();
  for (std::uint32_t index = 0;; ++index) {
    const auto pixel_format = v4l2::pixel_format(node_.view(), index);
    if (!pixel_format) return fail(pixel_format.error());
    if (!*pixel_format) break;
    if (auto added = add_format(**pixel_format, size, wanted); !added) return fail(added.error());
  }
  if (wanted.images->empty())
    return fail(Errc::not_supported, "camera has no format of this size that others know");
  const auto least = v4l2::least_buffers(node_.view());
  if (!least) return fail(least.error());
  wanted.counts = {.camping = std::max(*least, least_to_capture), .max = most_buffers};
  asked_ = size;
  return wanted;
}

Result<void> V4l2Camera::set_format(const Agreement& agreement) {
  if (!agreement.image || !asked_)
    return fail(Errc::invalid_argument, "the agreement is not on images of this camera");
  const auto pixel_format = v4l2::pixel_format_of(agreement.image->format.fourcc);
  if (!pixel_format || agreement.image->stride.value() > beyond_any_line)
    return fail(Errc::not_supported, "camera does not know the agreed format");
  const v4l2::Format wanted{
      .width = asked_->width,
      .height = asked_->height,
      .pixel_format = *pixel_format,
      .bytes_per_line = static_cast<std::uint32_t>(agreement.image->stride.value())};
  const auto set = v4l2::set_format(node_.view(), wanted);
  if (!set) return fail(set.error());
  if (!is_exactly(*set, *pixel_format, *asked_) || set->bytes_per_line != wanted.bytes_per_line ||
      set->image_size > agreement.size.value())
    return fail(Errc::not_supported, "camera does not keep to the agreed format");
  return {};
}

// The room for the buffer goes again in any case: with it the driver lets go of what it attached.
Result<void> V4l2Camera::try_prepared(FdView buffer, ByteCount length) {
  if (auto large = check_size(buffer, length); !large) return large;
  if (auto room = v4l2::request_buffers(node_.view(), 1); !room) return fail(room.error());
  const auto taken = v4l2::prepare(node_.view(), {.index = 0, .buffer = buffer, .length = length});
  const auto given_back = v4l2::request_buffers(node_.view(), 0);
  if (!taken) return fail(meaning(taken.error()));
  if (!given_back) return fail(given_back.error());
  return {};
}

Result<void> V4l2Camera::try_import(FdView buffer, const Agreement& agreement) {
  if (!buffers_.empty()) return fail(Errc::busy, "camera captures");
  const auto before = v4l2::get_format(node_.view());
  if (!before) return fail(before.error());
  auto tried = set_format(agreement);
  if (tried) tried = try_prepared(buffer, agreement.size);
  const auto restored = v4l2::set_format(node_.view(), *before);
  if (!tried) return tried;
  if (!restored) return fail(restored.error());
  return {};
}

Result<void> V4l2Camera::begin(const Agreement& agreement, std::span<const FdView> buffers) {
  if (!buffers_.empty()) return fail(Errc::busy, "camera captures");
  if (buffers.empty() || buffers.size() > most_buffers)
    return fail(Errc::invalid_argument, "1 to 32 buffers");
  for (const FdView buffer : buffers) {
    if (auto large = check_size(buffer, agreement.size); !large) return large;
  }
  if (auto set = set_format(agreement); !set) return set;
  const auto count = static_cast<std::uint32_t>(buffers.size());
  const auto room = v4l2::request_buffers(node_.view(), count);
  if (!room) return fail(room.error());
  Result<void> begun;
  if (*room != count) begun = fail(Errc::not_supported, "driver wants another number of buffers");
  for (std::uint32_t index = 0; begun && index < count; ++index)
    begun = v4l2::queue(node_.view(),
                        {.index = index, .buffer = buffers[index], .length = agreement.size});
  if (begun) begun = v4l2::stream_on(node_.view());
  if (!begun) {
    // The first failure is the answer; the room goes, and with it what was queued.
    (void)v4l2::request_buffers(node_.view(), 0);
    return fail(meaning(begun.error()));
  }
  buffers_.assign(buffers.begin(), buffers.end());
  length_ = agreement.size;
  return {};
}

Result<V4l2Camera::Frame> V4l2Camera::next(int timeout_ms) {
  if (buffers_.empty()) return fail(Errc::invalid_argument, "camera does not capture");
  const auto events = sys::poll_one(node_.view(), POLLIN, timeout_ms);
  if (!events) return fail(events.error());
  if (*events == 0) return fail(Errc::timed_out, "no frame in time");
  const auto filled = v4l2::dequeue(node_.view());
  if (!filled) return fail(filled.error());
  if (filled->index >= buffers_.size())
    return fail(Errc::protocol_error, "driver names a buffer that it was not given");
  return Frame{.buffer = filled->index, .used = filled->used, .sequence = filled->sequence};
}

Result<void> V4l2Camera::give_back(const Frame& frame) {
  if (frame.buffer >= buffers_.size())
    return fail(Errc::invalid_argument, "not a frame of this camera");
  return v4l2::queue(node_.view(),
                     {.index = frame.buffer, .buffer = buffers_[frame.buffer], .length = length_});
}

Result<void> V4l2Camera::end() {
  if (buffers_.empty()) return fail(Errc::invalid_argument, "camera does not capture");
  const auto stopped = v4l2::stream_off(node_.view());
  const auto given_back = v4l2::request_buffers(node_.view(), 0);
  buffers_.clear();
  if (!stopped) return stopped;
  if (!given_back) return fail(given_back.error());
  return {};
}

}  // namespace accelmm
