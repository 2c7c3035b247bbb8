// SPDX-License-Identifier: Apache-2.0
#include "dmabuf/drm_calls.hpp"

#include "base/mapping.hpp"
#include "base/system_call.hpp"

#include <accelmm/check.hpp>

#include <algorithm>
#include <limits>
#include <memory>

#include <fcntl.h>
#include <xf86drm.h>

namespace accelmm::drm {

namespace {

// libdrm answers some calls with a negative errno and others with -1 and errno.
template <class Call>
int call_errno(const char* site, Call call) {
  if (const int injected = fault_injection::point(site); injected != 0) return injected;
  const int result = call();
  if (result == 0) return 0;
  return result < -1 ? -result : errno;
}

}  // namespace

Result<std::string> driver_name(FdView node) {
  if (const int injected = fault_injection::point("drm_driver_name"); injected != 0)
    return fail_errno(injected, "asking a node for its driver failed");
  const std::unique_ptr<drmVersion, void (*)(drmVersionPtr)> version(drmGetVersion(node.get()),
                                                                     drmFreeVersion);
  if (version == nullptr) return fail_errno(errno, "asking a node for its driver failed");
  return std::string(version->name, static_cast<std::size_t>(version->name_len));
}

Result<void> drop_master(FdView node) {
  // libdrm takes every answer but EACCES for a yes, also those of drivers without displays, which
  // then say EINVAL.
  if (drmIsMaster(node.get()) == 0) return {};
  const int error = call_errno("drm_drop_master", [=] { return drmDropMaster(node.get()); });
  if (error != 0 && error != EINVAL) return fail_errno(error, "giving up a display failed");
  return {};
}

Result<std::uint64_t> capability(FdView node, std::uint64_t which) {
  std::uint64_t value = 0;
  const int error =
      call_errno("drm_capability", [&] { return drmGetCap(node.get(), which, &value); });
  if (error == EINVAL || error == EOPNOTSUPP) return 0;
  if (error != 0) return fail_errno(error, "asking a node what it can failed");
  return value;
}

Result<DumbObject> create_dumb(FdView node, ByteCount size) {
  // A picture of one page a line: no driver pads those.
  const ByteCount page = host_page_size();
  const std::uint64_t lines = size.value() / page.value();
  if (lines > std::numeric_limits<std::uint32_t>::max())
    return fail(Errc::no_memory, "larger than a picture can be");
  drm_mode_create_dumb args = {};
  args.width = static_cast<std::uint32_t>(page.value() / 4);
  args.bpp = 32;
  args.height = static_cast<std::uint32_t>(lines);
  const int error = call_errno(
      "drm_create_dumb", [&] { return drmIoctl(node.get(), DRM_IOCTL_MODE_CREATE_DUMB, &args); });
  if (error != 0) return fail_errno(error, "making an object of a DRM device failed");
  return DumbObject{args.handle, ByteCount(args.size)};
}

void close_handle(FdView node, std::uint32_t handle) noexcept {
  const int saved_errno = errno;
  ACCELMM_CHECK(drmCloseBufferHandle(node.get(), handle) == 0);
  errno = saved_errno;
}

Result<UniqueFd> export_handle(FdView node, std::uint32_t handle) {
  int fd = -1;
  const int error = call_errno("drm_export_handle", [&] {
    return drmPrimeHandleToFD(node.get(), handle, DRM_CLOEXEC | DRM_RDWR, &fd);
  });
  if (error != 0) return fail_errno(error, "exporting an object of a DRM device failed");
  return UniqueFd(fd);
}

Result<std::uint32_t> import_dma_buf(FdView node, FdView buffer) {
  std::uint32_t handle = 0;
  const int error = call_errno(
      "drm_import_dma_buf", [&] { return drmPrimeFDToHandle(node.get(), buffer.get(), &handle); });
  if (error != 0) return fail_errno(error, "the DRM device does not take this dma-buf");
  return handle;
}

Result<std::uint32_t> create_syncobj(FdView node) {
  std::uint32_t syncobj = 0;
  const int error =
      call_errno("drm_create_syncobj", [&] { return drmSyncobjCreate(node.get(), 0, &syncobj); });
  if (error != 0) return fail_errno(error, "making a synchronisation object failed");
  return syncobj;
}

void destroy_syncobj(FdView node, std::uint32_t syncobj) noexcept {
  const int saved_errno = errno;
  ACCELMM_CHECK(drmSyncobjDestroy(node.get(), syncobj) == 0);
  errno = saved_errno;
}

Result<void> set_syncobj_fence(FdView node, std::uint32_t syncobj, FdView fence) {
  const int error = call_errno("drm_set_syncobj_fence", [=] {
    return drmSyncobjImportSyncFile(node.get(), syncobj, fence.get());
  });
  if (error != 0) return fail_errno(error, "giving a fence to a synchronisation object failed");
  return {};
}

Result<UniqueFd> syncobj_fence(FdView node, std::uint32_t syncobj) {
  int fd = -1;
  const int error = call_errno("drm_syncobj_fence",
                               [&] { return drmSyncobjExportSyncFile(node.get(), syncobj, &fd); });
  if (error != 0) return fail_errno(error, "taking the fence of a synchronisation object failed");
  return UniqueFd(fd);
}

Result<void> transfer_fence(FdView node, SyncPoint to, SyncPoint from) {
  const int error = call_errno("drm_transfer_fence", [=] {
    return drmSyncobjTransfer(node.get(), to.syncobj, to.point, from.syncobj, from.point, 0);
  });
  if (error != 0) return fail_errno(error, "copying the fence of a point failed");
  return {};
}

Result<void> signal_point(FdView node, SyncPoint point) {
  std::uint32_t syncobj = point.syncobj;
  std::uint64_t value = point.point;
  const int error = call_errno("drm_signal_point", [&] {
    return drmSyncobjTimelineSignal(node.get(), &syncobj, &value, 1);
  });
  if (error != 0) return fail_errno(error, "signalling a point failed");
  return {};
}

Result<std::uint64_t> reached_point(FdView node, std::uint32_t syncobj) {
  std::uint64_t point = 0;
  const int error = call_errno("drm_reached_point",
                               [&] { return drmSyncobjQuery(node.get(), &syncobj, &point, 1); });
  if (error != 0) return fail_errno(error, "asking how far a timeline is failed");
  return point;
}

Result<void> wait_for_point(FdView node, SyncPoint point, std::uint64_t deadline_ns) {
  std::uint32_t syncobj = point.syncobj;
  std::uint64_t value = point.point;
  constexpr auto latest = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  const auto deadline = static_cast<std::int64_t>(std::min(deadline_ns, latest));
  const int error = call_errno("drm_wait_for_point", [&] {
    return drmSyncobjTimelineWait(node.get(), &syncobj, &value, 1, deadline,
                                  DRM_SYNCOBJ_WAIT_FLAGS_WAIT_FOR_SUBMIT, nullptr);
  });
  if (error == ETIME) return fail(Errc::timed_out, "the point was not reached in time");
  if (error != 0) return fail_errno(error, "waiting for a point failed");
  return {};
}

}  // namespace accelmm::drm
