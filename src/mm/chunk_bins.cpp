// SPDX-License-Identifier: Apache-2.0
#include "mm/chunk_bins.hpp"

#include <accelmm/check.hpp>

#include <algorithm>
#include <bit>

namespace accelmm::mm {

ChunkBins::ChunkBins(std::uint64_t chunks)
    : words_taken_(bins * BitTree::words_for(chunks)), words_(new std::uint64_t[words_taken_]()) {
  std::uint64_t* words = words_.get();
  for (BitTree& tree : trees_) {
    tree = BitTree(words, chunks);
    words += BitTree::words_for(chunks);
  }
}

void ChunkBins::insert(unsigned lifetime, unsigned order, unsigned free_pages,
                       std::uint64_t chunk) {
  ACCELMM_DCHECK(order < orders && free_pages > 0 && free_pages < chunk_pages);
  const unsigned fill = fill_of(free_pages);
  const unsigned i = index(lifetime, order, fill);
  trees_[i].insert(chunk);
  if (counts_[i]++ == 0)
    filled_[lifetime][order] = static_cast<std::uint8_t>(filled_[lifetime][order] | 1U << fill);
}

void ChunkBins::erase(unsigned lifetime, unsigned order, unsigned free_pages, std::uint64_t chunk) {
  const unsigned fill = fill_of(free_pages);
  const unsigned i = index(lifetime, order, fill);
  trees_[i].erase(chunk);
  if (--counts_[i] == 0)
    filled_[lifetime][order] = static_cast<std::uint8_t>(filled_[lifetime][order] & ~(1U << fill));
}

void ChunkBins::clear() {
  std::fill_n(words_.get(), words_taken_, 0);
  counts_.fill(0);
  filled_ = {};
}

std::uint64_t ChunkBins::validate() const {
  std::uint64_t chunks = 0;
  for (unsigned lifetime = 0; lifetime < lifetimes; ++lifetime)
    for (unsigned order = 0; order < orders; ++order)
      for (unsigned fill = 0; fill < fills; ++fill) {
        const unsigned i = index(lifetime, order, fill);
        ACCELMM_CHECK(trees_[i].validate() == counts_[i]);
        ACCELMM_CHECK((filled_[lifetime][order] >> fill & 1U) == (counts_[i] == 0 ? 0U : 1U));
        chunks += counts_[i];
      }
  return chunks;
}

std::uint64_t ChunkBins::best(unsigned lifetime, unsigned order) const {
  for (unsigned o = order; o < orders; ++o) {
    const unsigned filled = filled_[lifetime][o];
    if (filled == 0) continue;
    return tree(lifetime, o, static_cast<unsigned>(std::countr_zero(filled))).first();
  }
  return none;
}

std::uint64_t ChunkBins::lowest(unsigned lifetime, unsigned order, std::uint64_t begin,
                                std::uint64_t end) const {
  std::uint64_t found = none;
  for (unsigned o = order; o < orders; ++o)
    for (unsigned filled = filled_[lifetime][o]; filled != 0; filled &= filled - 1)
      found = std::min(
          found, tree(lifetime, o, static_cast<unsigned>(std::countr_zero(filled))).next(begin));
  return found < end ? found : none;
}

std::uint64_t ChunkBins::highest(unsigned lifetime, unsigned order, std::uint64_t begin,
                                 std::uint64_t end) const {
  std::uint64_t found = none;
  for (unsigned o = order; o < orders; ++o)
    for (unsigned filled = filled_[lifetime][o]; filled != 0; filled &= filled - 1) {
      const std::uint64_t last =
          tree(lifetime, o, static_cast<unsigned>(std::countr_zero(filled))).previous(end);
      if (last != none && last >= begin && (found == none || last > found)) found = last;
    }
  return found;
}

}  // namespace accelmm::mm
