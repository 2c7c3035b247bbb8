// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/mutex.hpp"
#include "mm/page_space.hpp"
#include "mm/page_unit.hpp"
#include "mm/poisoned_pages.hpp"

#include <accelmm/page_allocator.hpp>

#include <atomic>
#include <cstdint>

namespace accelmm {

namespace mm {

constexpr ChunkMap::Zeros zeros_of(Contents contents) {
  return contents == Contents::zeros ? ChunkMap::Zeros::all : ChunkMap::Zeros::none;
}

}  // namespace mm

struct PageAllocator::State {
  explicit State(const Options& options)
      : unit(options.page.value()),
        pages(unit.whole(options.size.value())),
        chunk_bytes(pages < mm::chunk_pages ? ~std::uint64_t{0} : mm::chunk_pages * unit.bytes()),
        quick_pages(unit.is_power_of_two() ? pages : 0),
        space(pages, mm::zeros_of(options.contents)) {}

  [[nodiscard]] ByteCount bytes(std::uint64_t count) const {
    return ByteCount(count * unit.bytes());
  }
  [[nodiscard]] Extent extent(mm::PageRun run) const {
    return {RegionOffset(run.begin * unit.bytes()), bytes(run.size())};
  }
  /// How many pages hold `size` bytes, or more than there are if they exceed the region.
  [[nodiscard]] std::uint64_t pages_of(ByteCount size) const {
    return size > bytes(pages) ? pages + 1 : unit.covering(size.value());
  }
  [[nodiscard]] unsigned order_of(Alignment alignment) const {
    return unit.order_of_alignment(alignment.log2());
  }
  /// What is wrong with the form of an extent, or null.
  [[nodiscard]] const char* flaw_of(Extent extent) const;
  [[nodiscard]] mm::PageRun run_of(Extent extent) const {
    const std::uint64_t begin = unit.whole(extent.offset.value());
    return {begin, begin + unit.whole(extent.length.value())};
  }

  [[nodiscard]] std::uint64_t take_page(unsigned lifetime) ACCELMM_EXCLUDES(lock);
  [[nodiscard]] std::uint64_t take(std::uint64_t count, unsigned align_order, unsigned lifetime)
      ACCELMM_EXCLUDES(lock);
  [[nodiscard]] std::uint64_t take_clean(std::uint64_t count, unsigned align_order,
                                         unsigned lifetime) ACCELMM_EXCLUDES(lock);
  [[nodiscard]] std::uint64_t take_within(std::uint64_t count, unsigned align_order,
                                          const Request& request) ACCELMM_EXCLUDES(lock);
  [[nodiscard, gnu::noinline]] Result<void> free_page(std::uint64_t page) ACCELMM_EXCLUDES(lock);
  [[nodiscard]] Result<void> free_chunk(std::uint64_t c, Contents contents) ACCELMM_EXCLUDES(lock);
  [[nodiscard]] Result<void> free_run(mm::PageRun run, Contents contents) ACCELMM_EXCLUDES(lock);
  // What allocate() and free() leave to others, so that they need no stack frame themselves.
  [[nodiscard, gnu::noinline]] Result<Extent> allocate_page_slowly();
  [[nodiscard, gnu::noinline]] Result<Extent> allocate_slowly(ByteCount size);
  [[nodiscard, gnu::noinline]] Result<Extent> allocate_slowly(ByteCount size, Alignment alignment);
  [[nodiscard, gnu::noinline]] Result<void> free_slowly(Extent extent, Contents contents);

  const mm::PageUnit unit;
  const std::uint64_t pages;
  const std::uint64_t chunk_bytes;  // more than there are where no chunk is whole
  // The pages that may be freed without a look at more than their chunk: all, or none where pages
  // are poisoned or no power of two. Written under the lock.
  std::atomic<std::uint64_t> quick_pages;
  // Under the lock, but for what PageSpace lets any thread do.
  mm::PageSpace space;
  mutable Mutex lock;
  mm::PoisonedPages poisoned ACCELMM_GUARDED_BY(lock);
  // Of what was done under the lock; PageLeases counts the rest.
  std::uint64_t allocations ACCELMM_GUARDED_BY(lock) = 0;
  std::uint64_t frees ACCELMM_GUARDED_BY(lock) = 0;
};

}  // namespace accelmm
