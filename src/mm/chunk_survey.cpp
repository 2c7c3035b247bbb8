// SPDX-License-Identifier: Apache-2.0
#include "mm/chunk_survey.hpp"

namespace accelmm::mm {

Fragmentation survey(const ChunkMap& map, ByteCount page) {
  Fragmentation found(page);
  const std::uint64_t full = map.pages() >> chunk_order;
  for (std::uint64_t c = 0; c < full; ++c) {
    switch (map.kind(c)) {
      case ChunkMap::Kind::free:
      case ChunkMap::Kind::cached:
        found.add_free_chunks(1);
        break;
      case ChunkMap::Kind::allocated:
      case ChunkMap::Kind::lone:
      case ChunkMap::Kind::claimed:
        found.add_allocated_chunks(1);
        break;
      case ChunkMap::Kind::partial:
        found.add_chunk(map.free_bits(c));
        break;
    }
  }
  // The last, shorter chunk is partial for ever: what lies behind the region counts as allocated.
  if (const auto tail = static_cast<unsigned>(map.pages() & (chunk_pages - 1)); tail != 0)
    found.add_chunk(map.free_bits(full), tail);
  found.finish();
  return found;
}

}  // namespace accelmm::mm
