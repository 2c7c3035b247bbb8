// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/extent.hpp>
#include <accelmm/mmu/attributes.hpp>
#include <accelmm/units.hpp>

#include <cstdint>
#include <functional>
#include <optional>
#include <span>

namespace accelmm::mmu {

/// What a range of device addresses is for, where a device wants its kinds of memory apart.
enum class VaUse : std::uint8_t { any, host, host_huge, device };

/// One range of device addresses of an address space.
struct VaWindow {
  VaUse use;
  Range<DeviceAddr> range;
};

/// Where a mapping is to lie.
struct Placement {
  enum class Kind : std::uint8_t {
    anywhere,
    hint,   ///< at the address if it is free and aligned, else anywhere
    fixed,  ///< at the address or not at all
  };
  Kind kind = Kind::anywhere;
  DeviceAddr address{};
  VaUse use = VaUse::any;  ///< windows for this use, and those for any; of any: all windows
};

/// How an address space is laid out, and what it asks of its device.
struct SpaceOptions {
  /// At most 8, disjoint, ascending, whole pages; read only while the space is made.
  std::span<const VaWindow> windows;
  /// The memory behind null mappings, whole pages. Leaves are as large as it is, at most. What the
  /// device reads and writes there is the memory's to say: a page of zeros mapped to be read, or one
  /// that drops what is written.
  std::optional<Run> default_page{};
  /// Has the device forget a range and returns when it did: for formats that break before they make.
  /// Called under no lock, with the range in flight.
  std::function<void(Range<DeviceAddr>)> forget_now{};
  /// Tells the device that it will need a range soon. A hint: no answer.
  std::function<void(Range<DeviceAddr>)> prefetch{};
};

}  // namespace accelmm::mmu
