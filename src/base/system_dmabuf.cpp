// SPDX-License-Identifier: Apache-2.0
#include "base/system_dmabuf.hpp"

#include "base/system_call.hpp"

#include <accelmm/check.hpp>

#include <cstring>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <linux/dma-buf.h>
#include <linux/dma-heap.h>
#include <linux/sync_file.h>
#include <linux/udmabuf.h>
#include <sys/ioctl.h>

namespace accelmm::sys {

namespace {

std::uint32_t access_flags(Access access) {
  std::uint32_t flags = 0;
  if (allows(access, Access::read)) flags |= DMA_BUF_SYNC_READ;
  if (allows(access, Access::write)) flags |= DMA_BUF_SYNC_WRITE;
  return flags;
}

void copy_name(std::string_view name, std::span<char> into) {
  ACCELMM_CHECK(name.size() < into.size());
  std::memcpy(into.data(), name.data(), name.size());
}

// The kernel ends its names with a zero; what does not is taken whole.
std::string name_of(std::span<const char> name) {
  return {name.data(), ::strnlen(name.data(), name.size())};
}

}  // namespace

Result<UniqueFd> udmabuf_create(FdView device, const MemfdRange& range) {
  ::udmabuf_create args = {};
  args.memfd = static_cast<__u32>(range.memfd.get());
  args.flags = UDMABUF_FLAGS_CLOEXEC;
  args.offset = range.offset;
  args.size = range.length;
  UniqueFd fd(
      system_call("udmabuf_create", [&] { return ::ioctl(device.get(), UDMABUF_CREATE, &args); }));
  if (!fd.valid()) return fail_errno(errno, "making a dma-buf of a memory file failed");
  return fd;
}

Result<UniqueFd> udmabuf_create_list(FdView device, std::span<const MemfdRange> ranges) {
  // The struct and its items in one piece of memory that is aligned for both.
  constexpr std::size_t head_words = sizeof(::udmabuf_create_list) / sizeof(__u64);
  constexpr std::size_t item_words = sizeof(udmabuf_create_item) / sizeof(__u64);
  static_assert(sizeof(::udmabuf_create_list) % sizeof(__u64) == 0);
  static_assert(sizeof(udmabuf_create_item) % sizeof(__u64) == 0);
  std::vector<__u64> words(head_words + ranges.size() * item_words);
  ::udmabuf_create_list head;  // not {}: it ends in an array of no size
  std::memset(&head, 0, sizeof head);
  head.flags = UDMABUF_FLAGS_CLOEXEC;
  head.count = static_cast<__u32>(ranges.size());
  std::memcpy(words.data(), &head, sizeof head);
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    udmabuf_create_item item = {};
    item.memfd = static_cast<__u32>(ranges[i].memfd.get());
    item.offset = ranges[i].offset;
    item.size = ranges[i].length;
    std::memcpy(words.data() + head_words + i * item_words, &item, sizeof item);
  }
  UniqueFd fd(system_call("udmabuf_create_list", [&] {
    return ::ioctl(device.get(), UDMABUF_CREATE_LIST, words.data());
  }));
  if (!fd.valid()) return fail_errno(errno, "making a dma-buf of several ranges failed");
  return fd;
}

Result<UniqueFd> dma_heap_allocate(FdView heap, ByteCount size, Access access) {
  dma_heap_allocation_data args = {};
  args.len = size.value();
  args.fd_flags = O_CLOEXEC | (allows(access, Access::write) ? O_RDWR : O_RDONLY);
  if (system_call("dma_heap_allocate",
                  [&] { return ::ioctl(heap.get(), DMA_HEAP_IOCTL_ALLOC, &args); }) != 0)
    return fail_errno(errno, "allocating from a dma-heap failed");
  return UniqueFd(static_cast<int>(args.fd));
}

Result<void> dma_buf_set_name(FdView buffer, const char* name) {
  if (system_call("dma_buf_set_name",
                  [=] { return ::ioctl(buffer.get(), DMA_BUF_SET_NAME_B, name); }) != 0)
    return fail_errno(errno, "naming a dma-buf failed");
  return {};
}

Result<void> dma_buf_sync(FdView buffer, Access access, SyncEdge edge) {
  ::dma_buf_sync args = {};
  args.flags =
      access_flags(access) | (edge == SyncEdge::start ? DMA_BUF_SYNC_START : DMA_BUF_SYNC_END);
  if (system_call("dma_buf_sync",
                  [&] { return ::ioctl(buffer.get(), DMA_BUF_IOCTL_SYNC, &args); }) != 0)
    return fail_errno(errno, "bracketing the access to a dma-buf failed");
  return {};
}

Result<UniqueFd> dma_buf_export_fence(FdView buffer, Access access) {
  dma_buf_export_sync_file args = {};
  args.flags = access_flags(access);
  args.fd = -1;
  if (system_call("dma_buf_export_fence", [&] {
        return ::ioctl(buffer.get(), DMA_BUF_IOCTL_EXPORT_SYNC_FILE, &args);
      }) != 0)
    return fail_errno(errno, "exporting the fence of a dma-buf failed");
  return UniqueFd(args.fd);
}

Result<void> dma_buf_import_fence(FdView buffer, FdView fence, Access access) {
  dma_buf_import_sync_file args = {};
  args.flags = access_flags(access);
  args.fd = fence.get();
  if (system_call("dma_buf_import_fence", [&] {
        return ::ioctl(buffer.get(), DMA_BUF_IOCTL_IMPORT_SYNC_FILE, &args);
      }) != 0)
    return fail_errno(errno, "adding a fence to a dma-buf failed");
  return {};
}

Result<UniqueFd> sync_file_merge(const char* name, FdView first, FdView second) {
  sync_merge_data args = {};
  copy_name(name, args.name);
  args.fd2 = second.get();
  args.fence = -1;
  if (system_call("sync_file_merge", [&] { return ::ioctl(first.get(), SYNC_IOC_MERGE, &args); }) !=
      0)
    return fail_errno(errno, "merging fences failed");
  return UniqueFd(args.fence);
}

Result<SyncFileInfo> sync_file_info(FdView fence) {
  // The number of fences never changes, so that the second call has room for all.
  ::sync_file_info args = {};
  const auto call = [&] { return ::ioctl(fence.get(), SYNC_IOC_FILE_INFO, &args); };
  if (system_call("sync_file_info", call) != 0)
    return fail_errno(errno, "asking for the state of a fence failed");
  std::vector<sync_fence_info> fences(args.num_fences);
  if (!fences.empty()) {
    args = {};
    args.num_fences = static_cast<__u32>(fences.size());
    args.sync_fence_info = reinterpret_cast<__u64>(fences.data());
    if (system_call("sync_file_info", call) != 0)
      return fail_errno(errno, "asking for the fences of a fence failed");
  }
  SyncFileInfo info{.name = name_of(args.name), .status = args.status, .fences = {}};
  for (const sync_fence_info& one : fences)
    info.fences.push_back(
        {name_of(one.driver_name), name_of(one.obj_name), one.status, one.timestamp_ns});
  return info;
}

}  // namespace accelmm::sys
