// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "bus/vfio_container.hpp"
#include "bus/vfio_kernel.hpp"

#include <accelmm/fd.hpp>

#include <cstdint>
#include <memory>

namespace accelmm {

/// The open files of one PCI device, which all that is made of it keeps. The device's is closed
/// before the group's.
struct VfioFiles {
  std::shared_ptr<VfioContainer> container;
  UniqueFd device;
  std::uint32_t regions = 0;     ///< indices that the kernel knows
  std::uint32_t interrupts = 0;  ///< likewise
  bool can_reset = false;

  [[nodiscard]] VfioKernel& kernel() const { return container->kernel(); }
};

/// A region as the kernel describes it: bytes of the device's file.
struct VfioRegionPlace {
  std::uint64_t offset;
  ByteCount size;  // 0: not there
  std::uint32_t flags;
};
/// `index` is one of VFIO_PCI_*_REGION_INDEX.
/// Errors  protocol_error: it lies outside the file.  no_device: the kernel has no such index.
[[nodiscard]] Result<VfioRegionPlace> place_of_region(const VfioFiles& files, std::uint32_t index);

}  // namespace accelmm
