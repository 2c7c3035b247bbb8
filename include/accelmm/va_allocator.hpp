// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/units.hpp>

#include <cstddef>
#include <memory>

namespace accelmm {

/// Gives out intervals of one range of device addresses.
///
/// A hint is allocate_at() and, where that fails, allocate(): left to the caller.
/// Owns      one node for each interval, free or taken (about 100 bytes of heap each).
/// Units     device addresses and lengths, multiples of the page.
/// Threads   externally synchronised (docs/mm.md "Locking").
/// Lifetime  move-only; destroying it with live intervals is allowed. A moved-from allocator may
/// only
///           be destroyed or assigned to.
/// Invariant intervals tile the range; no two holes touch; each hole is in the tree by size ->
///           validate().
/// Cost      O(log intervals); see allocate() for the exception.
/// Source    best fit over two search trees, as drm_mm of Linux does (drivers/gpu/drm/drm_mm.c).
class VaAllocator {
 public:
  /// Errors  invalid_argument: the range is empty or its ends are not page-aligned.
  ///         no_memory: no room for metadata.
  [[nodiscard]] static Result<VaAllocator> create(Range<DeviceAddr> range, Alignment page);

  VaAllocator(VaAllocator&& other) noexcept;
  VaAllocator& operator=(VaAllocator&& other) noexcept;
  VaAllocator(const VaAllocator&) = delete;
  VaAllocator& operator=(const VaAllocator&) = delete;
  ~VaAllocator();

  /// Takes `size` bytes, rounded up to whole pages, from a small hole that fits, so that
  /// begin % alignment == phase. An alignment below the page means the page. Never gives out the
  /// page at address 0, which reads as null.
  /// Errors  invalid_argument: size is 0, phase >= alignment, or phase is no multiple of the page.
  ///         no_memory: no hole fits, or no room for metadata (state unchanged).
  /// Cost    O(log holes); only before no_memory, and when all holes of size + alignment bytes are
  ///         gone, the holes between size and that are walked.
  [[nodiscard]] Result<Range<DeviceAddr>> allocate(ByteCount size, Alignment alignment,
                                                   ByteCount phase = ByteCount(0));

  /// Takes exactly this interval.
  /// Errors  invalid_argument: empty, not page-aligned, or outside the range.
  ///         address_in_use: a byte of it is taken.  no_memory: no room for metadata.
  ///         State unchanged in all cases.
  [[nodiscard]] Result<Range<DeviceAddr>> allocate_at(Range<DeviceAddr> wanted);

  /// Gives back the whole interval that begins here. Never allocates, so that it cannot fail for
  /// want of memory.
  /// Errors  invalid_argument: no taken interval begins here (state unchanged).
  [[nodiscard]] Result<void> free(DeviceAddr begin);

  [[nodiscard]] Range<DeviceAddr> range() const;
  [[nodiscard]] ByteCount free_bytes() const;
  [[nodiscard]] std::size_t holes() const;

  /// Checks every invariant, and aborts if one is broken.
  /// Cost  O(intervals).
  void validate() const;

 private:
  struct State;
  explicit VaAllocator(std::unique_ptr<State> state) noexcept;

  std::unique_ptr<State> state_;
};

}  // namespace accelmm
