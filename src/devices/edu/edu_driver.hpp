// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/device.hpp>
#include <accelmm/driver.hpp>
#include <accelmm/error.hpp>
#include <accelmm/vfio_device.hpp>

#include <chrono>
#include <memory>

namespace accelmm::edu {

struct EduOptions {
  /// Addresses that the device can put on the bus: 28 bits, unless QEMU was given another dma_mask.
  unsigned address_bits = 28;
  /// How long one transfer may take. QEMU's takes a tenth of a second of the guest's time.
  std::chrono::nanoseconds timeout = std::chrono::seconds(10);
};

/// What the device is, for Runtime::register_device(). Throws std::bad_alloc.
[[nodiscard]] DeviceDescription edu_description(const VfioDevice& device,
                                                const EduOptions& options);

/// The driver of QEMU's edu device (PCI 1234:11e8), which moves bytes between mapped memory and its
/// buffer: see edu_uapi.h.
/// Errors  no_memory.
[[nodiscard]] Result<std::unique_ptr<Driver>> make_edu_driver(std::unique_ptr<VfioDevice> device,
                                                              const EduOptions& options);

}  // namespace accelmm::edu
