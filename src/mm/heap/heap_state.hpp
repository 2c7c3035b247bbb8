// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "mm/heap/heap_chunks.hpp"
#include "mm/heap/large_pieces.hpp"
#include "mm/heap/piece_watch.hpp"

#include <accelmm/heap.hpp>
#include <accelmm/slab.hpp>

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>

namespace accelmm {

/// Theory. One space of offsets, the source's range of addresses: a pointer is its base plus an
/// offset. Chunks (heap_chunks.hpp) say which offsets are memory, and where the device has them.
/// Small pieces are objects of a Slab over pages of chunks, large ones such pages themselves, or a
/// chunk of their own (large_pieces.hpp). A piece is found by its offset alone: the Slab knows its
/// objects, the table of large pieces the rest.
struct Heap::State {
  struct Request {
    ByteCount size;
    Alignment alignment{16};
    ZeroFill zero = ZeroFill::no;
  };

  State(const Options& options, std::unique_ptr<mm::HeapChunks> chunks, Slab&& slab);

  [[nodiscard]] HeapPiece piece_at(std::uint64_t offset, ByteCount size) const {
    return {.pointer = chunks->pointer(offset), .address = chunks->address(offset), .size = size};
  }
  [[nodiscard]] Result<HeapPiece> allocate(const Request& request);
  [[nodiscard]] Result<HeapPiece> allocate_watched(const Request& request);
  /// By size and alignment alone.
  [[nodiscard]] Result<Extent> take(ByteCount size, Alignment alignment);
  [[nodiscard]] Result<Extent> take_large(ByteCount size, Alignment alignment);
  void clear(Extent extent, ByteCount size) const;
  [[nodiscard]] Result<void> free(void* pointer);
  [[nodiscard]] Result<void> give(std::uint64_t offset);
  [[nodiscard]] Result<ByteCount> granted(std::uint64_t offset) const;
  [[nodiscard]] Result<ByteCount> usable_size(const void* pointer) const;
  /// Whether the piece could be made to hold `size` bytes where it is, and how many then.
  [[nodiscard]] std::optional<ByteCount> resize(std::uint64_t offset, ByteCount size);
  [[nodiscard]] std::optional<ByteCount> resize_large(std::uint64_t offset, ByteCount before,
                                                      ByteCount size);

  const Options options;
  // Before the slab, which gives it its slabs back.
  std::unique_ptr<mm::HeapChunks> chunks;
  mm::LargePieces large;
  Slab slab;
  std::optional<mm::PieceWatch> watch;
  std::atomic<std::uint64_t> large_pieces = 0;
  std::atomic<std::uint64_t> large_bytes = 0;
};

}  // namespace accelmm
