// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "mm/bit_tree.hpp"
#include "mm/chunk_bits.hpp"

#include <accelmm/check.hpp>

#include <array>
#include <bit>
#include <cstdint>
#include <memory>

namespace accelmm::mm {

inline constexpr unsigned lifetimes = 4;

/// The chunks that are partly free and leased by nobody, by lifetime, by the order of their largest
/// free block, and by how full they are.
///
/// A request takes from the smallest order that serves it, and there from the fullest chunk: large
/// blocks and emptier chunks are left alone and become whole (docs/mm.md has the measurements).
///
/// Owns      its words: 144 bits a chunk.
/// Threads   externally synchronised.
/// Cost      insert, erase and best O(1), lowest and highest O(orders x fullness).
class ChunkBins {
 public:
  static constexpr unsigned orders = chunk_order;  // of a partial chunk: 0 to 8
  // 1, 4, 8 and 16 keep equally many chunks whole (docs/mm.md), so few do.
  static constexpr unsigned fills = 4;
  static constexpr std::size_t bins = std::size_t{lifetimes} * orders * fills;
  static constexpr std::uint64_t none = BitTree::none;

  ChunkBins() = default;
  /// Throws std::bad_alloc.
  explicit ChunkBins(std::uint64_t chunks);

  [[nodiscard]] std::size_t metadata_bytes() const { return words_taken_ * sizeof(std::uint64_t); }

  /// Pre: order < orders, 0 < free_pages < chunk_pages; not in a bin / in this bin.
  void insert(unsigned lifetime, unsigned order, unsigned free_pages, std::uint64_t chunk);
  void erase(unsigned lifetime, unsigned order, unsigned free_pages, std::uint64_t chunk);
  [[nodiscard]] bool contains(unsigned lifetime, unsigned order, unsigned free_pages,
                              std::uint64_t chunk) const {
    return tree(lifetime, order, fill_of(free_pages)).contains(chunk);
  }
  /// Whether two counts of free pages belong in the same bin.
  [[nodiscard]] static bool same_fill(unsigned a, unsigned b) { return fill_of(a) == fill_of(b); }
  /// Chunks in all bins.
  [[nodiscard]] std::uint64_t validate() const;

  /// The chunk to take a block of `order` from, or none.
  [[nodiscard]] std::uint64_t best(unsigned lifetime, unsigned order) const;
  /// Calls f(chunk) for chunks that have a block of `order`, best first, until it returns true or
  /// `limit` were looked at. Returns that chunk, or none.
  template <class F>
  [[nodiscard]] std::uint64_t first_of(unsigned lifetime, unsigned order, unsigned limit,
                                       F f) const;
  /// No chunk is in a bin any more.
  void clear();
  /// The lowest (highest) chunk in [begin, end) that has a block of `order`, or none.
  [[nodiscard]] std::uint64_t lowest(unsigned lifetime, unsigned order, std::uint64_t begin,
                                     std::uint64_t end) const;
  [[nodiscard]] std::uint64_t highest(unsigned lifetime, unsigned order, std::uint64_t begin,
                                      std::uint64_t end) const;

 private:
  [[nodiscard]] static unsigned fill_of(unsigned free_pages) {
    return free_pages / (chunk_pages / fills);
  }
  [[nodiscard]] static unsigned index(unsigned lifetime, unsigned order, unsigned fill) {
    return (lifetime * orders + order) * fills + fill;
  }
  [[nodiscard]] const BitTree& tree(unsigned lifetime, unsigned order, unsigned fill) const {
    return trees_[index(lifetime, order, fill)];
  }
  /// The bins of a lifetime that have a chunk with a block of `order`, best first: bit order * fills +
  /// fill.
  [[nodiscard]] std::uint64_t filled_from(unsigned lifetime, unsigned order) const {
    return filled_[lifetime] & (~std::uint64_t{0} << (order * fills));
  }
  [[nodiscard]] const BitTree& first_tree(unsigned lifetime, std::uint64_t filled) const {
    return trees_[lifetime * (orders * fills) + static_cast<unsigned>(std::countr_zero(filled))];
  }

  std::size_t words_taken_ = 0;
  std::unique_ptr<std::uint64_t[]> words_;
  std::array<BitTree, bins> trees_;
  std::array<std::uint64_t, lifetimes> filled_{};  // bits as filled_from() has them
};

inline void ChunkBins::insert(unsigned lifetime, unsigned order, unsigned free_pages,
                              std::uint64_t chunk) {
  ACCELMM_DCHECK(order < orders && free_pages > 0 && free_pages < chunk_pages);
  const unsigned fill = fill_of(free_pages);
  trees_[index(lifetime, order, fill)].insert(chunk);
  filled_[lifetime] |= std::uint64_t{1} << (order * fills + fill);
}

inline void ChunkBins::erase(unsigned lifetime, unsigned order, unsigned free_pages,
                             std::uint64_t chunk) {
  const unsigned fill = fill_of(free_pages);
  BitTree& chunks = trees_[index(lifetime, order, fill)];
  chunks.erase(chunk);
  if (chunks.empty()) filled_[lifetime] &= ~(std::uint64_t{1} << (order * fills + fill));
}

inline std::uint64_t ChunkBins::best(unsigned lifetime, unsigned order) const {
  const std::uint64_t filled = filled_from(lifetime, order);
  return filled == 0 ? none : first_tree(lifetime, filled).first();
}

template <class F>
std::uint64_t ChunkBins::first_of(unsigned lifetime, unsigned order, unsigned limit, F f) const {
  for (std::uint64_t filled = filled_from(lifetime, order); filled != 0; filled &= filled - 1) {
    const BitTree& chunks = first_tree(lifetime, filled);
    for (std::uint64_t c = chunks.next(0); c != none; c = chunks.next(c + 1)) {
      if (limit-- == 0) return none;
      if (f(c)) return c;
    }
  }
  return none;
}

}  // namespace accelmm::mm
