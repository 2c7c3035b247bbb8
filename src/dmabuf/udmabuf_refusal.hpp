// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "dmabuf/piece_plan.hpp"

#include <accelmm/error.hpp>

#include <cstdint>
#include <span>

namespace accelmm::dmabuf {

/// Why /dev/udmabuf refuses ranges; it says EINVAL to all but one of these itself.
enum class UdmabufRefusal : std::uint8_t {
  none,          ///< nothing is wrong with the ranges
  empty,         ///< no ranges, or no bytes
  unaligned,     ///< not whole pages
  not_a_memfd,   ///< EBADFD: no memory file at all
  may_shrink,    ///< not sealed against it
  write_sealed,  ///< a dma-buf of it could be written
  past_end,      ///< of the file
  too_large,     ///< size_limit_mb
  too_many,      ///< list_limit
};

/// Looks for the reason in the order in which the kernel does.
/// Errors  any value of fstat(2).
[[nodiscard]] Result<UdmabufRefusal> diagnose_udmabuf(std::span<const FileRange> ranges,
                                                      const PieceLimits& limits);

/// The error that a reason is told as.
/// Pre   not none.
[[nodiscard]] Error error_of(UdmabufRefusal refusal) noexcept;

}  // namespace accelmm::dmabuf
