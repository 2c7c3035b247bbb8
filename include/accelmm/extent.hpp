// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/units.hpp>

namespace accelmm {

/// A piece of one region.
struct Extent {
  RegionOffset offset;
  ByteCount length;
  constexpr bool operator==(const Extent&) const = default;
  [[nodiscard]] constexpr RegionOffset end() const { return offset + length; }
};

/// A piece of memory as the device's bus sees it: what page-table leaves are made from.
struct Run {
  BusAddr address;
  ByteCount length;
  constexpr bool operator==(const Run&) const = default;
};

}  // namespace accelmm
