// SPDX-License-Identifier: Apache-2.0
//
// Theory. Two structures say who has a page. PageBits holds one bit a page, set while the page is
// allocated: it answers "may this be freed" exactly, in one word for 64 pages. FreeBlocks holds the
// free pages as maximal buddy blocks, so that a block of any order is found in a few loads. In
// front stand two small stacks of free blocks, one of pages and one of 2 MiB: the last freed is the
// next given, without the splits and merges through every order that a hot page would otherwise
// cost. A block in a stack is free in PageBits and absent from FreeBlocks, so that double free
// stays exact and only merging waits: the stacks are emptied before a request is refused.
#include "mm/block_cache.hpp"
#include "mm/free_blocks.hpp"
#include "mm/page_bits.hpp"

#include <accelmm/check.hpp>
#include <accelmm/page_allocator.hpp>

#include <algorithm>
#include <bit>
#include <new>
#include <utility>

namespace accelmm {

namespace {

using mm::Block;
using mm::BlockCache;
using mm::FreeBlocks;
using mm::PageBits;
using mm::PageRun;

constexpr std::uint64_t none = FreeBlocks::none;

// The leaf above 4 KiB in every page-table format that accelmm knows (docs/mmu.md).
constexpr std::uint64_t large_bytes = std::uint64_t{2} << 20;

// 16 MiB that merge late: enough for a queue of buffers in flight, 1/64 of a small 1 GiB window.
constexpr std::size_t large_cache_limit = 8;
constexpr std::size_t page_cache_limit = BlockCache::most;

}  // namespace

struct PageAllocator::State {
  State(const Options& options, std::unique_ptr<std::uint64_t[]> taken_words,
        std::uint64_t word_count);

  [[nodiscard]] static std::uint64_t words_for(std::uint64_t page_count) {
    return PageBits::words_for(page_count) + FreeBlocks::words_for(page_count);
  }

  [[nodiscard]] ByteCount page_size() const { return bytes(1); }
  [[nodiscard]] ByteCount bytes(std::uint64_t count) const { return ByteCount(count << shift); }
  [[nodiscard]] Extent extent(PageRun run) const {
    return {RegionOffset(run.begin << shift), bytes(run.size())};
  }
  /// How many pages hold `size` bytes, or more than there are if they exceed the region.
  [[nodiscard]] std::uint64_t pages_of(ByteCount size) const {
    if (size > bytes(pages)) return pages + 1;
    return ((size.value() - 1) >> shift) + 1;
  }
  /// The cache whose blocks are this long, or null.
  [[nodiscard]] BlockCache* cache_for(std::uint64_t count) {
    if (page_cache.serves(count)) return &page_cache;
    return large_cache.serves(count) ? &large_cache : nullptr;
  }
  /// What is wrong with the form of an extent, or null.
  [[nodiscard]] const char* flaw_of(Extent extent) const;
  [[nodiscard]] PageRun run_of(Extent extent) const {
    return {extent.offset.value() >> shift,
            (extent.offset.value() + extent.length.value()) >> shift};
  }

  /// Takes a run of pages and returns the first, or none.
  [[nodiscard]] std::uint64_t take(std::uint64_t count, unsigned align_order);
  [[nodiscard]] std::uint64_t take_from_blocks(std::uint64_t count, unsigned align_order);
  [[nodiscard]] std::uint64_t find_run(std::uint64_t count, unsigned align_order) const;
  [[nodiscard]] std::size_t count_pieces(std::uint64_t count) const;
  [[nodiscard]] PageRun take_piece(std::uint64_t count);
  void mark_allocated(PageRun run) {
    allocated.set(run.begin, run.end);
    free_pages -= run.size();
  }

  /// Gives the oldest `count` blocks of a cache to the free blocks.
  void spill(BlockCache& cache, std::size_t count);
  void drain();
  [[nodiscard]] std::uint64_t longest_run() const;

