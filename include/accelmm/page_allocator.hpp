// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/extent.hpp>
#include <accelmm/fragmentation.hpp>
#include <accelmm/units.hpp>

#include <cstdint>
#include <memory>
#include <vector>

namespace accelmm {

/// How long what is allocated will probably live. Pages of different lifetimes share no chunk while
/// there is room, so that the short-lived leave whole chunks behind.
enum class Lifetime : std::uint8_t { short_lived, long_lived, pinned, page_tables };

/// Where in its range an allocation goes: where it fragments least, lowest, or highest.
enum class Placement : std::uint8_t { packed, bottom_up, top_down };

/// What pages are known to hold.
enum class Contents : std::uint8_t { unknown, zeros };

/// An allocator over the page numbers of one region [0, size).
///
/// Hands out offsets, never memory: it does not know whether they mean host bytes, device memory or
/// bus addresses. Any page-aligned part of what it gave out may be freed on its own.
/// Owns      its metadata: about 3.7 bits a page (0.0114 % of 4 KiB pages), all taken in create(),
///           so that free, split and merge cannot fail for want of memory.
/// Units     byte offsets and lengths, multiples of the page.
/// Threads   any. One page is taken from and given to a chunk that the processor leases, without a
///           lock or an atomic instruction. A chunk of 512 pages that the processor has at hand is
///           taken without a lock, and one that was taken alone is given back with one
///           compare-and-swap. Everything else takes a lock.
/// Lifetime  move-only; destroying it with live extents is allowed (they are only numbers). A
///           moved-from allocator may only be destroyed or assigned to. No thread may use it while
///           it is moved or destroyed.
/// Invariant every page is allocated or free; chunks of 512 pages that are free are in runs, as long
///           as they can be; those that are partly free are filed by their largest free block ->
///           validate().
/// Cost      a page O(1); up to 256 pages O(1), larger requests O(chunks / 8). Only a request that
///           no single block or run of chunks serves walks the chunks.
/// Source    docs/mm.md, docs/adr/0008-chunks-and-leases.md, docs/adr/0014-runs-of-chunks.md.
class PageAllocator {
 public:
  struct Options {
    ByteCount size;                         ///< a multiple of the page
    ByteCount page{4096};                   ///< the smallest thing handed out; any but 0
    Contents contents = Contents::unknown;  ///< what all of it holds at first
  };

  struct Request {
    ByteCount size;          ///< rounded up to whole pages and no further
    Alignment alignment{1};  ///< of the offset; smaller or larger than the size and the page
    Lifetime lifetime = Lifetime::short_lived;
    Placement placement = Placement::packed;
    Range<RegionOffset> within{};  ///< empty: the whole region
    /// zeros: pages that are known to hold them, where a bounded search finds some that fit; else,
    /// and with `within` or another placement than packed, any. first_dirty() tells.
    Contents contents = Contents::unknown;
  };

  struct Statistics {
    ByteCount total;
    ByteCount free;
    ByteCount largest_free;  ///< longest run of free pages: what allocate(n, page) can still give
    ByteCount whole_chunks;  ///< free memory in whole chunks of 512 pages
    ByteCount metadata;      ///< bytes taken in create()
    ByteCount poisoned;      ///< out of use for ever
    /// Successful calls that allocate, and that free. Kept by each processor with no atomic
    /// instruction: a preemption at the wrong moment loses a count.
    std::uint64_t allocations = 0;
    std::uint64_t frees = 0;
  };

  /// Makes an allocator whose pages are all free.
  /// Errors  invalid_argument: size or page is 0, size no multiple of the page, or more than 2^36
  ///         pages.
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

  /// The same with all that can be asked for.
  /// Errors  invalid_argument: size is 0, or `within` begins behind its end.
  ///         no_memory: no such run is free inside `within` (state unchanged).
  [[nodiscard]] Result<Extent> allocate(const Request& request);

  /// Takes `size` bytes, rounded up to whole pages, in as few pieces as a greedy choice gives: one if
  /// it can. Neighbours are merged; the longest extent comes first.
  /// Errors  invalid_argument: size is 0.
  ///         no_memory: fewer bytes are free, or no room for the list (state unchanged).
  [[nodiscard]] Result<std::vector<Extent>> allocate_scattered(
      ByteCount size, Lifetime lifetime = Lifetime::short_lived);

  /// Takes exactly these free pages out, e.g. firmware's. free() gives them in.
  /// Errors  invalid_argument: empty, unaligned, or outside the region.
  ///         address_in_use: a page of it is allocated. State unchanged in both cases.
  [[nodiscard]] Result<void> reserve(Extent extent);

  /// Takes pages out of use for ever, e.g. bad ones: free ones at once, allocated ones when they are
  /// freed. One that another thread frees at this moment may stay in use.
  /// Errors  invalid_argument: empty, unaligned, or outside the region.
  ///         no_memory: no room to note it (state unchanged).
  [[nodiscard]] Result<void> poison(Extent extent);

  /// Gives back pages that are all allocated: a whole allocation, a part, or several neighbours.
  /// `contents` says what they hold now.
  /// Errors  invalid_argument: empty, unaligned, outside the region, or a page of it is free
  ///         (double free). Always detected; state unchanged. Of two frees of the same page at the
  ///         same moment both may succeed, and the page then stays allocated.
  [[nodiscard]] Result<void> free(Extent extent, Contents contents = Contents::unknown);

  /// The first part of an extent that may hold something else than zeros, of length 0 if there is
  /// none: what to clear before a first sight. Pages that were never handed out hold what create()
  /// was told, others what free() was told.
  /// Pre     the extent is allocated, and nothing was written to it since.
  /// Errors  invalid_argument: empty, unaligned, or outside the region.
  [[nodiscard]] Result<Extent> first_dirty(Extent extent) const;

  /// Cost  one bit a page of partly free chunks, 1/64 byte a page of the others; nothing to those
  ///       who allocate meanwhile but the lock.
  [[nodiscard]] Statistics statistics() const;

  /// How the free memory lies, by blocks and chunks. What processors lease is looked at as it is.
  /// Cost  as statistics().
  [[nodiscard]] Fragmentation fragmentation() const;

  /// Makes all lists and counts anew from the pages' own marks. Returns how many chunks were filed
  /// wrongly: 0, unless the metadata was damaged.
  /// Pre  no other thread uses the allocator.
  [[nodiscard]] std::uint64_t recount();

  /// Checks every invariant, and aborts if one is broken. No other thread may allocate meanwhile.
  /// Cost  O(metadata).
  void validate() const;

 private:
  struct State;
  explicit PageAllocator(std::unique_ptr<State> state) noexcept;

  std::unique_ptr<State> state_;
};

}  // namespace accelmm
