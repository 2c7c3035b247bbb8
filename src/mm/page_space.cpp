// SPDX-License-Identifier: Apache-2.0
#include "mm/page_space.hpp"

#include <accelmm/check.hpp>

#include <algorithm>
#include <bit>

namespace accelmm::mm {

namespace {

constexpr std::uint64_t pages_of(std::uint64_t chunks) {
  return chunks << chunk_order;
}

constexpr std::uint64_t chunks_for(std::uint64_t pages) {
  return (pages + chunk_pages - 1) >> chunk_order;
}

unsigned in_chunk(std::uint64_t page) {
  return static_cast<unsigned>(page & (chunk_pages - 1));
}

// Calls f(chunk, begin, end) for the part of a run that lies in each chunk.
template <class F>
void each_chunk(PageRun run, F f) {
  while (!run.empty()) {
    const unsigned begin = in_chunk(run.begin);
    const auto end = static_cast<unsigned>(
        std::min<std::uint64_t>(chunk_pages, std::uint64_t{begin} + run.size()));
    f(run.begin >> chunk_order, begin, end);
    run.begin += end - begin;
  }
}

}  // namespace

PageSpace::PageSpace(std::uint64_t pages, ChunkMap::Zeros zeros)
    : map_(pages, zeros),
      bins_(map_.chunks()),
      whole_chunks_(pages >> chunk_order),
      // A region of less than a chunk has no whole one, and never a run.
      chunks_(std::max<std::uint64_t>(whole_chunks_, 1)),
      leases_(map_) {
  if (whole_chunks_ > 0) chunks_.give({0, whole_chunks_});
  if (whole_chunks_ < map_.chunks()) rebin(whole_chunks_);
}

std::size_t PageSpace::metadata_bytes() const {
  return map_.metadata_bytes() + bins_.metadata_bytes() + leases_.metadata_bytes() +
         stacks_.metadata_bytes() + chunks_.metadata_bytes() + sizeof(PageSpace);
}

void PageSpace::settle_touched() {
  map_.each_touched([this](std::uint64_t c) {
    const ChunkMap::Chunk& chunk = map_.chunk(c);
    if (map_.kind(c) != Kind::partial || chunk.lease.load(std::memory_order_seq_cst) != 0) return;
    unbin(c);
    rebin(c);
  });
}

void PageSpace::unbin(std::uint64_t c) {
  ChunkMap::Chunk& chunk = map_.chunk(c);
  if (chunk.order == no_order) return;
  bins_.erase(chunk.lifetime.load(std::memory_order_relaxed), chunk.order, chunk.free_pages, c);
  chunk.order = no_order;
}

void PageSpace::file(std::uint64_t c, unsigned free_pages, unsigned order) {
  ChunkMap::Chunk& chunk = map_.chunk(c);
  chunk.free_pages = static_cast<std::uint16_t>(free_pages);
  chunk.order = static_cast<std::uint8_t>(order);
  if (order != no_order)
    bins_.insert(chunk.lifetime.load(std::memory_order_relaxed), order, free_pages, c);
}

// Files a chunk whose count and blocks changed. Pages that were freed without the lock meanwhile
// show in its blocks and not in `free_pages`: then it is counted anew, so that a filed chunk has at
// least the pages of its largest block.
void PageSpace::refile(std::uint64_t c, unsigned free_pages) {
  ChunkMap::Chunk& chunk = map_.chunk(c);
  const unsigned order = map_.chunk(c).blocks.largest();
  if (order == no_order ? free_pages != 0 : free_pages < 1U << order) {
    unbin(c);
    rebin(c);
  } else if (order == chunk.order && ChunkBins::same_fill(free_pages, chunk.free_pages)) {
    chunk.free_pages = static_cast<std::uint16_t>(free_pages);
  } else {
    unbin(c);
    file(c, free_pages, order);
  }
}

// Counts a partial chunk that is in no bin, and puts it where it belongs now.
void PageSpace::rebin(std::uint64_t c) {
  const unsigned free_pages = map_.count_blocks(c);
  if (free_pages == chunk_pages)
    give_chunk(c);
  else
    file(c, free_pages, map_.chunk(c).blocks.largest());
}

// The smallest block of at least 2^order pages, so that larger ones stay whole; the lowest of these.
// Pre: the chunk is in a bin of that order or a larger.
ChunkBlock PageSpace::best_block_of(std::uint64_t c, unsigned order) const {
  const BlockOrders blocks = map_.chunk(c).blocks;
  if (order < BlockOrders::word_order) {
    order = blocks.smallest_part(order);
    if (order < BlockOrders::word_order) {
      const unsigned w = blocks.word_with(order);
      const ChunkBlock block = best_block_of_word(map_.free_word(c * chunk_words + w), order);
      return {w * 64 + block.first_page, block.order};
    }
  }
  return blocks.best_of_whole_words(order);
}

std::uint64_t PageSpace::take_from_chunk(std::uint64_t c, std::uint64_t count, unsigned order) {
  const ChunkBlock block = best_block_of(c, order);
  ACCELMM_CHECK(block.first_page != no_page);
  return take_part(c, block.first_page, count);
}

// Takes `count` free pages of a chunk that is in a bin of that many or more.
std::uint64_t PageSpace::take_part(std::uint64_t c, unsigned first, std::uint64_t count) {
  const auto pages = static_cast<unsigned>(count);
  map_.take(c, first, first + pages);
  refile(c, map_.chunk(c).free_pages - pages);
  return pages_of(c) + first;
}

// Takes whole chunks.
PageRun PageSpace::take_chunks(std::uint64_t count, unsigned align_order) {
  if (count == 1 && align_order == 0)
    if (const std::uint64_t c = stacks_.pop(); c != none) return {c, c + 1};
  return chunks_.take(count, align_order);
}

// Makes the first `pages` of chunks that are in no run allocated, and gives the rest.
std::uint64_t PageSpace::carve(PageRun chunks, std::uint64_t pages, unsigned lifetime) {
  const std::uint64_t full = pages >> chunk_order;
  const Kind kind = full == 1 && pages == chunk_pages ? Kind::lone : Kind::allocated;
  map_.states().set_all_but_zeros({chunks.begin, chunks.begin + full},
                                  ChunkState(kind, Zeros::none, lifetime));
  if (const unsigned taken = in_chunk(pages); taken != 0) {
    const std::uint64_t c = chunks.begin + full;
    map_.make_partial(c);
    map_.chunk(c).lifetime.store(static_cast<std::uint8_t>(lifetime), std::memory_order_relaxed);
    map_.take(c, 0, taken);
    // What is left ends where the chunk does, and so does its largest block.
    const unsigned left = chunk_pages - taken;
    file(c, left, static_cast<unsigned>(std::bit_width(left)) - 1);
  }
  return pages_of(chunks.begin);
}

// Puts a chunk, whose pages are all free, where whole chunks are.
void PageSpace::give_chunk(std::uint64_t c) {
  map_.set_kind(c, Kind::cached);
  if (stacks_.push(c)) return;
  map_.set_kind(c, Kind::free);
  chunks_.give({c, c + 1});
}

void PageSpace::empty_stacks() {
  stacks_.drain([this](std::uint64_t c) {
    map_.set_kind(c, Kind::free);
    chunks_.give({c, c + 1});
  });
}

std::uint64_t PageSpace::take_cached_chunk(unsigned lifetime) {
  const std::uint64_t c = stacks_.pop();
  if (c == none) return none;
  map_.states().set(c, ChunkState(Kind::lone, map_.zeros(c), lifetime));
  leases_.count_allocation();
  return pages_of(c);
}

PageSpace::Given PageSpace::give_lone_chunk(std::uint64_t c, Zeros zeros) {
  if (!map_.states().claim_lone(c)) return Given::not_lone;
  map_.states().set(c, ChunkState(Kind::cached, zeros));
  if (stacks_.push(c)) {
    leases_.count_free();
    return Given::done;
  }
  map_.states().set(c, ChunkState(Kind::claimed, zeros));
  return Given::no_room;
}

std::uint64_t PageSpace::take(std::uint64_t count, unsigned align_order, unsigned lifetime) {
  const unsigned order = std::max(static_cast<unsigned>(std::bit_width(count - 1)), align_order);
  if (order < chunk_order) {
    const std::uint64_t c = bins_.best(lifetime, order);
    if (c != none) return take_from_chunk(c, count, order);
  }
  const std::uint64_t chunks = chunks_for(count);
  const PageRun run = take_chunks(chunks, std::max(align_order, chunk_order) - chunk_order);
  return run.begin == none ? none : carve(run, count, lifetime);
}

std::uint64_t PageSpace::take_anywhere(std::uint64_t count, unsigned align_order,
                                       unsigned lifetime) {
  const auto attempt = [&](unsigned first, unsigned last) {
    std::uint64_t page = none;
    for (unsigned l = first; l < last && page == none; ++l)
      page = take(count, align_order, (lifetime + l) % lifetimes);
    return page;
  };
  std::uint64_t page = attempt(0, lifetimes);
  if (page != none) return page;
  gather();
  page = attempt(0, lifetimes);
  if (page != none) return page;
  page = find_run(count, align_order, {0, map_.pages()}, Direction::up);
  if (page != none) take_run({page, page + count}, lifetime);
  return page;
}

void PageSpace::take_run(PageRun run, unsigned lifetime) {
  for (std::uint64_t c = run.begin >> chunk_order; pages_of(c) < run.end; ++c) {
    const std::uint64_t first = c;
    while (pages_of(c) < run.end && map_.kind(c) == Kind::free) ++c;
    if (first < c) chunks_.take_exactly({first, c});
  }
  each_chunk(run, [&](std::uint64_t c, unsigned begin, unsigned end) {
    ChunkMap::Chunk& chunk = map_.chunk(c);
    ACCELMM_DCHECK(chunk.lease.load() == 0);
    if (map_.kind(c) == Kind::free) {
      if (end - begin == chunk_pages) {
        map_.states().set(c, ChunkState(Kind::allocated, map_.zeros(c), lifetime));
        return;
      }
      map_.make_partial(c);
      chunk.lifetime.store(static_cast<std::uint8_t>(lifetime), std::memory_order_relaxed);
    }
    unbin(c);
    map_.take(c, begin, end);
    rebin(c);
  });
}

bool PageSpace::release(PageRun run, Zeros zeros) {
  const std::uint64_t c = run.begin >> chunk_order;
  if (run.end > pages_of(c + 1) || map_.kind(c) != Kind::partial) return release_many(run, zeros);
  const unsigned begin = in_chunk(run.begin);
  const unsigned end = begin + static_cast<unsigned>(run.size());
  if (!map_.part_is(c, begin, end, 0)) return false;
  give_part(c, begin, end, zeros);
  return true;
}

// What was taken in one piece has all its chunks allocated but for a part of the last one.
bool PageSpace::release_many(PageRun run, Zeros zeros) {
  const PageRun whole{run.begin >> chunk_order, run.end >> chunk_order};
  const unsigned rest = in_chunk(run.end);
  const bool in_one_piece = in_chunk(run.begin) == 0 && whole.size() > 1 &&
                            map_.states().all(whole, Kind::allocated) &&
                            (rest == 0 || map_.kind(whole.end) == Kind::partial);
  if (!in_one_piece) {
    if (!claim(run)) return false;
    give(run, zeros);
    return true;
  }
  if (rest != 0 && !map_.part_is(whole.end, 0, rest, 0)) return false;
  map_.states().set_all(whole, ChunkState(Kind::free, zeros));
  chunks_.give(whole);
  if (rest != 0) give_part(whole.end, 0, rest, zeros);
  return true;
}

bool PageSpace::claim(PageRun run) {
  if (!all_allocated(run)) return false;
  const std::uint64_t first = run.begin >> chunk_order;
  for (std::uint64_t c = first; pages_of(c) < run.end; ++c) {
    const Kind kind = map_.kind(c);
    if (kind == Kind::partial) continue;
    if (kind == Kind::allocated) {
      map_.set_kind(c, Kind::claimed);
    } else if (!map_.states().claim_lone(c)) {
      // Somebody frees the same chunk at this moment.
      while (c-- > first)
        if (map_.kind(c) == Kind::claimed) map_.set_kind(c, Kind::allocated);
      return false;
    }
  }
  return true;
}

void PageSpace::give(PageRun run, Zeros zeros) {
  while (!run.empty()) {
    const std::uint64_t c = run.begin >> chunk_order;
    const unsigned begin = in_chunk(run.begin);
    // Neighbours that become free as one.
    const std::uint64_t last = run.end >> chunk_order;
    std::uint64_t end = c;
    if (begin == 0)
      for (; end < last && map_.kind(end) == Kind::claimed; ++end)
        map_.states().set(end, ChunkState(Kind::free, zeros));
    if (end > c) {
      if (end == c + 1)
        give_chunk(c);
      else
        chunks_.give({c, end});
      run.begin = pages_of(end);
      continue;
    }
    const std::uint64_t stop = std::min(pages_of(c + 1), run.end);
    give_part(c, begin, static_cast<unsigned>(stop - pages_of(c)), zeros);
    run.begin = stop;
  }
}

void PageSpace::split_claimed(PageRun run) {
  each_chunk(run, [this](std::uint64_t c, unsigned, unsigned) {
    if (map_.kind(c) == Kind::claimed) map_.make_partial(c);
  });
}

void PageSpace::give_part(std::uint64_t c, unsigned begin, unsigned end, Zeros zeros) {
  if (map_.kind(c) == Kind::claimed) map_.make_partial(c);
  if (map_.zeros(c) != zeros) map_.set_zeros({pages_of(c) + begin, pages_of(c) + end}, zeros);
  map_.give(c, begin, end);
  const ChunkMap::Chunk& chunk = map_.chunk(c);
  if (chunk.lease.load(std::memory_order_relaxed) != 0) return;
  const unsigned free_pages = chunk.free_pages + (end - begin);
  if (free_pages != chunk_pages) return refile(c, free_pages);
  unbin(c);
  give_chunk(c);
}

// The fullest chunk, or a whole one. What another processor frees into just now is left alone while
// there is another.
std::uint64_t PageSpace::chunk_to_lease(unsigned lifetime) {
  constexpr unsigned looked_at = 8;
  std::uint64_t c = bins_.first_of(lifetime, 0, looked_at, [this](std::uint64_t candidate) {
    return !leases_.is_freed_into(candidate);
  });
  if (c != none) return c;
  c = take_chunks(1, 0).begin;
  if (c == none) return bins_.best(lifetime, 0);
  map_.make_partial(c);
  return c;
}

bool PageSpace::renew_lease(unsigned lifetime) {
  PageLeases::Lease* const lease = leases_.current(lifetime);
  if (lease == nullptr) return false;
  const std::uint64_t before = leases_.release(*lease);
  if (before != none) rebin(before);
  const std::uint64_t c = chunk_to_lease(lifetime);
  leases_.forget_freers();
  if (c == none) return false;
  unbin(c);
  leases_.grant(*lease, c, lifetime);
  return true;
}

void PageSpace::gather() {
  leases_.each([this](PageLeases::Lease& lease) {
    const std::uint64_t c = leases_.revoke(lease);
    if (c != none) rebin(c);
  });
  settle();
  empty_stacks();
}

}  // namespace accelmm::mm
