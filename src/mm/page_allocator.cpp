// SPDX-License-Identifier: Apache-2.0
//
// Theory. Pages are managed in chunks of 512. ChunkMap holds the truth, one or two bits a page.
// Chunks that are free as a whole are buddies of each other, so that large requests find a block in
// a few loads. Chunks that are partly free are filed by their largest free block and by how full
// they are: a small request goes to the fullest chunk that serves it, which keeps the others whole
// (a buddy system's own choice, the smallest block anywhere, leaves few chunks whole; docs/mm.md
// has both measured). Single pages come from a chunk that the processor leases: taking one is a
// plain store in a restartable section, and so is giving it back; a page of another chunk is given
// back with one compare-and-swap, and its chunk is counted again by whoever next holds the lock.
#include "base/mutex.hpp"
#include "mm/chunk_survey.hpp"
#include "mm/page_space.hpp"
#include "mm/poisoned_pages.hpp"

#include <accelmm/check.hpp>
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

constexpr std::uint64_t none = PageSpace::none;
constexpr const char* not_allocated = "a page of the extent is not allocated";

// The leaf above 4 KiB in every page-table format that accelmm knows (docs/mmu.md).
constexpr std::uint64_t large_bytes = std::uint64_t{2} << 20;

constexpr ChunkMap::Zeros zeros_of(Contents contents) {
  return contents == Contents::zeros ? ChunkMap::Zeros::all : ChunkMap::Zeros::none;
}

}  // namespace

struct PageAllocator::State {
  explicit State(const Options& options)
      : shift(options.page.log2()),
        page_bytes(options.page.value()),
        pages(options.size.value() >> shift),
        space(pages, zeros_of(options.contents)) {}

  [[nodiscard]] ByteCount bytes(std::uint64_t count) const { return ByteCount(count << shift); }
  [[nodiscard]] Extent extent(PageRun run) const {
    return {RegionOffset(run.begin << shift), bytes(run.size())};
  }
  /// How many pages hold `size` bytes, or more than there are if they exceed the region.
  [[nodiscard]] std::uint64_t pages_of(ByteCount size) const {
    if (size > bytes(pages)) return pages + 1;
    return ((size.value() - 1) >> shift) + 1;
  }
  [[nodiscard]] unsigned order_of(Alignment alignment) const {
    return std::max(alignment.log2(), shift) - shift;
  }
  /// What is wrong with the form of an extent, or null.
  [[nodiscard]] const char* flaw_of(Extent extent) const;
  [[nodiscard]] PageRun run_of(Extent extent) const {
    const std::uint64_t begin = extent.offset.value() >> shift;
    return {begin, begin + (extent.length.value() >> shift)};
  }

  [[nodiscard]] std::uint64_t take_page(unsigned lifetime) ACCELMM_EXCLUDES(lock);
  [[nodiscard]] std::uint64_t take(std::uint64_t count, unsigned align_order, unsigned lifetime)
      ACCELMM_EXCLUDES(lock);
  [[nodiscard]] Result<void> free_page(std::uint64_t page) ACCELMM_EXCLUDES(lock);
  [[nodiscard]] Result<void> free_run(PageRun run, Contents contents) ACCELMM_EXCLUDES(lock);

  const unsigned shift;
  const std::uint64_t page_bytes;
  const std::uint64_t pages;
  mutable Mutex lock;
  // Under the lock, but for what PageSpace lets any thread do.
  PageSpace space;
  mm::PoisonedPages poisoned ACCELMM_GUARDED_BY(lock);
  // Written under the lock: whether free() must look at `poisoned`.
  std::atomic<bool> any_poisoned = false;
};

const char* PageAllocator::State::flaw_of(Extent extent) const {
  const std::uint64_t offset = extent.offset.value();
  const std::uint64_t length = extent.length.value();
  const std::uint64_t total = pages << shift;
  if (length == 0) return "extent is empty";
  if (((offset | length) & ((std::uint64_t{1} << shift) - 1)) != 0)
    return "extent is not whole pages";
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
  const MutexLock held(lock);
  space.settle();
  std::uint64_t page = space.take(count, align_order, lifetime);
  if (page == none) page = space.take_anywhere(count, align_order, lifetime);
  if (page != none) space.leases().count_allocation();
  return page;
}

