// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/units.hpp>

#include <cstdint>

namespace accelmm::dmabuf {

enum class Can : std::uint8_t { no, yes };
/// What a descriptor is: only drivers of the kernel can tell.
enum class DescriptorKind : std::uint8_t { memory_file, dma_buf };

/// What a back-end can do. What it cannot is EOPNOTSUPP: never a wider descriptor, never a silent
/// copy.
struct Capabilities {
  DescriptorKind kind;
  Can parts;                  ///< a descriptor that reaches less than a whole file
  Can scattered;              ///< one descriptor of several ranges
  Can read_only;              ///< a descriptor through which nobody can write
  Can huge_pages;             ///< memory of huge pages
  Can accounted;              ///< memory is charged to the memory group of who asks for it
  ByteCount largest;          ///< of one piece
  std::uint32_t most_ranges;  ///< of one piece
};

}  // namespace accelmm::dmabuf
