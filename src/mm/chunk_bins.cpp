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

void ChunkBins::clear() {
  std::fill_n(words_.get(), words_taken_, 0);
  filled_ = {};
}

std::uint64_t ChunkBins::validate() const {
  std::uint64_t chunks = 0;
  for (unsigned lifetime = 0; lifetime < lifetimes; ++lifetime)
    for (unsigned order = 0; order < orders; ++order)
      for (unsigned fill = 0; fill < fills; ++fill) {
        const unsigned i = index(lifetime, order, fill);
        const std::uint64_t count = trees_[i].validate();
        ACCELMM_CHECK((filled_[lifetime] >> (order * fills + fill) & 1U) == (count == 0 ? 0U : 1U));
        chunks += count;
      }
  return chunks;
}

std::uint64_t ChunkBins::lowest(unsigned lifetime, unsigned order, std::uint64_t begin,
                                std::uint64_t end) const {
  std::uint64_t found = none;
  for (std::uint64_t filled = filled_from(lifetime, order); filled != 0; filled &= filled - 1)
    found = std::min(found, first_tree(lifetime, filled).next(begin));
  return found < end ? found : none;
}

std::uint64_t ChunkBins::highest(unsigned lifetime, unsigned order, std::uint64_t begin,
                                 std::uint64_t end) const {
  std::uint64_t found = none;
  for (std::uint64_t filled = filled_from(lifetime, order); filled != 0; filled &= filled - 1) {
    const std::uint64_t last = first_tree(lifetime, filled).previous(end);
    if (last != none && last >= begin && (found == none || last > found)) found = last;
  }
  return found;
}

}  // namespace accelmm::mm
