// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/units.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace accelmm {

/// What an IOMMU can map, as VFIO_IOMMU_GET_INFO tells it.
struct VfioIommuInfo {
  std::uint64_t page_sizes = 0;  ///< bit n: pages of 2^n bytes
  /// Ascending and disjoint. A range that ends with the last byte of 64 bits ends a page earlier.
  std::vector<Range<BusAddr>> ranges;
  std::optional<std::uint32_t> mappings_left;  ///< none: the kernel does not say

  bool operator==(const VfioIommuInfo&) const = default;
};

/// Reads the kernel's answer: a struct vfio_iommu_type1_info and the capabilities behind it.
/// A kernel that names no ranges (before 5.4) has one: all addresses.
/// Errors  protocol_error: it contradicts itself, or names no page size.  no_memory.
/// Source  linux/vfio.h; chains go forward in the kernel's own answers, so that one that does not is
///         nonsense, and never a loop.
[[nodiscard]] Result<VfioIommuInfo> parse_iommu_info(std::span<const std::byte> answer);

}  // namespace accelmm
