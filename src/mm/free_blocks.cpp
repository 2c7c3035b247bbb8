// SPDX-License-Identifier: Apache-2.0
//
// Theory. A block of order o covers 2^o pages at a multiple of 2^o, and its buddy is the block
// whose index differs in the lowest bit. Free pages are kept as the unique set of maximal such
// blocks: when both buddies are free they are one block of the next order. One bitmap an order says
// which blocks are in the set; nothing else is stored, so that split and merge are a few bit
// operations and need no memory. A region whose size is no power of two is simply a set of blocks
// at the start, one for each bit of its size; a buddy that would end behind the region is never in
// the set.
#include "mm/free_blocks.hpp"

#include <accelmm/check.hpp>

#include <algorithm>
#include <bit>

namespace accelmm::mm {

namespace {

// Blocks of one order that find() looks at for an aligned one before it takes a larger block. With 16 a
// 2 MiB-aligned request among random blocks of 4 KiB to 64 MiB took 1.7 times as long as with 4.
constexpr int max_probes = 4;

/// The order of the largest aligned block that starts at run.begin and lies in the run.
unsigned largest_order_at(PageRun run) {
  const auto by_size = static_cast<unsigned>(std::bit_width(run.size()) - 1);
  if (run.begin == 0) return by_size;
  return std::min(by_size, static_cast<unsigned>(std::countr_zero(run.begin)));
}

}  // namespace

std::uint64_t FreeBlocks::words_for(std::uint64_t pages) {
  std::uint64_t words = 0;
  for (std::uint64_t blocks = pages; blocks > 0; blocks >>= 1) words += BitTree::words_for(blocks);
  return words;
}

FreeBlocks::FreeBlocks(std::uint64_t* words, std::uint64_t pages)
    : pages_(pages), orders_(static_cast<unsigned>(std::bit_width(pages))) {
  ACCELMM_CHECK(pages > 0 && orders_ <= max_orders);
  for (unsigned order = 0; order < orders_; ++order) {
    trees_[order] = BitTree(words, pages >> order);
    words += BitTree::words_for(pages >> order);
  }
}

void FreeBlocks::insert(unsigned order, std::uint64_t index) {
  trees_[order].insert(index);
  ++counts_[order];
  nonempty_ |= std::uint64_t{1} << order;
}

void FreeBlocks::erase(unsigned order, std::uint64_t index) {
  trees_[order].erase(index);
  if (--counts_[order] == 0) nonempty_ &= ~(std::uint64_t{1} << order);
}

void FreeBlocks::insert_merged(unsigned order, std::uint64_t index) {
  while (order + 1 < orders_ && trees_[order].contains(index ^ 1)) {
    erase(order, index ^ 1);
    index >>= 1;
    ++order;
  }
  insert(order, index);
}

void FreeBlocks::give_unmerged(PageRun run) {
  while (run.begin < run.end) {
    const unsigned order = largest_order_at(run);
    insert(order, run.begin >> order);
    run.begin += std::uint64_t{1} << order;
  }
}

void FreeBlocks::give(PageRun run) {
  while (run.begin < run.end) {
    const unsigned order = largest_order_at(run);
    insert_merged(order, run.begin >> order);
    run.begin += std::uint64_t{1} << order;
  }
}

std::optional<unsigned> FreeBlocks::largest_order() const {
  if (nonempty_ == 0) return std::nullopt;
  return static_cast<unsigned>(std::bit_width(nonempty_) - 1);
}

std::optional<unsigned> FreeBlocks::smallest_order_from(unsigned order) const {
  if (order >= orders_ || (nonempty_ >> order) == 0) return std::nullopt;
  return order + static_cast<unsigned>(std::countr_zero(nonempty_ >> order));
}

Block FreeBlocks::lowest(unsigned order) const {
  return {order, trees_[order].first() << order};
}

std::optional<Block> FreeBlocks::find(std::uint64_t count, unsigned align_order) const {
  const auto fitting = static_cast<unsigned>(std::bit_width(count - 1));  // ceil(log2(count))
  for (unsigned order = fitting; order < align_order && order < orders_; ++order) {
    const std::uint64_t mask = (std::uint64_t{1} << (align_order - order)) - 1;
    std::uint64_t i = counts_[order] == 0 ? BitTree::none : trees_[order].next(0);
    for (int probe = 0; i != BitTree::none && probe < max_probes; ++probe) {
      if ((i & mask) == 0) return Block{order, i << order};
      i = trees_[order].next((i | mask) + 1);
    }
  }
  const auto order = smallest_order_from(std::max(fitting, align_order));
  if (!order) return std::nullopt;
  return lowest(*order);
}

void FreeBlocks::take_front(Block block, std::uint64_t count) {
  erase(block.order, block.index());
  give_unmerged({block.first_page + count, block.end()});
}

unsigned FreeBlocks::order_holding(std::uint64_t page) const {
  unsigned order = 0;
  while (order < orders_ && !trees_[order].contains(page >> order)) ++order;
  return order;
}

bool FreeBlocks::holds(std::uint64_t page) const {
  return order_holding(page) < orders_;
}

void FreeBlocks::take(PageRun run) {
  for (std::uint64_t page = run.begin; page < run.end;) {
    const unsigned order = order_holding(page);
    ACCELMM_CHECK(order < orders_);
    const Block block{order, (page >> order) << order};
    erase(order, block.index());
    give_unmerged({block.first_page, page});
    if (block.end() > run.end) give_unmerged({run.end, block.end()});
    page = block.end();
  }
}

PageRun FreeBlocks::lowest_within(std::uint64_t count, unsigned align_order, PageRun within) const {
  const std::uint64_t mask = align_order < 64 ? (std::uint64_t{1} << align_order) - 1 : ~0ULL;
  PageRun found{none, none};
  for (unsigned order = 0; order < orders_; ++order) {
    if (counts_[order] == 0 || (std::uint64_t{1} << order) < count) continue;
    // The block that holds within.begin may serve with its end; else the next one.
    for (std::uint64_t i = trees_[order].next(within.begin >> order), tries = 0;
         i != BitTree::none && tries < 2; i = trees_[order].next(i + 1), ++tries) {
      const Block block{order, i << order};
      const std::uint64_t begin = (std::max(block.first_page, within.begin) + mask) & ~mask;
      if (begin < within.begin || begin >= found.begin) break;
      if (begin > std::min(block.end(), within.end) ||
          std::min(block.end(), within.end) - begin < count)
        continue;
      found = {begin, begin + count};
      break;
    }
  }
  return found;
}

PageRun FreeBlocks::highest_within(std::uint64_t count, unsigned align_order,
                                   PageRun within) const {
  const std::uint64_t mask = align_order < 64 ? (std::uint64_t{1} << align_order) - 1 : ~0ULL;
  PageRun found{none, none};
  for (unsigned order = 0; order < orders_; ++order) {
    if (counts_[order] == 0 || (std::uint64_t{1} << order) < count) continue;
    std::uint64_t below = ((within.end - 1) >> order) + 1;
    for (unsigned tries = 0; tries < 2; ++tries) {
      const std::uint64_t i = trees_[order].previous(below);
      if (i == BitTree::none) break;
      below = i;
      const Block block{order, i << order};
      const std::uint64_t end = std::min(block.end(), within.end);
      const std::uint64_t low = std::max(block.first_page, within.begin);
      if (end < count || ((end - count) & ~mask) < low) continue;
      const std::uint64_t begin = (end - count) & ~mask;
      if (found.begin == none || begin > found.begin) found = {begin, begin + count};
      break;
    }
  }
  return found;
}

void FreeBlocks::validate_order(unsigned order) const {
  const BitTree& tree = trees_[order];
  ACCELMM_CHECK(tree.validate() == counts_[order]);
  ACCELMM_CHECK(((nonempty_ >> order) & 1) == (counts_[order] == 0 ? 0U : 1U));
  constexpr std::uint64_t even_bits = 0x5555'5555'5555'5555;
  for (std::uint64_t w = 0; w < tree.words(); ++w) {
    const std::uint64_t word = tree.word(w);
    ACCELMM_CHECK((word & (word >> 1) & even_bits) == 0);  // no two free buddies
  }
  for (std::uint64_t i = tree.next(0); i != BitTree::none; i = tree.next(i + 1)) {
    for (unsigned above = 1; order + above < orders_; ++above)
      ACCELMM_CHECK(!trees_[order + above].contains(i >> above));
  }
}

std::uint64_t FreeBlocks::validate() const {
  std::uint64_t pages = 0;
  for (unsigned order = 0; order < orders_; ++order) {
    validate_order(order);
    pages += counts_[order] << order;
  }
  return pages;
}

}  // namespace accelmm::mm
