// SPDX-License-Identifier: Apache-2.0
//
// Theory. Pages are managed in chunks of 512. ChunkMap holds the truth, one or two bits a page.
// Chunks that are free as a whole are in runs, filed by length, so that large requests find the
// shortest that serves in a few loads. Chunks that are partly free are filed by their largest free block and by how full
// they are: a small request goes to the fullest chunk that serves it, which keeps the others whole
// (a buddy system's own choice, the smallest block anywhere, leaves few chunks whole; docs/mm.md
// has both measured). Single pages come from a chunk that the processor leases: taking one is a
// plain store in a restartable section, and so is giving it back; a page of another chunk is given
// back with one compare-and-swap, and its chunk is counted again by whoever next holds the lock.
// Whole chunks that were taken alone go round on a stack of each processor (ChunkStacks), without
// the lock: who frees one claims it by a compare-and-swap of its kind.
#include "mm/page_allocator_state.hpp"

#include <accelmm/page_allocator.hpp>

#include <algorithm>
#include <bit>
#include <new>
#include <utility>

namespace accelmm {

namespace {

using mm::ChunkMap;
using mm::PageLeases;
using mm::PageRun;
using mm::PageSpace;
using mm::PageUnit;
using mm::zeros_of;

constexpr std::uint64_t none = PageSpace::none;
constexpr const char* not_allocated = "a page of the extent is not allocated";

// The leaf above 4 KiB in every page-table format that accelmm knows (docs/mmu.md).
constexpr std::uint64_t large_bytes = std::uint64_t{2} << 20;

}  // namespace

const char* PageAllocator::State::flaw_of(Extent extent) const {
  const std::uint64_t offset = extent.offset.value();
  const std::uint64_t length = extent.length.value();
  const std::uint64_t total = pages * unit.bytes();
  if (length == 0) return "extent is empty";
  if (!unit.divides(offset) || !unit.divides(length)) return "extent is not whole pages";
  if (offset > total || length > total - offset) return "extent lies outside the region";
  return nullptr;
}

std::uint64_t PageAllocator::State::take_page(unsigned lifetime) {
  // Another thread of this processor may empty the new lease first: not for ever.
  for (int attempt = 0; attempt < 4; ++attempt) {
    const std::uint64_t page = space.leases().take(lifetime);
    if (page != none) return page;
    const MutexLock held(lock);
    space.settle();
    if (!space.renew_lease(lifetime)) break;
  }
  return take(1, 0, lifetime);
}

std::uint64_t PageAllocator::State::take(std::uint64_t count, unsigned align_order,
                                         unsigned lifetime) {
  if (count > pages) return none;
  if (count == mm::chunk_pages && align_order <= mm::chunk_order)
    if (const std::uint64_t page = space.take_cached_chunk(lifetime); page != none) return page;
  const MutexLock held(lock);
  space.settle();
  std::uint64_t page = space.take(count, align_order, lifetime);
  if (page == none) page = space.take_anywhere(count, align_order, lifetime);
  if (page != none) ++allocations;
  return page;
}

Result<void> PageAllocator::State::free_chunk(std::uint64_t c, Contents contents) {
  const PageRun run{c << mm::chunk_order, (c + 1) << mm::chunk_order};
  switch (space.give_lone_chunk(c, zeros_of(contents))) {
    case PageSpace::Given::done:
      return {};
    case PageSpace::Given::not_lone:
      return free_run(run, contents);
    case PageSpace::Given::no_room:
      break;
  }
  const MutexLock held(lock);
  space.give(run, zeros_of(contents));
  ++frees;
  return {};
}

// Of a chunk that this processor probably does not lease.
Result<void> PageAllocator::State::free_page(std::uint64_t page) {
  ChunkMap& map = space.map();
  const std::uint64_t c = page >> mm::chunk_order;
  if (space.leases().is_leased_here(c)) {
    switch (space.leases().give(page)) {
      case PageLeases::Given::done:
        return {};
      case PageLeases::Given::not_allocated:
        return fail(Errc::invalid_argument, not_allocated);
      case PageLeases::Given::not_leased:
      case PageLeases::Given::disturbed:
        break;
    }
  }
  if (map.kind(c) != ChunkMap::Kind::partial) return free_run({page, page + 1}, Contents::unknown);
  if (map.is_clean(page)) {
    // Of a page that is free already nothing may be forgotten.
    if (!map.is_allocated(page)) return fail(Errc::invalid_argument, not_allocated);
    map.soil_page(page);
  }
  if (!map.free_page(page)) return fail(Errc::invalid_argument, not_allocated);
  map.touch(c);
  space.leases().count_free_into(c);
  return {};
}

Result<void> PageAllocator::State::free_run(PageRun run, Contents contents) {
  const MutexLock held(lock);
  space.settle();
  if (poisoned.empty()) {
    if (!space.release(run, zeros_of(contents))) return fail(Errc::invalid_argument, not_allocated);
  } else {
    if (poisoned.any_retired(run) || !space.claim(run))
      return fail(Errc::invalid_argument, not_allocated);
    space.split_claimed(run);
    poisoned.each_good(run, [&](PageRun good) { space.give(good, zeros_of(contents)); });
    poisoned.retire(run);
  }
  ++frees;
  return {};
}

PageAllocator::PageAllocator(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
PageAllocator::PageAllocator(PageAllocator&& other) noexcept = default;
PageAllocator& PageAllocator::operator=(PageAllocator&& other) noexcept = default;
PageAllocator::~PageAllocator() = default;

Result<PageAllocator> PageAllocator::create(const Options& options) {
  if (options.page.value() == 0) return fail(Errc::invalid_argument, "page is of size 0");
  const PageUnit unit(options.page.value());
  if (options.size.value() == 0 || !unit.divides(options.size.value()))
    return fail(Errc::invalid_argument, "region is not a whole number of pages");
  if (unit.whole(options.size.value()) > mm::BitTree::max_size)
    return fail(Errc::invalid_argument, "region has more than 2^36 pages");
  try {
    return PageAllocator(std::make_unique<State>(options));
  } catch (const std::bad_alloc&) {
    return fail(Errc::no_memory, "no room for page metadata");
  }
}

Result<Extent> PageAllocator::allocate(ByteCount size, Alignment alignment) {
  State& state = *state_;
  if (size.value() == state.chunk_bytes && state.order_of(alignment) <= mm::chunk_order) {
    const std::uint64_t page = state.space.take_cached_chunk(0);
    if (page != none) [[likely]]
      return Extent{RegionOffset(page * state.unit.bytes()), size};
  }
  return state.allocate_slowly(size, alignment);
}

Result<Extent> PageAllocator::State::allocate_slowly(ByteCount size, Alignment alignment) {
  if (size.value() == 0) return fail(Errc::invalid_argument, "size is 0");
  const std::uint64_t count = pages_of(size);
  const unsigned order = order_of(alignment);
  const std::uint64_t page = count == 1 && order == 0 ? take_page(0) : take(count, order, 0);
  if (page == none) return fail(Errc::no_memory, "no free run of that size and alignment");
  return extent({page, page + count});
}

Result<Extent> PageAllocator::allocate(ByteCount size) {
  State& state = *state_;
  if (size.value() - 1 < state.unit.bytes()) [[likely]] {  // one page, and not size 0
    const std::uint64_t page = state.space.leases().take_quickly(0);
    if (page != none) [[likely]]
      return Extent{RegionOffset(page * state.unit.bytes()), ByteCount(state.unit.bytes())};
    return state.allocate_page_slowly();
  }
  return state.allocate_slowly(size);
}

Result<Extent> PageAllocator::State::allocate_page_slowly() {
  const std::uint64_t page = take_page(0);
  if (page == none) return fail(Errc::no_memory, "no page is free");
  return extent({page, page + 1});
}

Result<Extent> PageAllocator::State::allocate_slowly(ByteCount size) {
  if (size.value() == 0) return fail(Errc::invalid_argument, "size is 0");
  const std::uint64_t count = pages_of(size);
  const auto natural =
      static_cast<unsigned>(std::bit_width(std::min(size.value(), large_bytes))) - 1;
  const unsigned order = unit.order_of_alignment(natural);
  std::uint64_t page = take(count, order, 0);
  if (page == none && order > 0) page = take(count, 0, 0);
  if (page == none) return fail(Errc::no_memory, "no free run of that size");
  return extent({page, page + count});
}

Result<Extent> PageAllocator::allocate(const Request& request) {
  State& state = *state_;
  if (request.size.value() == 0) return fail(Errc::invalid_argument, "size is 0");
  if (request.within.end < request.within.begin)
    return fail(Errc::invalid_argument, "the range ends before it begins");
  const std::uint64_t count = state.pages_of(request.size);
  const unsigned order = state.order_of(request.alignment);
  const auto lifetime = static_cast<unsigned>(request.lifetime);
  std::uint64_t page = none;
  if (!request.within.empty() || request.placement != Placement::packed)
    page = state.take_within(count, order, request);
  else if (request.contents == Contents::zeros)
    page = state.take_clean(count, order, lifetime);
  else if (count == 1 && order == 0)
    page = state.take_page(lifetime);
  else
    page = state.take(count, order, lifetime);
  if (page == none) return fail(Errc::no_memory, "no free run of that size, alignment and range");
  return state.extent({page, page + count});
}

std::uint64_t PageAllocator::State::take_clean(std::uint64_t count, unsigned align_order,
                                               unsigned lifetime) {
  if (count > pages) return none;
  const MutexLock held(lock);
  space.settle();
  std::uint64_t page = space.take_clean(count, align_order, lifetime);
  if (page == none) page = space.take(count, align_order, lifetime);
  if (page == none) page = space.take_anywhere(count, align_order, lifetime);
  if (page != none) ++allocations;
  return page;
}

std::uint64_t PageAllocator::State::take_within(std::uint64_t count, unsigned align_order,
                                                const Request& request) {
  PageRun within{0, pages};
  if (!request.within.empty())
    within = {unit.covering(request.within.begin.value()),
              std::min(unit.whole(request.within.end.value()), pages)};
  if (within.begin >= within.end || count > within.size()) return none;
  const MutexLock held(lock);
  space.settle();
  const std::uint64_t page =
      space.take_within(count, align_order, static_cast<unsigned>(request.lifetime), within,
                        request.placement == Placement::top_down ? PageSpace::Direction::down
                                                                 : PageSpace::Direction::up);
  if (page != none) ++allocations;
  return page;
}

Result<std::vector<Extent>> PageAllocator::allocate_scattered(ByteCount size, Lifetime lifetime) {
  State& state = *state_;
  if (size.value() == 0) return fail(Errc::invalid_argument, "size is 0");
  const std::uint64_t count = state.pages_of(size);
  if (count > state.pages) return fail(Errc::no_memory, "fewer bytes are free");
  const auto group = static_cast<unsigned>(lifetime);
  std::vector<Extent> extents;
  try {
    const MutexLock held(state.lock);
    state.space.settle();
    extents.reserve(1);
    if (const std::uint64_t page = state.space.take(count, 0, group); page != none) {
      extents.push_back(state.extent({page, page + count}));
    } else {
      const std::vector<PageRun> runs = state.space.plan_scattered(count);
      extents.reserve(runs.size());
      for (const PageRun& run : runs) {
        state.space.take_run(run, group);
        extents.push_back(state.extent(run));
      }
    }
    if (!extents.empty()) ++state.allocations;
  } catch (const std::bad_alloc&) {
    return fail(Errc::no_memory, "no room for the list of extents");
  }
  if (extents.empty()) return fail(Errc::no_memory, "fewer bytes are free");
  std::ranges::sort(extents, {}, &Extent::offset);
  auto last = extents.begin();
  for (auto next = last + 1; next != extents.end(); ++next) {
    if (next->offset == last->end())
      last->length += next->length;
    else
      *++last = *next;
  }
  extents.erase(last + 1, extents.end());
  std::ranges::sort(extents, [](const Extent& a, const Extent& b) {
    return a.length != b.length ? a.length > b.length : a.offset < b.offset;
  });
  return extents;
}

Result<void> PageAllocator::free(Extent extent, Contents contents) {
  State& state = *state_;
  if (extent.length.value() == state.unit.bytes() && contents == Contents::unknown) [[likely]] {
    // What is no multiple of the page becomes a large number.
    const std::uint64_t page =
        std::rotr(extent.offset.value(), static_cast<int>(state.unit.shift()));
    if (page < state.quick_pages.load(std::memory_order_relaxed)) [[likely]] {
      switch (state.space.leases().give_quickly(page)) {
        case PageLeases::Given::done:
          return {};
        case PageLeases::Given::not_allocated:
          return fail(Errc::invalid_argument, not_allocated);
        case PageLeases::Given::not_leased:
        case PageLeases::Given::disturbed:
          return state.free_page(page);
      }
    }
  } else if (extent.length.value() == state.chunk_bytes) {
    const std::uint64_t c =
        std::rotr(extent.offset.value(), static_cast<int>(state.unit.shift() + mm::chunk_order));
    if (c < state.quick_pages.load(std::memory_order_relaxed) >> mm::chunk_order)
      return state.free_chunk(c, contents);
  }
  return state.free_slowly(extent, contents);
}

Result<void> PageAllocator::State::free_slowly(Extent extent, Contents contents) {
  if (const char* flaw = flaw_of(extent)) return fail(Errc::invalid_argument, flaw);
  return free_run(run_of(extent), contents);
}

}  // namespace accelmm
