// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/mutex.hpp"
#include "mm/heap/heap_units.hpp"
#include "mm/heap/memory_watch.hpp"

#include <accelmm/error.hpp>
#include <accelmm/extent.hpp>
#include <accelmm/heap_source.hpp>
#include <accelmm/page_allocator.hpp>
#include <accelmm/slab.hpp>
#include <accelmm/units.hpp>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

namespace accelmm::mm {

/// The pages of a heap's chunks, by their offsets in the source's range.
///
/// Theory. A page allocator is over the whole range, at first with nothing free. A chunk that comes
/// is freed into it; one that goes is reserved in it, which succeeds only if all its pages are
/// free: so there is no moment at which a page belongs to a chunk that is going. Nobody counts
/// pages for that; the count of each chunk only says when to try.
/// Owns      the chunks, and for each 2 MiB of the range 16 bytes.
/// Threads   any; the source is called under no lock.
/// Invariant chunks do not touch; the pages of pooled chunks are free or counted -> validate().
class HeapChunks final : public SlabSource {
 public:
  struct Options {
    HeapSource* source = nullptr;
    ByteCount chunk;
    std::uint32_t spare = 0;  ///< empty chunks that are kept
    Watched watched = Watched::no;
  };
  /// Errors  as Heap::create().
  [[nodiscard]] static Result<std::unique_ptr<HeapChunks>> create(const Options& options);
  ~HeapChunks() override;
  HeapChunks(const HeapChunks&) = delete;
  HeapChunks& operator=(const HeapChunks&) = delete;

  /// Takes whole pages that lie in one chunk, of a new one where no other has room.
  /// Pre     the size is whole pages, the alignment at most a unit.
  /// Errors  what the source said; fault: it gave what was not asked for.  no_memory.
  [[nodiscard]] Result<Extent> take(ByteCount size, Alignment alignment);
  /// Gives any part of what take() gave back.
  void give(Extent extent);
  /// Takes the pages that follow in the same chunk, if they are free.
  [[nodiscard]] bool extend(Extent following);

  /// Takes what is worth a chunk of its own: pages that are there, or such a chunk.
  [[nodiscard]] Result<Extent> take_whole(ByteCount size, Alignment alignment);
  /// Pre     exactly this was taken by take_whole(), and is_whole().
  void give_whole(Extent extent);
  /// Whether a live piece at this offset is a chunk of its own.
  [[nodiscard]] bool is_whole(std::uint64_t offset) const {
    return chunk_at(offset)->use == Use::dedicated;
  }

  // SlabSource: slabs are pages like others.
  [[nodiscard]] Result<Extent> grow(ByteCount size, Alignment alignment) override {
    return take(size, alignment);
  }
  void give_back(Extent extent) override { give(extent); }

  /// Gives all empty chunks back. Returns their bytes.
  ByteCount trim();

  [[nodiscard]] std::byte* base() const { return range_.base; }
  [[nodiscard]] ByteCount size() const { return range_.size; }
  /// False in a forked child that does not have the memory.
  [[nodiscard]] bool present() const { return present_->load(std::memory_order_relaxed) != 0; }
  [[nodiscard]] std::byte* pointer(std::uint64_t offset) const { return range_.base + offset; }
  /// Beyond the range where the pointer is not in it.
  [[nodiscard]] std::uint64_t offset_of(const void* pointer) const {
    return reinterpret_cast<std::uintptr_t>(pointer) -
           reinterpret_cast<std::uintptr_t>(range_.base);
  }
  /// Pre  the offset is of a live piece.
  [[nodiscard]] DeviceAddr address(std::uint64_t offset) const {
    return DeviceAddr(
        has_addresses_.load(std::memory_order_relaxed)
            ? offset + units_[offset >> heap_unit_log2].shift.load(std::memory_order_relaxed)
            : 0);
  }
  [[nodiscard]] bool has_addresses() const {
    return has_addresses_.load(std::memory_order_relaxed);
  }
  /// Where the pages are all that is known of the offset: whether they are of a chunk.
  [[nodiscard]] bool contains(std::uint64_t offset) const;
  [[nodiscard]] Result<std::uint64_t> offset_at(DeviceAddr address) const;
  /// The part of pages just taken that may hold something else than zeros.
  [[nodiscard]] Extent dirty_part(Extent extent) const;
  /// Whether two offsets lie in one chunk.
  [[nodiscard]] bool same_chunk(std::uint64_t one, std::uint64_t other) const {
    return chunk_at(one) == chunk_at(other);
  }

