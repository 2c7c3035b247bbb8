// SPDX-License-Identifier: Apache-2.0
#include "strip.hpp"

#include <accelmm/sim/edu_uapi.h>

using namespace accelmm;

namespace {

constexpr std::uint32_t strip_rows = 3;
constexpr std::uint32_t from_row = 400;
constexpr std::uint32_t to_row = 300;

// One way between memory and the device's buffer.
Result<void> transfer(const Client& mover, std::uint32_t command, std::uint64_t address,
                      std::uint32_t length) {
  accelmm_edu_copy args{};
  args.address = address;
  args.length = length;
  if (auto sent = mover.ioctl(command, args); !sent) return sent;
  return mover.wait(Point::job(args.point.value));
}

}  // namespace

Result<void> move_strip(const Client& mover, const SharedMemory& memory, const AgreedImage& image) {
  const std::uint64_t stride = image.stride.value();
  const std::uint64_t bytes = strip_rows * stride;
  const std::uint64_t from = from_row * stride + stride / 8;
  if (image.rows < from_row + strip_rows + 1 || bytes > ACCELMM_EDU_BUFFER_SIZE)
    return fail(Errc::not_supported, "the strip does not fit into the picture or the device");
  const std::uint64_t frame = memory.origin_mapping->address().value();
  const auto length = static_cast<std::uint32_t>(bytes);
  if (auto in = transfer(mover, ACCELMM_IOCTL_EDU_COPY_IN, frame + from, length); !in) return in;
  return transfer(mover, ACCELMM_IOCTL_EDU_COPY_OUT, frame + to_row * stride, length);
}
