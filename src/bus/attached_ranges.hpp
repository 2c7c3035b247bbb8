// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/extent.hpp>

#include <cstdint>
#include <map>

namespace accelmm {

/// The set of bytes that at least one of a number of extents covers; extents may repeat and
/// overlap.
///
/// A boundary is kept wherever an extent begins or ends, with how many extents cover the bytes from
/// there to the next. Since the boundaries of an extent stay as long as the extent, taking it away
/// again needs no memory. Threads   externally synchronised. Cost      O(log extents + boundaries
/// inside the range).
class AttachedRanges {
 public:
  /// Pre     the extent is not empty and ends within 64 bits.
  /// Errors  no_memory (state unchanged).
  [[nodiscard]] Result<void> add(Extent extent);

  /// Takes one extent away that was added with these very bounds. Checked as far as the bounds go.
  void remove(Extent extent) noexcept;

  /// Tells whether every byte is covered. No bytes are always covered.
  [[nodiscard]] bool covers(RegionOffset offset, ByteCount length) const noexcept;

  [[nodiscard]] bool empty() const noexcept { return boundaries_.empty(); }

 private:
  struct Boundary {
    std::uint64_t ends;   // extents that begin or end here; at 0 the boundary goes
    std::uint64_t cover;  // extents that cover [here, next boundary)
  };
  using Boundaries = std::map<RegionOffset, Boundary>;

  Boundaries::iterator boundary_at(RegionOffset offset);
  void drop_end(Boundaries::iterator boundary) noexcept;

  Boundaries boundaries_;
};

}  // namespace accelmm
