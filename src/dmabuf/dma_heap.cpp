// SPDX-License-Identifier: Apache-2.0
#include "dmabuf/dma_heap.hpp"

#include "base/system.hpp"
#include "base/system_dmabuf.hpp"

#include <fcntl.h>

namespace accelmm::dmabuf {

Result<std::vector<std::string>> dma_heap_names(const std::string& folder) {
  return sys::list_folder(folder);
}

Result<std::unique_ptr<DmaHeap>> DmaHeap::open(const std::string& heap, const DmaHeapLimits& limits,
                                               const std::string& folder) {
  if (heap.empty() || heap.starts_with('.') || heap.find('/') != std::string::npos)
    return fail(Errc::invalid_argument, "not the name of a heap");
  auto device = sys::open(folder + "/" + heap, O_RDONLY);
  if (!device) return fail(device.error());
  return std::unique_ptr<DmaHeap>(new DmaHeap(std::move(*device), heap, limits));
}

DmaHeap::DmaHeap(UniqueFd device, std::string name, const DmaHeapLimits& limits)
    : MemorySource(std::make_shared<Account>(Account::Options{.limits = {.bytes = limits.total}})),
      device_(std::move(device)),
      name_(std::move(name)),
      largest_(limits.largest) {}

Capabilities DmaHeap::capabilities() const {
  return {.kind = DescriptorKind::dma_buf,
          .parts = Can::no,
          .scattered = Can::no,
          .read_only = Can::yes,
          .huge_pages = Can::yes,
          .accounted = Can::no,
          .largest = largest_,
          .most_ranges = 1};
}

Result<DmaBuf> DmaHeap::make(ByteCount size, Access access) {
  auto fd = sys::dma_heap_allocate(device_.view(), size, access);
  if (!fd) return fail(fd.error());
  return DmaBuf::adopt(std::move(*fd));
}

}  // namespace accelmm::dmabuf
