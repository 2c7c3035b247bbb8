// SPDX-License-Identifier: Apache-2.0
#include "base/process_mark.hpp"
#include "client/buffer_calls.hpp"
#include "client/link.hpp"
#include "dmabuf/cpu_access.hpp"

#include <accelmm/buffer.hpp>

#include <utility>

namespace accelmm {

// Forked children do not have the range (MADV_DONTFORK). A child that destroys its copy of the
// object must not unmap what it may have mapped there itself.
struct CpuMapping::Place {
  Mapping mapping;
  std::shared_ptr<dmabuf::CpuBrackets> brackets;  // of a dma-buf
  ProcessMark maker;
};

CpuMapping::CpuMapping(Mapping mapping, std::shared_ptr<dmabuf::CpuBrackets> brackets)
    : place_(new Place{std::move(mapping), std::move(brackets), ProcessMark()}),
      bytes_(place_->mapping.bytes()) {}

CpuMapping::CpuMapping(CpuMapping&& other) noexcept
    : place_(std::move(other.place_)), bytes_(std::exchange(other.bytes_, {})) {}

CpuMapping& CpuMapping::operator=(CpuMapping&& other) noexcept {
  if (this == &other) return *this;
  end();
  place_ = std::move(other.place_);
  bytes_ = std::exchange(other.bytes_, {});
  return *this;
}

CpuMapping::~CpuMapping() {
  end();
}

void CpuMapping::end() noexcept {
  bytes_ = {};
  // In a child the object itself is given up too: destroying it would unmap.
  if (place_ != nullptr && place_->maker.in_forked_child()) static_cast<void>(place_.release());
  place_.reset();
}

Result<CpuAccess> CpuMapping::begin_access(Access access, std::uint64_t deadline_ns) const {
  if (!is_valid(access)) return fail(Errc::invalid_argument, "no such access");
  if (place_ == nullptr) return fail(Errc::invalid_argument, "nothing is mapped");
  if (place_->brackets == nullptr) return CpuAccess(nullptr, access);
  return place_->brackets->begin(access, deadline_ns);
}

Result<void> CpuMapping::move_over(std::byte* target) {
  if (auto moved = place_->mapping.move_over(target); !moved) return moved;
  end();
  return {};
}

DeviceMapping::DeviceMapping(std::shared_ptr<ClientLink> link, DeviceAddr address, ByteCount size,
                             Point point)
    : link_(std::move(link)), address_(address), size_(size), point_(point) {}

DeviceMapping& DeviceMapping::operator=(DeviceMapping&& other) noexcept {
  if (this == &other) return *this;
  if (link_ != nullptr) static_cast<void>(unmap());
  link_ = std::move(other.link_);
  address_ = other.address_;
  size_ = other.size_;
  point_ = other.point_;
  return *this;
}

DeviceMapping::~DeviceMapping() {
  if (link_ != nullptr) static_cast<void>(unmap());
}

Result<Point> DeviceMapping::unmap() {
  if (link_ == nullptr) return fail(Errc::invalid_argument, "it is unmapped already");
  const auto point = unmap_device(*link_, address_);
  if (point) link_.reset();
  return point;
}

DeviceAddr DeviceMapping::release() noexcept {
  link_.reset();
  return address_;
}

Buffer::Buffer(std::shared_ptr<ClientLink> link, std::uint64_t handle, ByteCount size,
               Access access)
    : link_(std::move(link)), handle_(handle), size_(size), access_(access) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  if (this == &other) return *this;
  if (link_ != nullptr) static_cast<void>(free());
  link_ = std::move(other.link_);
  handle_ = other.handle_;
  size_ = other.size_;
  access_ = other.access_;
  return *this;
}

Buffer::~Buffer() {
  if (link_ != nullptr) static_cast<void>(free());
}

Result<void> Buffer::free() {
  if (link_ == nullptr) return fail(Errc::invalid_argument, "the buffer was given up already");
  const auto freed = free_buffer(*link_, handle_);
  if (freed) link_.reset();
  return freed;
}

std::uint64_t Buffer::release() noexcept {
  link_.reset();
  return handle_;
}

Result<CpuMapping> Buffer::map_cpu(Access access) const {
  return map_cpu(whole(), access);
}

Result<CpuMapping> Buffer::map_cpu(BufferRange range, Access access) const {
  if (link_ == nullptr) return fail(Errc::invalid_argument, "the buffer was given up");
  return accelmm::map_cpu(*link_, {handle_, range}, access);
}

Result<DeviceMapping> Buffer::map_device(Access access, DevicePlacement placement) const {
  return map_device(whole(), access, placement);
}

Result<DeviceMapping> Buffer::map_device(BufferRange range, Access access,
                                         DevicePlacement placement) const {
  if (link_ == nullptr) return fail(Errc::invalid_argument, "the buffer was given up");
  const auto mapped = accelmm::map_device(*link_, {handle_, range}, access, placement);
  if (!mapped) return fail(mapped.error());
  return DeviceMapping(link_, mapped->address, range.size(), mapped->point);
}

Result<Export> Buffer::export_view() const {
  return export_view(whole());
}

Result<Export> Buffer::export_view(BufferRange range) const {
  if (link_ == nullptr) return fail(Errc::invalid_argument, "the buffer was given up");
  return accelmm::export_view(*link_, {handle_, range});
}

Result<BackingReport> Buffer::backing(std::uint64_t deadline_ns) const {
  if (link_ == nullptr) return fail(Errc::invalid_argument, "the buffer was given up");
  const auto backing = read_backing(*link_, handle_, deadline_ns);
  if (!backing) return fail(backing.error());
  return report_from_wire(*backing);
}

}  // namespace accelmm
