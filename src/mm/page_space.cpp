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
      // A region of less than a chunk has no whole one; its buddies stay empty.
      words_(new std::uint64_t[FreeBlocks::words_for(std::max<std::uint64_t>(whole_chunks_, 1))]()),
      chunks_(words_.get(), std::max<std::uint64_t>(whole_chunks_, 1)),
      leases_(map_) {
  if (whole_chunks_ > 0) chunks_.give({0, whole_chunks_});
  if (whole_chunks_ < map_.chunks()) rebin(whole_chunks_);
}

std::size_t PageSpace::metadata_bytes() const {
  return map_.metadata_bytes() + bins_.metadata_bytes() + leases_.metadata_bytes() +
         stacks_.metadata_bytes() +
         FreeBlocks::words_for(std::max<std::uint64_t>(whole_chunks_, 1)) * sizeof(std::uint64_t) +
         sizeof(PageSpace);
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

// Files a chunk whose count changed. Pages that were freed without the lock meanwhile show in
// `order` and not in `free_pages`: then it is counted anew, so that a filed chunk has at least the
// pages of its largest block.
void PageSpace::refile(std::uint64_t c, unsigned free_pages, unsigned order) {
  ChunkMap::Chunk& chunk = map_.chunk(c);
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

// Files a chunk that nobody leases after pages of it were given.
void PageSpace::refile_given(std::uint64_t c, unsigned begin, unsigned end) {
  const ChunkMap::Chunk& chunk = map_.chunk(c);
  const unsigned free_pages = chunk.free_pages + (end - begin);
  if (free_pages == chunk_pages) {
    unbin(c);
    give_chunks({c, c + 1});
    return;
  }
  refile(c, free_pages, grown_order(map_.free_bits(c), begin, end, chunk.order));
}

// Counts a partial chunk that is in no bin, and puts it where it belongs now.
void PageSpace::rebin(std::uint64_t c) {
  const ChunkBits bits = map_.free_bits(c);
  const unsigned free_pages = count(bits);
  if (free_pages == chunk_pages)
    give_chunks({c, c + 1});
  else
    file(c, free_pages, largest_order(bits));
}

// Takes `count` pages of a block of `order`. Pre: the chunk is in a bin of that order or a larger.
std::uint64_t PageSpace::take_from_chunk(std::uint64_t c, std::uint64_t count, unsigned order) {
  const ChunkBlock block = best_block(map_.free_bits(c), order);
  ACCELMM_CHECK(block.first_page != no_page);
  return take_block(c, block, count);
}

// Takes the first `count` pages of a block that is free.
std::uint64_t PageSpace::take_block(std::uint64_t c, ChunkBlock block, std::uint64_t count) {
  const ChunkMap::Chunk& chunk = map_.chunk(c);
  map_.take(c, block.first_page, static_cast<unsigned>(block.first_page + count));
  const unsigned before = chunk.order;
  const auto left = static_cast<unsigned>(chunk.free_pages - count);
  // Where a smaller block than the largest was cut, the largest is still there.
  refile(c, left, block.order < before ? before : largest_order(map_.free_bits(c), before));
  return pages_of(c) + block.first_page;
}

// Takes whole chunks; the first, or none.
std::uint64_t PageSpace::take_chunks(std::uint64_t count, unsigned align_order) {
  if (count == 1 && align_order == 0)
    if (const std::uint64_t c = stacks_.pop(); c != none) return c;
  const auto block = chunks_.find(count, align_order);
  if (!block) return none;
  chunks_.take_front(*block, count);
  return block->first_page;
}

// Makes the first `pages` of chunks that are in no block allocated, and gives the rest.
std::uint64_t PageSpace::carve(PageRun chunks, std::uint64_t pages, unsigned lifetime) {
  const std::uint64_t full = pages >> chunk_order;
  const Kind kind = full == 1 && pages == chunk_pages ? Kind::lone : Kind::allocated;
  for (std::uint64_t c = chunks.begin; c < chunks.begin + full; ++c) {
    map_.chunk(c).lifetime.store(static_cast<std::uint8_t>(lifetime), std::memory_order_relaxed);
    map_.chunk(c).kind.store(kind, std::memory_order_release);
  }
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

// Puts chunks, whose pages are all free, where whole chunks are.
void PageSpace::give_chunks(PageRun chunks) {
  if (chunks.size() == 1) {
    map_.chunk(chunks.begin).kind.store(Kind::cached, std::memory_order_release);
    if (stacks_.push(chunks.begin)) return;
  }
  for (std::uint64_t c = chunks.begin; c < chunks.end; ++c)
    map_.chunk(c).kind.store(Kind::free, std::memory_order_release);
  chunks_.give(chunks);
}

void PageSpace::empty_stacks() {
  stacks_.drain([this](std::uint64_t c) {
    map_.chunk(c).kind.store(Kind::free, std::memory_order_release);
    chunks_.give({c, c + 1});
  });
}

std::uint64_t PageSpace::take_cached_chunk(unsigned lifetime) {
  const std::uint64_t c = stacks_.pop();
  if (c == none) return none;
  ChunkMap::Chunk& chunk = map_.chunk(c);
  chunk.lifetime.store(static_cast<std::uint8_t>(lifetime), std::memory_order_relaxed);
  chunk.kind.store(Kind::lone, std::memory_order_release);
  leases_.count_allocation();
  return pages_of(c);
}

PageSpace::Given PageSpace::give_lone_chunk(std::uint64_t c, ChunkMap::Zeros zeros) {
  if (!map_.claim_lone(c)) return Given::not_lone;
  ChunkMap::Chunk& chunk = map_.chunk(c);
  chunk.zeros.store(zeros, std::memory_order_release);
  chunk.kind.store(Kind::cached, std::memory_order_release);
  if (stacks_.push(c)) {
    leases_.count_free();
    return Given::done;
  }
  chunk.kind.store(Kind::claimed, std::memory_order_release);
  return Given::no_room;
}

std::uint64_t PageSpace::take(std::uint64_t count, unsigned align_order, unsigned lifetime) {
  const unsigned order = std::max(static_cast<unsigned>(std::bit_width(count - 1)), align_order);
  if (order < chunk_order) {
    const std::uint64_t c = bins_.best(lifetime, order);
    if (c != none) return take_from_chunk(c, count, order);
  }
  const std::uint64_t chunks = chunks_for(count);
  const std::uint64_t first = take_chunks(chunks, std::max(align_order, chunk_order) - chunk_order);
  return first == none ? none : carve({first, first + chunks}, count, lifetime);
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
  each_chunk(run, [&](std::uint64_t c, unsigned begin, unsigned end) {
    ChunkMap::Chunk& chunk = map_.chunk(c);
    ACCELMM_DCHECK(chunk.lease.load() == 0);
    if (map_.kind(c) == Kind::free) {
      chunks_.take({c, c + 1});
      chunk.lifetime.store(static_cast<std::uint8_t>(lifetime), std::memory_order_relaxed);
      if (end - begin == chunk_pages) {
        chunk.kind.store(Kind::allocated, std::memory_order_release);
        return;
      }
      map_.make_partial(c);
    }
    unbin(c);
    map_.take(c, begin, end);
    rebin(c);
  });
}

bool PageSpace::claim(PageRun run) {
  if (!all_allocated(run)) return false;
  const std::uint64_t first = run.begin >> chunk_order;
  for (std::uint64_t c = first; pages_of(c) < run.end; ++c) {
    std::atomic<Kind>& kind = map_.chunk(c).kind;
    if (kind.load(std::memory_order_relaxed) == Kind::partial) continue;
    if (kind.load(std::memory_order_relaxed) == Kind::allocated) {
      kind.store(Kind::claimed, std::memory_order_relaxed);
    } else if (!map_.claim_lone(c)) {
      // Somebody frees the same chunk at this moment.
      while (c-- > first)
        if (map_.kind(c) == Kind::claimed)
          map_.chunk(c).kind.store(Kind::allocated, std::memory_order_release);
      return false;
    }
  }
  return true;
}

void PageSpace::give(PageRun run, ChunkMap::Zeros zeros) {
  while (!run.empty()) {
    const std::uint64_t c = run.begin >> chunk_order;
    std::uint64_t end = c;  // of neighbours that become free as one
    if (in_chunk(run.begin) == 0)
      for (; end < run.end >> chunk_order && map_.kind(end) == Kind::claimed; ++end)
        map_.chunk(end).zeros.store(zeros, std::memory_order_relaxed);
    if (end > c) {
      give_chunks({c, end});
      run.begin = pages_of(end);
      continue;
    }
    end = std::min(pages_of(c + 1), run.end);
    give_part(c, in_chunk(run.begin), static_cast<unsigned>(end - pages_of(c)), zeros);
    run.begin = end;
  }
}

void PageSpace::split_claimed(PageRun run) {
  each_chunk(run, [this](std::uint64_t c, unsigned, unsigned) {
    if (map_.kind(c) == Kind::claimed) map_.make_partial(c);
  });
}

void PageSpace::give_part(std::uint64_t c, unsigned begin, unsigned end, ChunkMap::Zeros zeros) {
  if (map_.kind(c) == Kind::claimed) map_.make_partial(c);
  map_.set_zeros({pages_of(c) + begin, pages_of(c) + end}, zeros);
  map_.give(c, begin, end);
  if (map_.chunk(c).lease.load(std::memory_order_relaxed) == 0) refile_given(c, begin, end);
}

// The fullest chunk, or a whole one. What another processor frees into just now is left alone while
// there is another.
std::uint64_t PageSpace::chunk_to_lease(unsigned lifetime) {
  constexpr unsigned looked_at = 8;
  std::uint64_t c = bins_.first_of(lifetime, 0, looked_at, [this](std::uint64_t candidate) {
    return !leases_.is_freed_into(candidate);
  });
  if (c != none) return c;
  c = take_chunks(1, 0);
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
