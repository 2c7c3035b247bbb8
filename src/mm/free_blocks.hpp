// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "mm/bit_tree.hpp"
#include "mm/page_run.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <optional>

namespace accelmm::mm {

/// 2^order pages that start at a multiple of 2^order.
struct Block {
  unsigned order;
  std::uint64_t first_page;
  [[nodiscard]] std::uint64_t index() const { return first_page >> order; }
  [[nodiscard]] std::uint64_t end() const { return first_page + (std::uint64_t{1} << order); }
};

/// The free blocks of a buddy system over the pages [0, pages): one BitTree an order.
///
/// Owns      nothing: the words belong to the caller.
/// Threads   externally synchronised.
/// Invariant blocks are disjoint, and no block's buddy is in the set -> validate().
/// Cost      give, take, find O(orders). A block is found by the lowest address of its order.
/// Source    Knuth, TAOCP 1, section 2.5.
class FreeBlocks {
 public:
  static constexpr unsigned max_orders = 37;  // BitTree::max_size is 2^36 pages
  static constexpr std::uint64_t none = ~std::uint64_t{0};

  [[nodiscard]] static std::uint64_t words_for(std::uint64_t pages);

  FreeBlocks() = default;
  /// Pre: `words` points to words_for(pages) zero words. The set starts empty.
  FreeBlocks(std::uint64_t* words, std::uint64_t pages);

  [[nodiscard]] std::uint64_t pages() const { return pages_; }
  [[nodiscard]] unsigned orders() const { return orders_; }
  [[nodiscard]] std::uint64_t count(unsigned order) const { return counts_[order]; }
  /// The largest order that has a block, or nothing.
  [[nodiscard]] std::optional<unsigned> largest_order() const;
  /// The smallest order >= `order` that has a block, or nothing.
  [[nodiscard]] std::optional<unsigned> smallest_order_from(unsigned order) const;
  /// The lowest block of an order. Pre: count(order) > 0.
  [[nodiscard]] Block lowest(unsigned order) const;

  /// The block to take `count` pages from at a multiple of 2^align_order: the smallest order that
  /// has one. It looks at a bounded number of unaligned blocks, hence may miss one (find_run does
  /// not).
  [[nodiscard]] std::optional<Block> find(std::uint64_t count, unsigned align_order) const;

  /// Calls f(Block) for blocks of at least `count` pages at a multiple of 2^align_order, smallest
  /// orders first, until it returns true or `limit` were looked at. Returns that block, or nothing.
  template <class F>
  [[nodiscard]] std::optional<Block> first_of(std::uint64_t count, unsigned align_order,
                                              unsigned limit, F f) const;

  /// Takes the first `count` pages of a block; the rest stays free.
  void take_front(Block block, std::uint64_t count);
  /// Takes these pages out of whatever blocks hold them. Pre: all of them are in blocks.
  void take(PageRun run);
  /// Puts pages in, merging buddies. Pre: none of them is in a block.
  void give(PageRun run);

  /// The lowest or highest `count` pages inside `within`, at a multiple of 2^align_order, that one
  /// block holds; begin == none if there are none. It looks at one block an order.
  [[nodiscard]] PageRun lowest_within(std::uint64_t count, unsigned align_order,
                                      PageRun within) const;
  [[nodiscard]] PageRun highest_within(std::uint64_t count, unsigned align_order,
                                       PageRun within) const;

  /// Calls f(Block) for each block, smallest orders first.
  template <class F>
  void each(F f) const {
    for (unsigned order = 0; order < orders_; ++order)
      for (std::uint64_t i = trees_[order].next(0); i != BitTree::none;
           i = trees_[order].next(i + 1))
        f(Block{order, i << order});
  }

  /// Checks the invariants; returns the pages in blocks.
  [[nodiscard]] std::uint64_t validate() const;
  /// Whether a block holds this page.
  [[nodiscard]] bool holds(std::uint64_t page) const;

 private:
  void insert(unsigned order, std::uint64_t index);
  void erase(unsigned order, std::uint64_t index);
  void insert_merged(unsigned order, std::uint64_t index);
  /// Puts pages in that cannot merge with anything outside the run.
  void give_unmerged(PageRun run);
  [[nodiscard]] unsigned order_holding(std::uint64_t page) const;
  void validate_order(unsigned order) const;

  std::uint64_t pages_ = 0;
  unsigned orders_ = 0;
  std::uint64_t nonempty_ = 0;  // bit o: order o has a block
  std::array<std::uint64_t, max_orders> counts_{};
  std::array<BitTree, max_orders> trees_{};
};

template <class F>
std::optional<Block> FreeBlocks::first_of(std::uint64_t count, unsigned align_order, unsigned limit,
                                          F f) const {
  for (auto order = static_cast<unsigned>(std::bit_width(count - 1)); order < orders_; ++order) {
    if (counts_[order] == 0) continue;
    const std::uint64_t mask =
        align_order <= order ? 0 : (std::uint64_t{1} << std::min(align_order - order, 63U)) - 1;
    std::uint64_t i = trees_[order].next(0);
    for (; i != BitTree::none; i = trees_[order].next((i | mask) + 1)) {
      if (limit-- == 0) return std::nullopt;
      const Block block{order, i << order};
      if ((i & mask) == 0 && f(block)) return block;
    }
  }
  return std::nullopt;
}

}  // namespace accelmm::mm
