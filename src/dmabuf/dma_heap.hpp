// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "dmabuf/memory_source.hpp"

#include <memory>
#include <string>
#include <vector>

namespace accelmm::dmabuf {

/// What a process may have of one of the kernel's heaps. Their memory is charged to no memory group
/// and has no limit, so that one call can take the machine down.
struct DmaHeapLimits {
  ByteCount largest;  ///< of one buffer
  ByteCount total;    ///< of all that the process holds
};

/// The names of the heaps that there are, in no order that means anything. They differ between
/// kernels and machines, and none of them is known beforehand.
/// Errors  no_entry: the kernel has none.  Any value of open(2).
[[nodiscard]] Result<std::vector<std::string>> dma_heap_names(
    const std::string& folder = "/dev/dma_heap");

/// A heap of the kernel: /dev/dma_heap/<name>.
///
/// A descriptor that was asked for with Access::read stays read-only for every holder: a dma-buf
/// cannot be opened again.
class DmaHeap final : public MemorySource {
 public:
  /// Opens the heap, and does nothing else.
  /// Errors  invalid_argument: not a name.  Any value of open(2).
  [[nodiscard]] static Result<std::unique_ptr<DmaHeap>> open(
      const std::string& heap, const DmaHeapLimits& limits,
      const std::string& folder = "/dev/dma_heap");

  [[nodiscard]] const char* name() const override { return name_.c_str(); }
  [[nodiscard]] Capabilities capabilities() const override;

 private:
  DmaHeap(UniqueFd device, std::string name, const DmaHeapLimits& limits);
  [[nodiscard]] Result<DmaBuf> make(ByteCount size, Access access) override;

  UniqueFd device_;
  std::string name_;
  ByteCount largest_;
};

}  // namespace accelmm::dmabuf
