// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "mm/chunk_map.hpp"

#include <accelmm/fragmentation.hpp>

namespace accelmm::mm {

/// How the free pages of a map lie. Needs the allocator's lock; pages that are taken and freed
/// without it meanwhile are seen one way or the other.
[[nodiscard]] Fragmentation survey(const ChunkMap& map, ByteCount page);

}  // namespace accelmm::mm
