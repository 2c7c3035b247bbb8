// SPDX-License-Identifier: Apache-2.0
//
// Pages that are known to hold zeros, for those who would clear them otherwise. What is known lies
// beside the free space and never splits it: clean and other pages share chunks and runs, and who
// asks for clean ones looks at some places that serve before it takes any.
#include "mm/page_space.hpp"

#include <algorithm>
#include <bit>

namespace accelmm::mm {

namespace {

// Chunks, or runs of chunks, that are looked at. Clearing 4 KiB takes 36 ns (docs/mm.md), a look
// at a chunk less; so the search pays unless it seldom finds something.
constexpr unsigned looks = 8;

}  // namespace

std::uint64_t PageSpace::take_clean(std::uint64_t count, unsigned align_order, unsigned lifetime) {
  const unsigned order = std::max(static_cast<unsigned>(std::bit_width(count - 1)), align_order);
  if (order < chunk_order) {
    const std::uint64_t page = take_clean_part(count, order, lifetime);
    if (page != none) return page;
  }
  const std::uint64_t chunks = (count + chunk_pages - 1) >> chunk_order;
  const PageRun run = chunks_.first_of(chunks, std::max(align_order, chunk_order) - chunk_order,
                                       looks, [this](PageRun place) { return all_clean(place); });
  if (run.begin == none) return none;
  chunks_.take_exactly(run);
  return carve(run, count, lifetime);
}

std::uint64_t PageSpace::take_clean_part(std::uint64_t count, unsigned order, unsigned lifetime) {
  ChunkBlock block{no_page, no_order};
  const std::uint64_t c = bins_.first_of(lifetime, order, looks, [&](std::uint64_t chunk) {
    ChunkBits bits = map_.free_bits(chunk);
    for (unsigned w = 0; w < chunk_words; ++w) bits[w] &= map_.zero_word(chunk, w);
    block = best_block(bits, order);
    return block.first_page != no_page;
  });
  if (c == none) return none;
  return take_part(c, block.first_page, count);
}

bool PageSpace::all_clean(PageRun chunks) const {
  for (std::uint64_t c = chunks.begin; c < chunks.end; ++c)
    if (map_.zeros(c) != Zeros::all) return false;
  return true;
}

}  // namespace accelmm::mm
