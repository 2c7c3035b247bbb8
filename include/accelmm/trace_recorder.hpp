// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/extent.hpp>
#include <accelmm/page_allocator.hpp>
#include <accelmm/slab.hpp>
#include <accelmm/trace.hpp>
#include <accelmm/units.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace accelmm {

/// Writes down what up to 16 allocators are asked for, as one trace.
///
/// Owns      a ring of blocks of events, and an entry for each live allocation.
/// Threads   any. A lock orders the events; it is not held while a full block is written, which the
///           thread that filled it does. Who finds all blocks full waits.
/// Lifetime  the sink must outlive it. Destroyed before finish() it leaves no trace.
/// Errors    recording never makes a request fail: what cannot be kept is counted as lost.
/// Cost      a lock, a search among the live allocations of the pool and 24 bytes for each call.
class TraceLog {
 public:
  struct Options {
    /// Sizes are rounded up to it; parts that are freed on their own must be multiples of it.
    Alignment unit{4096};
    std::uint32_t tick_ns = 64;  ///< 40 bits of it are 19 hours
    std::size_t block_events = 4096;
    std::size_t blocks = 4;
  };
  /// What a request asked for besides its size.
  struct Wish {
    Alignment alignment{1};
    Lifetime lifetime = Lifetime::short_lived;
    Placement placement = Placement::packed;
    Contents contents = Contents::unknown;
    TraceEvent::Shape shape = TraceEvent::Shape::contiguous;
  };

  /// Errors  invalid_argument: a tick of 0, a unit above 2 GiB, no events in a block or fewer than 2
  ///         blocks.  no_memory: no room for the blocks.
  [[nodiscard]] static Result<TraceLog> create(TraceSink& sink, const Options& options);

  TraceLog(TraceLog&& other) noexcept;
  TraceLog& operator=(TraceLog&& other) noexcept;
  TraceLog(const TraceLog&) = delete;
  TraceLog& operator=(const TraceLog&) = delete;
  ~TraceLog();

  /// Names the size of a pool, for the header.
  /// Pre  pool < 16, also below.
  void set_pool_size(unsigned pool, ByteCount size);

  /// After a request was granted. Several extents are written as so many allocations, scattered.
  void allocated(unsigned pool, std::span<const Extent> extents, const Wish& wish);
  void allocated(unsigned pool, Extent extent, const Wish& wish) {
    allocated(pool, {&extent, 1}, wish);
  }
  /// After a request was refused.
  void refused(unsigned pool, ByteCount size, const Wish& wish);
  /// Before an extent is freed, so that nobody else can have it before this is noted: a whole
  /// allocation, a part of one, or several neighbours. Returns whether all of it was live.
  [[nodiscard]] bool freeing(unsigned pool, Extent extent, Contents contents = Contents::unknown);
  /// Before the whole allocation that begins here is freed.
  [[nodiscard]] bool freeing(unsigned pool, RegionOffset offset);
  /// After a free was refused of what freeing() did not know either.
  void bad_free(unsigned pool, ByteCount size);

  /// Writes what is left, then the header. Nothing is recorded afterwards.
  /// Errors  what the sink said first.  busy: it was finished before.  no_memory: no room to note
  ///         that a part was freed.  invalid_argument: a part was freed that is not whole units.
  [[nodiscard]] Result<void> finish();
  /// Events that could not be kept so far.
  [[nodiscard]] std::uint64_t lost() const;

 private:
  struct State;
  explicit TraceLog(std::unique_ptr<State> state) noexcept;

  std::unique_ptr<State> state_;
};

/// Frees by extent, as PageAllocator does; or by offset, as Slab does.
template <class A>
concept FreesExtents = requires(A& a, Extent extent) {
  { a.free(extent) } -> std::same_as<Result<void>>;
};
template <class A>
concept FreesOffsets = requires(A& a, RegionOffset offset) {
  { a.free(offset) } -> std::same_as<Result<void>>;
};
/// What TraceRecorder can wrap: it gives extents by size, and takes them back.
template <class A>
concept TracedAllocator = requires(A& a, ByteCount size) {
  { a.allocate(size) } -> std::same_as<Result<Extent>>;
} && (FreesExtents<A> || FreesOffsets<A>);
static_assert(TracedAllocator<PageAllocator> && FreesExtents<PageAllocator>);
static_assert(TracedAllocator<Slab> && FreesOffsets<Slab>);

/// An allocator as before, whose calls are written down.
///
/// Allocations that were made before it came are none of its trace, nor are their ends. The range of
/// a request (PageAllocator::Request::within) is not recorded.
/// Threads   those of the allocator.
/// Lifetime  log and allocator must outlive it.
/// Errors    those of the allocator.
template <TracedAllocator A>
class TraceRecorder {
 public:
  TraceRecorder(TraceLog& log, unsigned pool, A& allocator)
      : log_(log), pool_(pool), allocator_(allocator) {}

  [[nodiscard]] Result<Extent> allocate(ByteCount size) {
    return noted(allocator_.allocate(size), size, {});
  }
  [[nodiscard]] Result<Extent> allocate(ByteCount size, Alignment alignment)
    requires requires(A& a) { a.allocate(size, alignment); }
  {
    return noted(allocator_.allocate(size, alignment), size, {.alignment = alignment});
  }
  [[nodiscard]] Result<Extent> allocate(const PageAllocator::Request& request)
    requires requires(A& a) { a.allocate(request); }
  {
    return noted(allocator_.allocate(request), request.size,
                 {.alignment = request.alignment,
                  .lifetime = request.lifetime,
                  .placement = request.placement});
  }
  [[nodiscard]] Result<std::vector<Extent>> allocate_scattered(
      ByteCount size, Lifetime lifetime = Lifetime::short_lived)
    requires requires(A& a) { a.allocate_scattered(size, lifetime); }
  {
    auto extents = allocator_.allocate_scattered(size, lifetime);
    const TraceLog::Wish wish{.lifetime = lifetime, .shape = TraceEvent::Shape::scattered};
    if (extents)
      log_.allocated(pool_, *extents, wish);
    else
      log_.refused(pool_, size, wish);
    return extents;
  }

  [[nodiscard]] Result<void> free(Extent extent)
    requires FreesExtents<A>
  {
    const bool known = log_.freeing(pool_, extent);
    const auto freed = allocator_.free(extent);
    if (!freed && !known) log_.bad_free(pool_, extent.length);
    return freed;
  }
  [[nodiscard]] Result<void> free(Extent extent, Contents contents)
    requires requires(A& a) { a.free(extent, contents); }
  {
    const bool known = log_.freeing(pool_, extent, contents);
    const auto freed = allocator_.free(extent, contents);
    if (!freed && !known) log_.bad_free(pool_, extent.length);
    return freed;
  }
  [[nodiscard]] Result<void> free(RegionOffset offset)
    requires FreesOffsets<A>
  {
    const bool known = log_.freeing(pool_, offset);
    const auto freed = allocator_.free(offset);
    if (!freed && !known) log_.bad_free(pool_, ByteCount(0));
    return freed;
  }

  [[nodiscard]] A& allocator() { return allocator_; }

 private:
  [[nodiscard]] Result<Extent> noted(Result<Extent> extent, ByteCount size,
                                     const TraceLog::Wish& wish) {
    if (extent)
      log_.allocated(pool_, *extent, wish);
    else
      log_.refused(pool_, size, wish);
    return extent;
  }

  TraceLog& log_;
  unsigned pool_;
  A& allocator_;
};

}  // namespace accelmm