  struct Statistics {
    std::uint64_t chunks = 0;
    std::uint64_t dedicated = 0;
    ByteCount bytes;
    ByteCount free;
    ByteCount metadata;
  };
  [[nodiscard]] Statistics statistics() const;

  /// Calls `f(Extent)` for each chunk. Pre: no other thread uses the heap.
  template <class F>
  void for_each_chunk(F f) const {
    const MutexLock lock(mutex_);
    for (const auto& chunk : chunks_)
      if (chunk->use != Use::none) f(chunk->extent);
  }
  /// Of pooled chunks. Pre: no other thread uses the heap.
  [[nodiscard]] ByteCount taken_bytes() const;
  void validate() const;

 private:
  enum class Use : std::uint8_t { none, pooled, dedicated };
  // A record is never destroyed before the heap: who gives pages back looks at their chunk's after.
  struct Chunk {
    HeapChunk memory;
    Extent extent;
    std::atomic<std::uint64_t> taken = 0;  // pages of a pooled one, at least those that are
    std::atomic<Use> use = Use::none;
    Chunk* next = nullptr;  // of those without use
  };
  // Of addresses, as many as a unit has.
  struct Unit {
    std::atomic<Chunk*> chunk;
    std::atomic<std::uint64_t> shift;  // from an offset to the device address
  };
  struct FreeUnits {
    void operator()(Unit* units) const { std::free(units); }
  };

  HeapChunks(const Options& options, const HeapRange& range, PageAllocator&& pages);

  [[nodiscard]] std::uint64_t unit_count() const {
    return ((range_.size.value() - 1) >> heap_unit_log2) + 1;
  }
  [[nodiscard]] Chunk* chunk_at(std::uint64_t offset) const {
    return units_[offset >> heap_unit_log2].chunk.load(std::memory_order_acquire);
  }
  void count(Extent extent);
  [[nodiscard]] Result<Chunk*> grow_by(ByteCount size, Alignment alignment, Use use);
  [[nodiscard]] const char* flaw_of(const HeapChunk& chunk, ByteCount size,
                                    Alignment alignment) const;
  [[nodiscard]] Result<Chunk*> enter(const HeapChunk& memory, Use use) ACCELMM_EXCLUDES(mutex_);
  [[nodiscard]] bool has_neighbour(Extent extent) const ACCELMM_REQUIRES(mutex_);
  [[nodiscard]] Result<void> make_record() ACCELMM_REQUIRES(mutex_);
  [[nodiscard]] Result<void> note_addresses(const HeapChunk& memory, Extent extent)
      ACCELMM_REQUIRES(mutex_);
  void leave(Chunk& chunk) ACCELMM_REQUIRES(mutex_);
  void retire(Chunk& chunk) ACCELMM_EXCLUDES(mutex_);
  [[nodiscard]] bool claim_empty(Chunk& chunk) ACCELMM_REQUIRES(mutex_);
  void release_spare(Chunk& chunk) ACCELMM_EXCLUDES(mutex_);

  const Options options_;
  const HeapRange range_;
  const std::atomic<std::uint64_t>* present_;
  PageAllocator pages_;
  std::unique_ptr<Unit[], FreeUnits> units_;
  std::atomic<bool> has_addresses_ = false;
  // Pooled chunks of which nothing is taken. Two threads may see it a moment before or after.
  std::atomic<std::int64_t> empty_ = 0;
  mutable Mutex mutex_;  // chunks that come and go; the page allocator's is taken inside
  std::vector<std::unique_ptr<Chunk>> chunks_ ACCELMM_GUARDED_BY(mutex_);
  Chunk* unused_ ACCELMM_GUARDED_BY(mutex_) = nullptr;
  bool any_chunk_yet_ ACCELMM_GUARDED_BY(mutex_) = false;
  // Units of device addresses to offsets of ours.
  std::unordered_map<std::uint64_t, std::uint64_t> by_address_ ACCELMM_GUARDED_BY(mutex_);
};

}  // namespace accelmm::mm
