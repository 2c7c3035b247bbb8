// SPDX-License-Identifier: Apache-2.0
#include "npu.hpp"

#include <algorithm>
#include <cstdio>
#include <cstring>

namespace demo {

using namespace accelmm;

Outcome<Npu> Npu::open(std::uint32_t device, const std::string& directory) {
  auto client = Client::connect(device, NodeKind::compute, directory);
  if (!client) return refuse("cannot open accel" + std::to_string(device), client.error());
  return Npu(std::move(*client));
}

Outcome<NpuBuffer> Npu::allocate(ByteCount size, Domain domain) {
  auto buffer = client_.allocate(size, {.domain = domain});
  if (!buffer)
    return refuse("cannot allocate " + std::to_string(size.value()) + " bytes of " +
                      (domain == Domain::host ? "host" : "device") + " memory",
                  buffer.error());
  return map(std::move(*buffer), Access::read_write);
}

Outcome<NpuBuffer> Npu::map(Buffer buffer, Access access) {
  auto mapping = buffer.map_device(access);
  if (!mapping) return refuse("cannot map a buffer for " + name(), mapping.error());
  if (auto usable = client_.wait(mapping->point()); !usable)
    return refuse("cannot map a buffer for " + name(), usable.error());
  return NpuBuffer{std::move(buffer), std::move(*mapping)};
}

Outcome<void> Npu::copy(DeviceAddr from, DeviceAddr to, ByteCount length) {
  accelmm_npu_copy args{};
  args.source = from.value();
  args.destination = to.value();
  args.length = length.value();
  if (auto submitted = client_.ioctl(ACCELMM_IOCTL_NPU_COPY, args); !submitted)
    return refuse(name() + " takes no copy", submitted.error());
  points_.push_back(args.point.value);
  return {};
}

Outcome<void> Npu::convolve(const Pass& pass, Rows from, Rows to, Size size) {
  accelmm_npu_convolve args{};
  args.source = from.address.value();
  args.destination = to.address.value();
  args.source_stride = from.stride;
  args.destination_stride = to.stride;
  args.width = size.width;
  args.height = size.height;
  args.shift = pass.shift;
  args.bias = pass.bias;
  args.flags = pass.flags;
  std::ranges::copy(pass.kernel, args.kernel);
  if (auto submitted = client_.ioctl(ACCELMM_IOCTL_NPU_CONVOLVE, args); !submitted)
    return refuse(name() + " takes no convolution", submitted.error());
  points_.push_back(args.point.value);
  return {};
}

Outcome<void> Npu::filter(std::span<const Pass> passes, const Frame& from, const Frame& to) {
  if (from.width > ACCELMM_NPU_MAX_WIDTH) return filter_in_strips(passes, from, to);
  for (const Pass& pass : passes)
    if (auto submitted = convolve(pass, {from.address, from.width}, {to.address, to.width},
                                  {from.width, from.height});
        !submitted)
      return submitted;
  return {};
}

Outcome<void> Npu::filter_in_strips(std::span<const Pass> passes, const Frame& from,
                                    const Frame& to) {
  // The outer columns of a strip have neighbours that it does not hold: it is computed one column
  // wider on each side into the scratch buffer, and only what is right is moved to its place.
  constexpr std::uint32_t inner = ACCELMM_NPU_MAX_WIDTH - 2;
  constexpr Pass move{{0, 0, 0, 0, 1, 0, 0, 0, 0}, 0, 0, 0};
  auto scratch =
      allocate(ByteCount(std::uint64_t{ACCELMM_NPU_MAX_WIDTH} * from.height), Domain::device);
  if (!scratch) return refuse(scratch.error());
  for (std::uint32_t left = 0; left < from.width;) {
    const std::uint32_t width = std::min(inner, from.width - left);
    const std::uint32_t before = left == 0 ? 0 : 1;
    const std::uint32_t after = left + width == from.width ? 0 : 1;
    const Size size{before + width + after, from.height};
    const Rows wide{from.address + ByteCount(left - before), from.width};
    const Rows middle{scratch->address(), size.width};
    for (const Pass& pass : passes)
      if (auto submitted = convolve(pass, wide, middle, size); !submitted) return submitted;
    if (auto submitted = convolve(move, {scratch->address() + ByteCount(before), size.width},
                                  {to.address + ByteCount(left), to.width}, {width, from.height});
        !submitted)
      return submitted;
    left += width;
  }
  scratch_.push_back(std::move(*scratch));
  return {};
}

Outcome<void> Npu::finish() {
  Outcome<void> outcome;
  for (; finished_ < points_.size(); ++finished_) {
    const auto ended = client_.wait(Point::job(points_[finished_]));
    if (ended || !outcome) continue;
    outcome = ended.error().code == Errc::fault
                  ? refuse("a job of " + name() + " faulted: " + describe_fault())
                  : refuse("a job of " + name() + " failed", ended.error());
  }
  return outcome;
}

std::string Npu::describe_fault() const {
  const auto fault = client_.last_fault();
  if (!fault) return error_text(fault.error().code);
  char text[160];
  std::snprintf(text, sizeof text,
                "job %llu could not %s device address 0x%llx (ASID %u): the walk ended at level %u",
                static_cast<unsigned long long>(fault->point),
                fault->access == ACCELMM_ACCESS_WRITE ? "write" : "read",
                static_cast<unsigned long long>(fault->address), fault->asid, fault->level);
  return text;
}

Outcome<accelmm_info_npu> Npu::counters() const {
  const auto bytes = client_.driver_info(ACCELMM_INFO_NPU - ACCELMM_INFO_DRIVER);
  if (!bytes) return refuse("cannot read the counters of " + name(), bytes.error());
  accelmm_info_npu counters{};
  std::memcpy(&counters, bytes->data(), std::min(bytes->size(), sizeof counters));
  return counters;
}

}  // namespace demo