  unsigned shift;
  std::uint64_t pages;
  std::uint64_t free_pages;
  std::uint64_t allocations = 0;
  std::uint64_t frees = 0;
  PageBits allocated;
  BlockCache page_cache;
  BlockCache large_cache;
  FreeBlocks blocks;
  std::uint64_t words_taken;
  std::unique_ptr<std::uint64_t[]> words;
};

PageAllocator::State::State(const Options& options, std::unique_ptr<std::uint64_t[]> taken_words,
                            std::uint64_t word_count)
    : shift(options.page.log2()),
      pages(options.size.value() >> shift),
      free_pages(pages),
      allocated(taken_words.get(), pages),
      blocks(taken_words.get() + PageBits::words_for(pages), pages),
      words_taken(word_count),
      words(std::move(taken_words)) {
  page_cache.enable(0, page_cache_limit);
  if (options.page.value() < large_bytes)
    large_cache.enable(Alignment(large_bytes).log2() - shift, large_cache_limit);
  blocks.give({0, pages});
}

void PageAllocator::State::spill(BlockCache& cache, std::size_t count) {
  for (const std::uint64_t page : cache.pages().first(count))
    blocks.give({page, page + (std::uint64_t{1} << cache.order())});
  cache.drop_oldest(count);
}

void PageAllocator::State::drain() {
  spill(page_cache, page_cache.pages().size());
  spill(large_cache, large_cache.pages().size());
}

std::uint64_t PageAllocator::State::take(std::uint64_t count, unsigned align_order) {
  if (count == 1 && align_order == 0 && !page_cache.empty()) {
    const std::uint64_t page = page_cache.pop();
    allocated.set(page);
    --free_pages;
    return page;
  }
  if (count > free_pages) return none;
  std::uint64_t page = none;
  if (BlockCache* cache = cache_for(count);
      cache != nullptr && !cache->empty() && align_order <= cache->order())
    page = cache->pop();
  else
    page = take_from_blocks(count, align_order);
  if (page != none) mark_allocated({page, page + count});
  return page;
}

std::uint64_t PageAllocator::State::take_from_blocks(std::uint64_t count, unsigned align_order) {
  auto block = blocks.find(count, align_order);
  if (!block) {
    drain();
    block = blocks.find(count, align_order);
  }
  if (block) {
    blocks.take_front(*block, count);
    return block->first_page;
  }
  const std::uint64_t page = find_run(count, align_order);
  if (page != none) blocks.take({page, page + count});
  return page;
}

/// The first page of a run that crosses blocks, or lies across one. Complete: it finds one if there
/// is.
std::uint64_t PageAllocator::State::find_run(std::uint64_t count, unsigned align_order) const {
  if (align_order >= FreeBlocks::max_orders) align_order = FreeBlocks::max_orders;  // only page 0
  if (count <= 64) return allocated.find_clear_run(count, align_order);
  // A run of 2^(k+1) - 1 pages or more holds an aligned block of 2^k pages.
  const auto inner_order = static_cast<unsigned>(std::bit_width(count + 1) - 2);
  const std::uint64_t mask = (std::uint64_t{1} << align_order) - 1;
  std::uint64_t found = none;
  blocks.any_run(inner_order, allocated, [&](PageRun run) {
    const std::uint64_t begin = (run.begin + mask) & ~mask;
    if (begin >= run.end || run.end - begin < count) return false;
    found = begin;
    return true;
  });
  return found;
}

/// How many pieces take_piece() will give for `count` pages. Pre: the caches are empty.
std::size_t PageAllocator::State::count_pieces(std::uint64_t count) const {
  std::size_t pieces = 0;
  for (unsigned order = blocks.orders(); order-- > 0 && count > 0;) {
    const std::uint64_t whole = std::min(blocks.count(order), count >> order);
    pieces += whole;
    count -= whole << order;
    if (whole < blocks.count(order) && count > 0)
      return pieces + 1;  // the rest fits in one of these
  }
  ACCELMM_CHECK(count == 0);
  return pieces;
}

/// Takes the largest block that is not larger than `count` pages, or the front of the smallest that
/// is.
PageRun PageAllocator::State::take_piece(std::uint64_t count) {
  const auto fitting = static_cast<unsigned>(std::bit_width(count - 1));
  const auto order = blocks.smallest_order_from(fitting);
  const Block block = blocks.lowest(order ? *order : *blocks.largest_order());
  const std::uint64_t taken = std::min(count, block.end() - block.first_page);
  blocks.take_front(block, taken);
  const PageRun run{block.first_page, block.first_page + taken};
  mark_allocated(run);
  return run;
}

std::uint64_t PageAllocator::State::longest_run() const {
  const auto top = blocks.largest_order();
  // Below 64 pages a word of bits tells more than a walk over blocks. With 2^top as the largest
  // block, a longer run without cached pages holds a block of at least 2^(top-1).
  if (!top || *top < 6) return allocated.longest_clear_run();
  std::uint64_t longest = 0;
  const auto note = [&longest](PageRun run) {
    longest = std::max(longest, run.size());
    return false;
  };
  blocks.any_run(*top - 1, allocated, note);
  for (const BlockCache* cache : {&page_cache, &large_cache}) {
    for (const std::uint64_t page : cache->pages())
      note(blocks.run_around({page, page + (std::uint64_t{1} << cache->order())}, allocated));
  }
  return longest;
}

const char* PageAllocator::State::flaw_of(Extent extent) const {
  const std::uint64_t offset = extent.offset.value();
  const std::uint64_t length = extent.length.value();
  const std::uint64_t total = pages << shift;
  if (length == 0) return "extent is empty";
  if (((offset | length) & (page_size().value() - 1)) != 0) return "extent is not whole pages";
  if (offset > total || length > total - offset) return "extent lies outside the region";
  return nullptr;
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
  const std::uint64_t count = State::words_for(pages);
  std::unique_ptr<std::uint64_t[]> words(new (std::nothrow) std::uint64_t[count]());
  if (words == nullptr) return fail(Errc::no_memory, "no room for page metadata");
  std::unique_ptr<State> state(new (std::nothrow) State(options, std::move(words), count));
  if (state == nullptr) return fail(Errc::no_memory, "no room for page metadata");
  return PageAllocator(std::move(state));
}

Result<Extent> PageAllocator::allocate(ByteCount size, Alignment alignment) {
  State& state = *state_;
  if (size.value() == 0) return fail(Errc::invalid_argument, "size is 0");
  const std::uint64_t count = state.pages_of(size);
  const std::uint64_t page =
      state.take(count, std::max(alignment.log2(), state.shift) - state.shift);
  if (page == none) return fail(Errc::no_memory, "no free run of that size and alignment");
  ++state.allocations;
  return state.extent({page, page + count});
}

Result<Extent> PageAllocator::allocate(ByteCount size) {
  State& state = *state_;
  if (size.value() == 0) return fail(Errc::invalid_argument, "size is 0");
  const std::uint64_t count = state.pages_of(size);
  const auto log2 = static_cast<unsigned>(std::bit_width(std::min(size.value(), large_bytes)) - 1);
  const unsigned align_order = std::max(log2, state.shift) - state.shift;
  std::uint64_t page = state.take(count, align_order);
  if (page == none && align_order > 0) page = state.take(count, 0);
  if (page == none) return fail(Errc::no_memory, "no free run of that size");
  ++state.allocations;
  return state.extent({page, page + count});
}

Result<std::vector<Extent>> PageAllocator::allocate_scattered(ByteCount size) {
  State& state = *state_;
  if (size.value() == 0) return fail(Errc::invalid_argument, "size is 0");
  std::uint64_t count = state.pages_of(size);
  if (count > state.free_pages) return fail(Errc::no_memory, "fewer bytes are free");
  state.drain();
  std::vector<Extent> extents;
  try {
    extents.reserve(state.count_pieces(count));
  } catch (const std::bad_alloc&) {
    return fail(Errc::no_memory, "no room for the list of extents");
  }
  while (count > 0) {
    const PageRun run = state.take_piece(count);
    extents.push_back(state.extent(run));
    count -= run.size();
  }
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
  ++state.allocations;
  return extents;
}

Result<void> PageAllocator::reserve(Extent extent) {
  State& state = *state_;
  if (const char* flaw = state.flaw_of(extent)) return fail(Errc::invalid_argument, flaw);
  const PageRun run = state.run_of(extent);
  if (!state.allocated.none_set(run.begin, run.end))
    return fail(Errc::address_in_use, "a page of the extent is allocated");
  state.drain();
  state.blocks.take(run);
  state.mark_allocated(run);
  ++state.allocations;
  return {};
}

Result<void> PageAllocator::free(Extent extent) {
  State& state = *state_;
  if (const char* flaw = state.flaw_of(extent)) return fail(Errc::invalid_argument, flaw);
  const PageRun run = state.run_of(extent);
  const bool one_page = run.size() == 1;
  if (one_page ? !state.allocated.is_set(run.begin) : !state.allocated.all_set(run.begin, run.end))
    return fail(Errc::invalid_argument, "a page of the extent is not allocated");
  if (one_page)
    state.allocated.clear(run.begin);
  else
    state.allocated.clear(run.begin, run.end);
  state.free_pages += run.size();
  ++state.frees;
  BlockCache* cache = state.cache_for(run.size());
  if (cache == nullptr || (run.begin & (run.size() - 1)) != 0) {
    state.blocks.give(run);
    return {};
  }
  if (cache->full()) state.spill(*cache, cache->pages().size() / 2);
  cache->push(run.begin);
  return {};
}

PageAllocator::Statistics PageAllocator::statistics() const {
  const State& state = *state_;
  return {.total = state.bytes(state.pages),
          .free = state.bytes(state.free_pages),
          .largest_free = state.bytes(state.longest_run()),
          .metadata = ByteCount(state.words_taken * sizeof(std::uint64_t) + sizeof(State)),
          .allocations = state.allocations,
          .frees = state.frees};
}

void PageAllocator::validate() const {
  const State& state = *state_;
  std::uint64_t free_pages = state.blocks.validate(state.allocated);
  for (const BlockCache* cache : {&state.page_cache, &state.large_cache}) {
    const std::uint64_t size = std::uint64_t{1} << cache->order();
    const auto pages = cache->pages();
    for (std::size_t i = 0; i < pages.size(); ++i) {
      ACCELMM_CHECK((pages[i] & (size - 1)) == 0);
      ACCELMM_CHECK(state.allocated.none_set(pages[i], pages[i] + size));
      ACCELMM_CHECK(std::ranges::find(pages.subspan(i + 1), pages[i]) == pages.end());
      const PageRun run{pages[i], pages[i] + size};
      for (std::uint64_t page = run.begin; page < run.end; ++page)
        ACCELMM_CHECK(!state.blocks.holds(page));
      free_pages += size;
    }
  }
  for (const std::uint64_t page : state.page_cache.pages())
    for (const std::uint64_t large : state.large_cache.pages())
      ACCELMM_CHECK(page < large || page - large >= std::uint64_t{1} << state.large_cache.order());
  // Blocks and cached blocks are disjoint and clear: with both sums equal they are all that is
  // clear.
  ACCELMM_CHECK(free_pages == state.free_pages);
  ACCELMM_CHECK(free_pages == state.allocated.validate());
}

}  // namespace accelmm
