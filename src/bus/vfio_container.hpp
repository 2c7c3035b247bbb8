// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "bus/vfio_iommu_info.hpp"
#include "bus/vfio_kernel.hpp"

#include <accelmm/access.hpp>
#include <accelmm/extent.hpp>
#include <accelmm/fd.hpp>
#include <accelmm/units.hpp>

#include <cstddef>
#include <string>

namespace accelmm {

/// One IOMMU domain: a VFIO container, with the one group that is in it.
///
/// Owns      both files. Closing them unmaps everything and lets go of what was pinned; the kernel
///           does it too when the process dies.
/// Threads   any; the kernel maps and unmaps one after the other.
class VfioContainer {
 public:
  /// Opens the group of this number and puts it into a container of its own.
  /// Errors  no_device: the group has no file: none of its devices is bound to vfio-pci.
  ///         busy: the group is in use, or a device of it belongs to a driver of the kernel.
  ///         not_supported: the kernel has no VFIO, or one without type 1 v2 IOMMUs.
  ///         protocol_error: the kernel answered nonsense.  Any errno of the calls.
  [[nodiscard]] static Result<VfioContainer> open(VfioKernel& kernel, const std::string& group);

  [[nodiscard]] const VfioIommuInfo& info() const { return info_; }
  [[nodiscard]] VfioKernel& kernel() const { return *kernel_; }
  [[nodiscard]] FdView group() const { return group_.view(); }

  /// Pins memory of this process and maps it at `run.address`.
  /// Errors  over_quota: RLIMIT_MEMLOCK of this process.  no_memory: the system has none.
  ///         not_supported: memory that cannot be pinned so: a mapping of a dma-buf, or one that is
  ///         read-only and shall be written.  address_in_use: something is mapped there.
  ///         over_quota also: the kernel allows no more mappings.  State unchanged in all cases.
  [[nodiscard]] Result<void> map(Run run, const std::byte* memory, Access access);
  /// Ends exactly what map() made: after it no access of a device reaches the memory. Cannot fail;
  /// checked, since memory that a device can still reach must never be used again.
  void unmap(Run run) noexcept;

 private:
  VfioContainer(VfioKernel& kernel, UniqueFd container, UniqueFd group)
      : kernel_(&kernel), container_(std::move(container)), group_(std::move(group)) {}
  [[nodiscard]] Result<void> join();
  [[nodiscard]] Result<void> read_info();
  [[nodiscard]] Error map_error(Error error, ByteCount length) const;

  VfioKernel* kernel_;
  UniqueFd container_;
  UniqueFd group_;
  VfioIommuInfo info_;
};

}  // namespace accelmm
