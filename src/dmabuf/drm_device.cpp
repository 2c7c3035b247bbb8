// SPDX-License-Identifier: Apache-2.0
#include "dmabuf/drm_device.hpp"

#include "base/system.hpp"
#include "dmabuf/drm_calls.hpp"

#include <accelmm/check.hpp>

#include <new>

#include <fcntl.h>

namespace accelmm::dmabuf {

Result<std::vector<std::string>> drm_nodes(const std::string& folder) {
  const auto names = sys::list_folder(folder);
  if (!names) return fail(names.error());
  std::vector<std::string> nodes;
  for (const std::string& name : *names)
    if (name.starts_with("card") || name.starts_with("renderD"))
      nodes.push_back(std::string(folder).append("/").append(name));
  return nodes;
}

Result<std::shared_ptr<DrmDevice>> DrmDevice::open(const std::string& node, const Limits& limits) {
  // libdrm's ioctls want no mode, but a mapping of the node would.
  auto fd = sys::open(node, O_RDWR);
  if (!fd) return fail(fd.error());
  auto name = drm::driver_name(fd->view());
  if (!name) {
    if (name.error().code != Errc::unknown_ioctl) return fail(name.error());
    return fail(Errc::not_supported, "not a node of a DRM device");
  }
  if (const auto dropped = drm::drop_master(fd->view()); !dropped) return fail(dropped.error());
  return std::shared_ptr<DrmDevice>(new DrmDevice(std::move(*fd), std::move(*name), limits));
}

DrmDevice::DrmDevice(UniqueFd node, std::string name, const Limits& limits)
    : MemorySource(std::make_shared<Account>(Account::Options{.limits = {.bytes = limits.total}})),
      node_(std::move(node)),
      name_(std::move(name)),
      largest_(limits.largest) {}

Capabilities DrmDevice::capabilities() const {
  return {.kind = DescriptorKind::dma_buf,
          .parts = Can::no,
          .scattered = Can::no,
          .read_only = Can::no,
          .huge_pages = Can::no,
          .accounted = Can::yes,
          .largest = largest_,
          .most_ranges = 1};
}

Result<DmaBuf> DrmDevice::make(ByteCount size, Access /*access*/) {
  const auto made = drm::create_dumb(node_.view(), size);
  if (!made) return fail(made.error());
  // The dma-buf keeps the memory; the handle is of no more use.
  auto fd = drm::export_handle(node_.view(), made->handle);
  drm::close_handle(node_.view(), made->handle);
  if (!fd) return fail(fd.error());
  return DmaBuf::adopt(std::move(*fd));
}

Result<std::unique_ptr<DrmDevice::Object>> DrmDevice::import(FdView buffer) {
  const MutexLock lock(mutex_);
  const auto handle = drm::import_dma_buf(node_.view(), buffer);
  if (!handle) return fail(handle.error());
  try {
    auto object = std::make_unique<Object>(shared_from_this(), *handle, Object::Held::not_yet);
    ++holders_[*handle];
    object->held_ = Object::Held::yes;
    return object;
  } catch (const std::bad_alloc&) {
    if (!holders_.contains(*handle)) drm::close_handle(node_.view(), *handle);
    return fail(Errc::no_memory, "no memory for an object of a DRM device");
  }
}

void DrmDevice::drop(std::uint32_t handle) noexcept {
  const MutexLock lock(mutex_);
  const auto found = holders_.find(handle);
  ACCELMM_CHECK(found != holders_.end());
  if (--found->second > 0) return;
  holders_.erase(found);
  drm::close_handle(node_.view(), handle);
}

Result<DmaBuf> DrmDevice::export_object(const Object& object) {
  auto fd = drm::export_handle(node_.view(), object.handle());
  if (!fd) return fail(fd.error());
  return DmaBuf::adopt(std::move(*fd));
}

}  // namespace accelmm::dmabuf
