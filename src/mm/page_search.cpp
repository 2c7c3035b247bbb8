// SPDX-License-Identifier: Apache-2.0
//
// What looks at more than a bounded number of chunks, or at a part of them.
#include "mm/page_space.hpp"

#include <accelmm/check.hpp>

#include <algorithm>
#include <bit>

namespace accelmm::mm {

namespace {

constexpr std::uint64_t first_page(std::uint64_t chunk) {
  return chunk << chunk_order;
}

bool longer_or_lower(const PageRun& a, const PageRun& b) {
  return a.size() != b.size() ? a.size() > b.size() : a.begin < b.begin;
}

// Calls f(begin, end) for each run of ones of a word.
template <class F>
void each_run_of_ones(std::uint64_t word, F f) {
  unsigned at = 0;
  while (word != 0) {
    const auto skip = static_cast<unsigned>(std::countr_zero(word));
    word >>= skip;
    at += skip;
    const auto length = static_cast<unsigned>(std::countr_one(word));
    f(at, at + length);
    if (length == 64) return;
    word >>= length;
    at += length;
  }
}

}  // namespace

// Calls f(PageRun) for each longest run of free pages inside `within`, lowest first.
template <class F>
void PageSpace::each_free_run(PageRun within, Cached cached, F f) const {
  PageRun run{0, 0};
  const auto extend = [&](std::uint64_t begin, std::uint64_t end) {
    begin = std::max(begin, within.begin);
    end = std::min(end, within.end);
    if (begin >= end) return;
    if (run.end != begin) {
      if (!run.empty()) f(run);
      run.begin = begin;
    }
    run.end = end;
  };
  for (std::uint64_t c = within.begin >> chunk_order; first_page(c) < within.end; ++c) {
    const std::uint64_t page = first_page(c);
    const Kind kind = map_.kind(c);
    if (kind == Kind::free || (kind == Kind::cached && cached == Cached::counted))
      extend(page, page + chunk_pages);
    if (kind != Kind::partial) continue;
    for (std::uint64_t at = page; at < page + chunk_pages; at += 64) {
      each_run_of_ones(map_.free_word(at >> 6),
                       [&](unsigned begin, unsigned end) { extend(at + begin, at + end); });
    }
  }
  if (!run.empty()) f(run);
}

std::uint64_t PageSpace::find_run(std::uint64_t count, unsigned align_order, PageRun within,
                                  Direction direction) const {
  // Beyond 2^63 pages only page 0 is aligned.
  const std::uint64_t mask = (std::uint64_t{1} << std::min(align_order, 63U)) - 1;
  std::uint64_t found = none;
  each_free_run(within, Cached::skipped, [&](PageRun run) {
    if (run.size() < count || (direction == Direction::up && found != none)) return;
    if (direction == Direction::up) {
      const std::uint64_t begin = (run.begin + mask) & ~mask;
      if (begin < run.end && run.end - begin >= count) found = begin;
    } else {
      const std::uint64_t begin = (run.end - count) & ~mask;
      if (begin >= run.begin) found = begin;
    }
  });
  return found;
}

std::uint64_t PageSpace::best_within(unsigned order, unsigned lifetime, PageRun chunks,
                                     Direction direction) const {
  if (chunks.begin >= chunks.end || order >= chunk_order) return none;
  return direction == Direction::up ? bins_.lowest(lifetime, order, chunks.begin, chunks.end)
                                    : bins_.highest(lifetime, order, chunks.begin, chunks.end);
}

std::uint64_t PageSpace::take_within(std::uint64_t count, unsigned align_order, unsigned lifetime,
                                     PageRun within, Direction direction) {
  const bool up = direction == Direction::up;
  const unsigned order = std::max(static_cast<unsigned>(std::bit_width(count - 1)), align_order);
  const PageRun inner{(within.begin + chunk_pages - 1) >> chunk_order, within.end >> chunk_order};
  if (inner.begin < inner.end) {
    empty_stacks();
    const std::uint64_t chunks = (count + chunk_pages - 1) >> chunk_order;
    const unsigned chunk_align = std::max(align_order, chunk_order) - chunk_order;
    const std::uint64_t partial = best_within(order, lifetime, inner, direction);
    const PageRun whole = up ? chunks_.lowest_within(chunks, chunk_align, inner)
                             : chunks_.highest_within(chunks, chunk_align, inner);
    const bool any_whole = whole.begin != none;
    if (partial != none && (!any_whole || (up ? partial < whole.begin : partial > whole.begin)))
      return take_from_chunk(partial, count, order);
    if (any_whole) {
      chunks_.take_exactly(whole);
      return carve(whole, count, lifetime);
    }
  }
  gather();
  const std::uint64_t page = find_run(count, align_order, within, direction);
  if (page != none) take_run({page, page + count}, lifetime);
  return page;
}

std::vector<PageRun> PageSpace::plan_scattered(std::uint64_t count) {
  gather();
  std::vector<PageRun> runs;
  std::uint64_t left = count;
  // Whole chunks, in the largest pieces; then the pages of partial chunks, emptiest first.
  std::vector<PageRun> whole;
  chunks_.each([&](PageRun run) { whole.push_back(run); });
  std::ranges::sort(whole, longer_or_lower);
  for (auto run = whole.begin(); run != whole.end() && left > 0; ++run) {
    const std::uint64_t pages = std::min(left, first_page(run->size()));
    runs.push_back({first_page(run->begin), first_page(run->begin) + pages});
    left -= pages;
  }
  if (left > 0) {
    std::vector<PageRun> rest;
    each_free_run({0, map_.pages()}, Cached::skipped, [&](PageRun run) {
      if (map_.kind(run.begin >> chunk_order) != Kind::partial &&
          map_.kind((run.end - 1) >> chunk_order) != Kind::partial)
        return;
      // What lies in whole chunks is taken already.
      for (std::uint64_t page = run.begin; page < run.end;) {
        const std::uint64_t end = std::min(run.end, first_page((page >> chunk_order) + 1));
        if (map_.kind(page >> chunk_order) == Kind::partial) rest.push_back({page, end});
        page = end;
      }
    });
    std::ranges::sort(rest, longer_or_lower);
    for (auto run = rest.begin(); run != rest.end() && left > 0; ++run) {
      run->end = run->begin + std::min(left, run->size());
      runs.push_back(*run);
      left -= run->size();
    }
  }
  if (left > 0) runs.clear();
  return runs;
}

// Whether each page of a run is in a chunk of which whole(kind) is true, or in a partial one and as
// free as `bits`.
template <class Whole>
bool PageSpace::all_pages(PageRun run, std::uint64_t bits, Whole whole) const {
  for (std::uint64_t page = run.begin; page < run.end;) {
    const std::uint64_t c = page >> chunk_order;
    const Kind kind = map_.kind(c);
    const std::uint64_t end = first_page(c + 1);
    if (!whole(kind)) {
      if (kind != Kind::partial) return false;
      const auto first = static_cast<unsigned>(page - first_page(c));
      const auto last = static_cast<unsigned>(std::min(run.end, end) - first_page(c));
      if (!map_.part_is(c, first, last, bits)) return false;
    }
    page = end;
  }
  return true;
}

bool PageSpace::all_free(PageRun run) const {
  return all_pages(run, ~std::uint64_t{0}, [](Kind kind) { return kind == Kind::free; });
}

bool PageSpace::all_allocated(PageRun run) const {
  return all_pages(run, 0, [](Kind kind) { return kind == Kind::allocated || kind == Kind::lone; });
}

std::uint64_t PageSpace::free_pages() const {
  std::uint64_t pages = 0;
  for (std::uint64_t c = 0; c < map_.chunks(); ++c)
    if (map_.kind(c) != Kind::allocated && map_.kind(c) != Kind::lone)
      pages += mm::count(map_.free_bits(c));
  return pages;
}

std::uint64_t PageSpace::whole_chunk_pages() const {
  std::uint64_t chunks = 0;
  for (std::uint64_t c = 0; c < map_.chunks(); ++c)
    chunks += map_.kind(c) == Kind::free || map_.kind(c) == Kind::cached ? 1U : 0U;
  return first_page(chunks);
}

std::uint64_t PageSpace::longest_run() const {
  std::uint64_t longest = 0;
  each_free_run({0, map_.pages()}, Cached::counted,
                [&](PageRun run) { longest = std::max(longest, run.size()); });
  return longest;
}

// Pages that were freed without the lock, and not counted yet, are no fault.
bool PageSpace::is_filed_rightly(std::uint64_t c) const {
  const ChunkMap::Chunk& chunk = map_.chunk(c);
  if (map_.kind(c) == Kind::free)
    return chunk.order == no_order && chunks_.run_with(c).begin != none;
  if (map_.kind(c) != Kind::partial || chunk.lease.load() != 0) return chunk.order == no_order;
  const ChunkBits bits = map_.free_bits(c);
  const unsigned free = mm::count(bits);
  const unsigned order = largest_order(bits);
  const bool counted =
      free == chunk.free_pages && order == chunk.order && chunk.blocks == BlockOrders::of(bits);
  if (!counted && !map_.any_touched()) return false;
  if (chunk.order == no_order) return true;
  return chunk.order < ChunkBins::orders && free >= chunk.free_pages && order >= chunk.order &&
         bins_.contains(chunk.lifetime.load(), chunk.order, chunk.free_pages, c);
}

std::uint64_t PageSpace::recount() {
  std::uint64_t wrong = 0;
  for (std::uint64_t c = 0; c < map_.chunks(); ++c) wrong += is_filed_rightly(c) ? 0U : 1U;
  leases_.each([this](PageLeases::Lease& lease) { static_cast<void>(leases_.revoke(lease)); });
  stacks_.drain([this](std::uint64_t c) { map_.set_kind(c, Kind::free); });
  map_.each_touched([](std::uint64_t) {});
  bins_.clear();
  chunks_.clear();
  for (std::uint64_t c = 0; c < map_.chunks(); ++c) {
    map_.chunk(c).order = no_order;
    if (map_.kind(c) == Kind::free) chunks_.give({c, c + 1});
    if (map_.kind(c) == Kind::partial) rebin(c);
  }
  return wrong;
}

void PageSpace::validate() const {
  std::uint64_t binned = 0;
  std::uint64_t whole = 0;
  std::uint64_t cached = 0;
  for (std::uint64_t c = 0; c < map_.chunks(); ++c) {
    const ChunkMap::Chunk& chunk = map_.chunk(c);
    const Kind kind = map_.kind(c);
    const bool leased = chunk.lease.load() != 0;
    if (kind == Kind::free) ++whole;
    if (kind == Kind::cached) ++cached;
    ACCELMM_CHECK(kind != Kind::claimed);
    if (kind != Kind::partial || leased) {
      ACCELMM_CHECK(chunk.order == no_order);
      ACCELMM_CHECK(kind == Kind::partial || !leased);
      continue;
    }
    ACCELMM_CHECK(map_.zeros(c) != Zeros::all);
    const ChunkBits bits = map_.free_bits(c);
    if (chunk.order != no_order) {
      ++binned;
      ACCELMM_CHECK(bins_.contains(chunk.lifetime.load(), chunk.order, chunk.free_pages, c));
      // Pages may have been freed since they were counted, never taken.
      ACCELMM_CHECK(largest_order(bits) >= chunk.order);
    }
    ACCELMM_CHECK(mm::count(bits) >= chunk.free_pages);
    if (!map_.any_touched()) {
      ACCELMM_CHECK(mm::count(bits) == chunk.free_pages);
      ACCELMM_CHECK(largest_order(bits) == chunk.order);
      ACCELMM_CHECK(chunk.blocks == BlockOrders::of(bits));
    }
  }
  ACCELMM_CHECK(bins_.validate() == binned);
  ACCELMM_CHECK(chunks_.validate() == whole);
  chunks_.each([this](PageRun run) {
    for (std::uint64_t c = run.begin; c < run.end; ++c) ACCELMM_CHECK(map_.kind(c) == Kind::free);
  });
  stacks_.each([&](std::uint64_t c) {
    ACCELMM_CHECK(map_.kind(c) == Kind::cached);
    ACCELMM_CHECK(chunks_.run_with(c).begin == none);
    --cached;
  });
  ACCELMM_CHECK(cached == 0);
}

}  // namespace accelmm::mm
