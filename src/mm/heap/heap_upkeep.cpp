// SPDX-License-Identifier: Apache-2.0
#include "mm/heap/heap_state.hpp"

#include <accelmm/check.hpp>
#include <accelmm/heap.hpp>

#include <optional>

namespace accelmm {

bool Heap::has_device_addresses() const {
  return state_->chunks->has_addresses();
}

Result<DeviceAddr> Heap::device_address(const void* pointer) const {
  const mm::HeapChunks& chunks = *state_->chunks;
  if (!chunks.present())
    return fail(Errc::no_device, "a forked child does not have the memory of this heap");
  const std::uint64_t offset = chunks.offset_of(pointer);
  if (!chunks.contains(offset)) return fail(Errc::invalid_argument, "the place is in no chunk");
  if (!chunks.has_addresses()) return fail(Errc::not_supported, "the heap has no device addresses");
  return chunks.address(offset);
}

Result<void*> Heap::pointer_at(DeviceAddr address) const {
  const mm::HeapChunks& chunks = *state_->chunks;
  if (!chunks.present())
    return fail(Errc::no_device, "a forked child does not have the memory of this heap");
  const auto offset = chunks.offset_at(address);
  if (!offset) return fail(offset.error());
  return static_cast<void*>(chunks.pointer(*offset));
}

ByteCount Heap::trim() {
  State& state = *state_;
  if (!state.chunks->present()) return {};
  const ByteCount before = state.chunks->statistics().bytes;
  state.slab.trim();
  state.chunks->trim();
  const ByteCount after = state.chunks->statistics().bytes;
  // Other threads may have made it grow meanwhile.
  return after < before ? before - after : ByteCount();
}

Heap::Statistics Heap::statistics() const {
  const State& state = *state_;
  if (!state.chunks->present()) return {};
  const auto chunks = state.chunks->statistics();
  Statistics all;
  all.small = state.slab.statistics();
  all.large_pieces = state.large_pieces.load(std::memory_order_relaxed);
  all.large = ByteCount(state.large_bytes.load(std::memory_order_relaxed));
  all.chunks = chunks.chunks;
  all.dedicated_chunks = chunks.dedicated;
  all.from_source = chunks.bytes;
  all.free = chunks.free;
  all.metadata =
      all.small.metadata + chunks.metadata + state.large.bytes() + ByteCount(sizeof(State));
  return all;
}

std::optional<Heap::Damage> Heap::damage() const {
  if (!state_->watch || !state_->chunks->present()) return {};
  return state_->watch->damage();
}

void Heap::validate() const {
  const State& state = *state_;
  state.chunks->validate();
  state.slab.validate();
  std::uint64_t pieces = 0;
  std::uint64_t bytes = 0;
  std::uint64_t pooled = 0;
  state.chunks->for_each_chunk([&](Extent chunk) {
    RegionOffset end;  // of the last piece
    state.large.for_each(chunk, [&](Extent piece) {
      ACCELMM_CHECK(piece.offset >= end && piece.end() <= chunk.end());
      ACCELMM_CHECK(!state.slab.usable_size(piece.offset));
      end = piece.end();
      ++pieces;
      bytes += piece.length.value();
      if (!state.chunks->is_whole(piece.offset.value())) pooled += piece.length.value();
    });
  });
  ACCELMM_CHECK(pieces == state.large_pieces && bytes == state.large_bytes);
  // Every taken page is of a large piece or of a slab.
  ACCELMM_CHECK(state.chunks->taken_bytes() ==
                ByteCount(pooled) + state.slab.statistics().from_source);
  if (state.watch)
    ACCELMM_CHECK(state.watch->live() == pieces + state.slab.statistics().live_objects -
                                             state.slab.statistics().quarantined);
}

}  // namespace accelmm
