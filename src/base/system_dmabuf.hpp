// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/access.hpp>
#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>
#include <accelmm/units.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

/// The kernel's calls about dma-bufs and their fences, as base/system.hpp has the others: every
/// descriptor close-on-exec from its birth, every struct zero where nothing is said.
namespace accelmm::sys {

// --- dma-bufs ---
/// A range of a memory file.
struct MemfdRange {
  FdView memfd;
  std::uint64_t offset;
  std::uint64_t length;
};
/// UDMABUF_CREATE: a dma-buf over one range. `device` is /dev/udmabuf, however it was opened.
[[nodiscard]] Result<UniqueFd> udmabuf_create(FdView device, const MemfdRange& range);
/// UDMABUF_CREATE_LIST: a dma-buf over several ranges, one after the other.
[[nodiscard]] Result<UniqueFd> udmabuf_create_list(FdView device,
                                                   std::span<const MemfdRange> ranges);
/// DMA_HEAP_IOCTL_ALLOC. What CPUs may do with it through this descriptor is `access`: read or
/// read_write. The kernel sets no limit to the size: a large one ends with its out-of-memory killer.
[[nodiscard]] Result<UniqueFd> dma_heap_allocate(FdView heap, ByteCount size, Access access);
/// DMA_BUF_SET_NAME. `name` has at most 31 bytes.
[[nodiscard]] Result<void> dma_buf_set_name(FdView buffer, const char* name);
/// Which side of a CPU's access a DMA_BUF_IOCTL_SYNC is.
enum class SyncEdge : std::uint8_t { start, end };
/// DMA_BUF_IOCTL_SYNC. A start waits for the fences of the buffer without any limit.
[[nodiscard]] Result<void> dma_buf_sync(FdView buffer, Access access, SyncEdge edge);

// --- fences ---
/// DMA_BUF_IOCTL_EXPORT_SYNC_FILE: what who wants to read, or write, must wait for.
/// Errors  unknown_ioctl: kernel before 6.0.
[[nodiscard]] Result<UniqueFd> dma_buf_export_fence(FdView buffer, Access access);
/// DMA_BUF_IOCTL_IMPORT_SYNC_FILE: others wait for the fence of who reads, or writes.
[[nodiscard]] Result<void> dma_buf_import_fence(FdView buffer, FdView fence, Access access);
/// SYNC_IOC_MERGE: signalled when both are. `name` has at most 31 bytes.
[[nodiscard]] Result<UniqueFd> sync_file_merge(const char* name, FdView first, FdView second);
/// One of the fences in a sync_file.
struct SyncFence {
  std::string driver;
  std::string timeline;
  std::int32_t status;    ///< 0: active; 1: signalled; negative: the errno it failed with
  std::uint64_t time_ns;  ///< when it was signalled, CLOCK_MONOTONIC
};
struct SyncFileInfo {
  std::string name;
  std::int32_t status;
  std::vector<SyncFence> fences;
};
/// SYNC_IOC_FILE_INFO.
[[nodiscard]] Result<SyncFileInfo> sync_file_info(FdView fence);

}  // namespace accelmm::sys
