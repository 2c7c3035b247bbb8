// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/extent.hpp>
#include <accelmm/units.hpp>

#include <cstdint>
#include <memory>
#include <vector>

namespace accelmm {

/// A buddy allocator over the page numbers of one region [0, size).
///
/// Hands out offsets, never memory: it does not know whether they mean host bytes, device memory or
/// bus addresses. Any page-aligned part of what it gave out may be freed on its own.
/// Owns      its metadata: about 3 bits a page (0.0092 % of 4 KiB pages), all taken in create(), so
///           that free, split and merge cannot fail for want of memory.
/// Units     byte offsets and lengths, multiples of the page.
/// Threads   externally synchronised (docs/mm.md "Locking").
/// Lifetime  move-only; destroying it with live extents is allowed (they are only numbers). A
///           moved-from allocator may only be destroyed or assigned to.
/// Invariant every page is either allocated, or in exactly one free block or cached block; no two
///           free buddies coexist -> validate().
/// Cost      one page or 2 MiB from the cache O(1); otherwise O(orders + pages / 64). Only a
/// request
///           that no single block can serve walks blocks of about its own size.
/// Source    Knuth, TAOCP 1, section 2.5 (buddy system); docs/mm.md, docs/adr/0003-bitmap-buddy.md.
class PageAllocator {
 public:
  struct Options {
    ByteCount size;        ///< a multiple of the page, not necessarily a power of two
    Alignment page{4096};  ///< the smallest thing handed out
  };

  struct Statistics {
    ByteCount total;
    ByteCount free;
    ByteCount largest_free;  ///< longest run of free pages: what allocate(n, page) can still give
    ByteCount metadata;      ///< bytes taken in create()
    std::uint64_t allocations = 0;  ///< successful allocate, allocate_scattered and reserve calls
    std::uint64_t frees = 0;        ///< successful free calls
  };

  /// Makes an allocator whose pages are all free.
  /// Errors  invalid_argument: size is 0, no multiple of the page, or more than 2^36 pages.
  ///         no_memory: no room for the metadata.
  [[nodiscard]] static Result<PageAllocator> create(const Options& options);

  PageAllocator(PageAllocator&& other) noexcept;
  PageAllocator& operator=(PageAllocator&& other) noexcept;
  PageAllocator(const PageAllocator&) = delete;
  PageAllocator& operator=(const PageAllocator&) = delete;
  ~PageAllocator();

  /// Takes `size` bytes, rounded up to whole pages and no further, at a multiple of `alignment`
  /// (which may be larger or smaller than the size).
  /// Errors  invalid_argument: size is 0.  no_memory: no such run is free (state unchanged).
  [[nodiscard]] Result<Extent> allocate(ByteCount size, Alignment alignment);

  /// The same at the largest power of two that is <= size, 2 MiB at most, so that the largest
  /// page-table leaves fit; at any page where no such place is left.
  [[nodiscard]] Result<Extent> allocate(ByteCount size);

  /// Takes `size` bytes, rounded up to whole pages, in as few pieces as a greedy choice of the
  /// largest free blocks gives. Neighbours are merged; the longest extent comes first.
  /// Errors  invalid_argument: size is 0.
  ///         no_memory: fewer bytes are free, or no room for the list (state unchanged).
  [[nodiscard]] Result<std::vector<Extent>> allocate_scattered(ByteCount size);

  /// Takes exactly these free pages out, e.g. firmware's, or bad ones. free() gives them in.
  /// Errors  invalid_argument: empty, unaligned, or outside the region.
  ///         address_in_use: a page of it is allocated. State unchanged in both cases.
  [[nodiscard]] Result<void> reserve(Extent extent);

  /// Gives back pages that are all allocated: a whole allocation, a part, or several neighbours.
  /// Errors  invalid_argument: empty, unaligned, outside the region, or a page of it is free
  ///         (double free). Always detected; state unchanged.
  [[nodiscard]] Result<void> free(Extent extent);

  /// Cost  largest_free looks at the free blocks that come near the largest; with nothing but small
  ///       blocks left it reads one bit a page.
  [[nodiscard]] Statistics statistics() const;

  /// Checks every invariant, and aborts if one is broken.
  /// Cost  O(metadata).
  void validate() const;

 private:
  struct State;
  explicit PageAllocator(std::unique_ptr<State> state) noexcept;

  std::unique_ptr<State> state_;
};

}  // namespace accelmm