// Of a chunk that this processor does not lease.
Result<void> PageAllocator::State::free_page(std::uint64_t page) {
  ChunkMap& map = space.map();
  const std::uint64_t c = page >> mm::chunk_order;
  if (map.kind(c) != ChunkMap::Kind::partial) return free_run({page, page + 1}, Contents::unknown);
  if (!map.is_allocated(page)) return fail(Errc::invalid_argument, not_allocated);
  map.soil_page(page);
  if (!map.free_page(page)) return fail(Errc::invalid_argument, not_allocated);
  map.touch(c);
  space.leases().count_free();
  return {};
}

Result<void> PageAllocator::State::free_run(PageRun run, Contents contents) {
  const MutexLock held(lock);
  space.settle();
  if (!space.all_allocated(run) || (!poisoned.empty() && poisoned.any_retired(run)))
    return fail(Errc::invalid_argument, not_allocated);
  space.map().set_zeros(run, zeros_of(contents));
  if (poisoned.empty()) {
    space.give(run);
  } else {
    poisoned.each_good(run, [&](PageRun good) { space.give(good); });
    poisoned.retire(run);
  }
  space.leases().count_free();
  return {};
}

PageAllocator::PageAllocator(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
PageAllocator::PageAllocator(PageAllocator&& other) noexcept = default;
PageAllocator& PageAllocator::operator=(PageAllocator&& other) noexcept = default;
PageAllocator::~PageAllocator() = default;

Result<PageAllocator> PageAllocator::create(const Options& options) {
  if (options.size.value() == 0 || !options.page.divides(options.size))
    return fail(Errc::invalid_argument, "region is not a whole number of pages");
  const std::uint64_t pages = options.size.value() >> options.page.log2();
  if (pages > mm::BitTree::max_size)
    return fail(Errc::invalid_argument, "region has more than 2^36 pages");
  try {
    return PageAllocator(std::make_unique<State>(options));
  } catch (const std::bad_alloc&) {
    return fail(Errc::no_memory, "no room for page metadata");
  }
}

Result<Extent> PageAllocator::allocate(ByteCount size, Alignment alignment) {
  State& state = *state_;
  if (size.value() == 0) return fail(Errc::invalid_argument, "size is 0");
  const std::uint64_t count = state.pages_of(size);
  const unsigned order = state.order_of(alignment);
  const std::uint64_t page =
      count == 1 && order == 0 ? state.take_page(0) : state.take(count, order, 0);
  if (page == none) return fail(Errc::no_memory, "no free run of that size and alignment");
  return state.extent({page, page + count});
}

Result<Extent> PageAllocator::allocate(ByteCount size) {
  if (size.value() - 1 < state_->page_bytes) {  // one page, and not size 0
    std::uint64_t page = state_->space.leases().take(0);
    if (page == none) [[unlikely]]
      page = state_->take_page(0);
    if (page == none) [[unlikely]]
      return fail(Errc::no_memory, "no page is free");
    return Extent{RegionOffset(page << state_->shift), ByteCount(state_->page_bytes)};
  }
  if (size.value() == 0) return fail(Errc::invalid_argument, "size is 0");
  const Alignment natural(std::bit_floor(std::min(size.value(), large_bytes)));
  auto extent = allocate(size, natural);
  if (!extent && state_->order_of(natural) > 0) extent = allocate(size, Alignment(1));
  return extent;
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
  if (request.within.empty() && request.placement == Placement::packed) {
    page =
        count == 1 && order == 0 ? state.take_page(lifetime) : state.take(count, order, lifetime);
  } else {
    const std::uint64_t mask = (std::uint64_t{1} << state.shift) - 1;
    PageRun within{0, state.pages};
    if (!request.within.empty())
      within = {(request.within.begin.value() >> state.shift) +
                    ((request.within.begin.value() & mask) != 0 ? 1 : 0),
                std::min(request.within.end.value() >> state.shift, state.pages)};
    if (within.begin < within.end && count <= within.size()) {
      const MutexLock held(state.lock);
      state.space.settle();
      page = state.space.take_within(count, order, lifetime, within,
                                     request.placement == Placement::top_down
                                         ? PageSpace::Direction::down
                                         : PageSpace::Direction::up);
      if (page != none) state.space.leases().count_allocation();
    }
  }
  if (page == none) return fail(Errc::no_memory, "no free run of that size, alignment and range");
  return state.extent({page, page + count});
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
    if (!extents.empty()) state.space.leases().count_allocation();
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

Result<void> PageAllocator::reserve(Extent extent) {
  State& state = *state_;
  if (const char* flaw = state.flaw_of(extent)) return fail(Errc::invalid_argument, flaw);
  const PageRun run = state.run_of(extent);
  const MutexLock held(state.lock);
  if (!state.space.all_free(run))
    return fail(Errc::address_in_use, "a page of the extent is allocated");
  state.space.gather();
  if (!state.space.all_free(run))  // by another processor, until its lease ended
    return fail(Errc::address_in_use, "a page of the extent is allocated");
  state.space.take_run(run, static_cast<unsigned>(Lifetime::pinned));
  state.space.leases().count_allocation();
  return {};
}

Result<void> PageAllocator::poison(Extent extent) {
  State& state = *state_;
  if (const char* flaw = state.flaw_of(extent)) return fail(Errc::invalid_argument, flaw);
  const PageRun run = state.run_of(extent);
  const MutexLock held(state.lock);
  try {
    state.poisoned.reserve(run);
  } catch (const std::bad_alloc&) {
    return fail(Errc::no_memory, "no room to note bad pages");
  }
  state.any_poisoned.store(true, std::memory_order_seq_cst);
  state.space.gather();
  for (std::uint64_t page = run.begin; page < run.end; ++page) {
    if (state.poisoned.contains(page)) continue;
    const bool in_use = state.space.map().is_allocated(page);
    if (!in_use) state.space.take_run({page, page + 1}, static_cast<unsigned>(Lifetime::pinned));
    state.poisoned.add({page, in_use});
  }
  return {};
}

Result<void> PageAllocator::free(Extent extent, Contents contents) {
  State& state = *state_;
  const std::uint64_t offset = extent.offset.value();
  const bool one_page = extent.length.value() == state.page_bytes &&
                        (offset & (state.page_bytes - 1)) == 0 &&
                        offset >> state.shift < state.pages;
  if (one_page && contents == Contents::unknown &&
      !state.any_poisoned.load(std::memory_order_relaxed)) [[likely]] {
    const std::uint64_t page = offset >> state.shift;
    switch (state.space.leases().give(page)) {
      case PageLeases::Given::done:
        return {};
      case PageLeases::Given::not_allocated:
        return fail(Errc::invalid_argument, not_allocated);
      case PageLeases::Given::not_leased:
        return state.free_page(page);
    }
  }
  if (const char* flaw = state.flaw_of(extent)) return fail(Errc::invalid_argument, flaw);
  return state.free_run(state.run_of(extent), contents);
}

Result<Extent> PageAllocator::first_dirty(Extent extent) const {
  const State& state = *state_;
  if (const char* flaw = state.flaw_of(extent)) return fail(Errc::invalid_argument, flaw);
  const ChunkMap& map = state.space.map();
  PageRun run = state.run_of(extent);
  while (!run.empty() && map.is_zero(run.begin)) ++run.begin;
  std::uint64_t end = run.begin;
  while (end < run.end && !map.is_zero(end)) ++end;
  return state.extent({run.begin, end});
}

PageAllocator::Statistics PageAllocator::statistics() const {
  const State& state = *state_;
  const MutexLock held(state.lock);
  return {.total = state.bytes(state.pages),
          .free = state.bytes(state.space.free_pages()),
          .largest_free = state.bytes(state.space.longest_run()),
          .whole_chunks = state.bytes(state.space.whole_chunk_pages()),
          .metadata = ByteCount(state.space.metadata_bytes() + sizeof(State)),
          .poisoned = state.bytes(state.poisoned.count()),
          .allocations = state.space.leases().allocations(),
          .frees = state.space.leases().frees()};
}

Fragmentation PageAllocator::fragmentation() const {
  const State& state = *state_;
  const MutexLock held(state.lock);
  return mm::survey(state.space.map(), Alignment(state.page_bytes));
}

void PageAllocator::validate() const {
  const MutexLock held(state_->lock);
  state_->space.validate();
}

}  // namespace accelmm
