// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <string_view>

namespace accelmm::bench {

/// What somebody else published of the same work, measured elsewhere: shown beside, never compared.
struct Published {
  std::string_view area;
  std::string_view work;
  std::string_view who;
  double least_ns;  ///< over the formats that were measured
  double most_ns;
};

/// Source  the Linux kernel's generic page tables, cover letter of version 4 of the series: kunit,
///         least of 10 000 calls each, for AMD (v1, v2), VT-d and Arm.
inline constexpr std::array<Published, 4> published{{
    {"mmu", "map-1x4k", "linux-generic-pt", 51, 55},
    {"mmu", "unmap-1x4k", "linux-generic-pt", 65, 68},
    {"mmu", "map-256x4k-new", "linux-generic-pt", 332, 367},
    {"mmu", "unmap-256x4k", "linux-generic-pt", 200, 447},
}};

inline constexpr std::string_view published_caveat =
    "published: figures of others, measured on an i7-12700 with the kernel's IOMMU core and two "
    "readings of the clock (25 to 30 ns) in them: their shape compares, their nanoseconds do not";

}  // namespace accelmm::bench
