// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/access.hpp>
#include <accelmm/units.hpp>

#include <cstdint>
#include <limits>

namespace accelmm {

/// What an importer needs of memory. What nobody can know from outside the kernel (where its pages
/// lie, and how many runs they make) is refused where it is asked for and not certain.
struct ImportNeeds {
  std::uint32_t most_segments = std::numeric_limits<std::uint32_t>::max();  ///< runs of bus memory
  unsigned address_bits = 64;
  /// Of where each piece begins in its file, and of its length.
  Alignment alignment{1};
  /// What the device does with it.
  Access access = Access::read;
  /// Whether the importer goes without DMA_BUF_IOCTL_SYNC around what CPUs do.
  enum class Coherence : std::uint8_t { brackets, always } coherence = Coherence::brackets;
};

}  // namespace accelmm
