// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/heap.hpp>
#include <accelmm/heap_source.hpp>
#include <accelmm/units.hpp>

#include <cstdint>
#include <memory>

namespace accelmm {

/// An arena of jemalloc over the chunks of a source.
///
/// For host memory of programs that want jemalloc's behaviour. Linking it leaves the program's
/// malloc alone. jemalloc's own metadata are elsewhere; it writes to the memory only where it is
/// told to zero it, or by MALLOC_CONF to fill it.
/// Owns      the chunks while it has them; an arena.
/// Units     bytes; alignments to 2 MiB.
/// Threads   any. The source is called under jemalloc's locks: it must not use a JemallocHeap.
/// Lifetime  move-only, not while others use it; destroying it gives every chunk back, live pieces
///           or not.
/// Errors    no_device as in Heap. Unlike Heap it knows only whether a pointer is in a chunk: a
///           double free and an interior pointer are not found out, and break it.
/// Cost      jemalloc's without its thread caches, which would mix the pieces of several heaps: one
///           lock a piece.
/// Source    jemalloc 5.3, https://jemalloc.net; docs/adr/0012-jemalloc-by-renamed-archive.md.
class JemallocHeap {
 public:
  struct Options {
    HeapSource* source = nullptr;  ///< must outlive the heap
    ByteCount chunk = ByteCount(HeapSource::unit.value());
    std::uint32_t spare_chunks = 1;
  };
  struct Statistics {
    std::uint64_t chunks = 0;
    ByteCount from_source;  ///< bytes of all chunks
    ByteCount free;         ///< bytes of chunks that jemalloc does not have
  };

  /// Errors  as Heap::create().  not_supported: this jemalloc makes no such arena.
  [[nodiscard]] static Result<JemallocHeap> create(const Options& options);

  JemallocHeap(JemallocHeap&& other) noexcept;
  JemallocHeap& operator=(JemallocHeap&& other) noexcept;
  JemallocHeap(const JemallocHeap&) = delete;
  JemallocHeap& operator=(const JemallocHeap&) = delete;
  ~JemallocHeap();

  /// Errors  invalid_argument: size is 0, or the alignment above 2 MiB.  what the source said.
  ///         no_memory.  State unchanged.
  [[nodiscard]] Result<HeapPiece> allocate(ByteCount size, Alignment alignment = Alignment(16),
                                           ZeroFill zero = ZeroFill::no);
  /// Errors  invalid_argument: the pointer is in no chunk.
  [[nodiscard]] Result<void> free(void* pointer);
  /// Errors  as allocate() and free().  The piece is then as it was.
  [[nodiscard]] Result<HeapPiece> reallocate(void* pointer, ByteCount size);
  /// Errors  as free().
  [[nodiscard]] Result<ByteCount> usable_size(const void* pointer) const;

  /// Has jemalloc give up what it keeps, and gives every empty chunk back.
  void trim();
  [[nodiscard]] Statistics statistics() const;

 private:
  struct State;
  explicit JemallocHeap(std::unique_ptr<State> state) noexcept;

  std::unique_ptr<State> state_;
};

}  // namespace accelmm
