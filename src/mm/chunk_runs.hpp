// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "mm/bit_tree.hpp"
#include "mm/page_run.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace accelmm::mm {

/// The free chunks of a region, as runs that are as long as they can be: what is given next to free
/// chunks becomes one run with them.
///
/// The bins are of lengths: 16 to each power of two, so that runs of up to 31 chunks have a bin
/// of their own length each. Where runs are of 2^k chunks or more, no two begin in the same 2^k
/// chunks: so a bin is a set of such windows, and a window knows where its run begins.
///
/// Owns      its words: about 9 bytes a chunk.
/// Units     chunks.
/// Threads   externally synchronised.
/// Invariant runs are not empty, and between two of them is a chunk that is in none -> validate().
/// Cost      give and take O(1). A run is found in O(1) or, for an alignment or a range, by a bounded
///           number of looks; each look is O(levels of a BitTree).
/// Source    boundary tags: Knuth, TAOCP 1, section 2.5; segregated fit in two levels: Masmano et al.,
///           TLSF (ECRTS 2004). Here the bins are ordered by address and need no links.
class ChunkRuns {
 public:
  static constexpr std::uint64_t none = ~std::uint64_t{0};
  static constexpr std::uint64_t max_chunks = std::uint64_t{1} << 27;  // of 512 of 2^36 pages
  static constexpr PageRun no_run{none, none};

  /// No chunk is free at first. Throws std::bad_alloc. Pre: 0 < chunks <= max_chunks.
  explicit ChunkRuns(std::uint64_t chunks);

  [[nodiscard]] std::size_t metadata_bytes() const;
  [[nodiscard]] std::uint64_t chunks() const { return chunks_; }

  /// Puts chunks in. Pre: none of them is free.
  void give(PageRun run);
  /// Takes `count` chunks at a multiple of 2^align_order, from the shortest run that is found to have
  /// them. Returns no_run if none is; where an alignment is asked for, it may miss one. Pre: count > 0.
  [[nodiscard]] PageRun take(std::uint64_t count, unsigned align_order);
  /// Takes exactly these. Pre: all are free.
  void take_exactly(PageRun part);

  /// The lowest or highest `count` chunks inside `within`, at a multiple of 2^align_order, of a
  /// bounded number of runs in each bin; no_run if none of these has them. Pre: count > 0, within is
  /// not empty.
  [[nodiscard]] PageRun lowest_within(std::uint64_t count, unsigned align_order,
                                      PageRun within) const;
  [[nodiscard]] PageRun highest_within(std::uint64_t count, unsigned align_order,
                                       PageRun within) const;

  /// Calls f(PageRun) for places of `count` chunks at a multiple of 2^align_order, those of the
  /// shortest runs first, the lowest and the highest of each run, until it returns true or `limit`
  /// runs were looked at. Returns that place, or no_run.
  template <class F>
  [[nodiscard]] PageRun first_of(std::uint64_t count, unsigned align_order, unsigned limit,
                                 F f) const;
  /// The run that has this chunk, or no_run.
  [[nodiscard]] PageRun run_with(std::uint64_t chunk) const;

  /// Calls f(PageRun) for each run, shorter bins first.
  template <class F>
  void each(F f) const {
    for (unsigned bin = next_bin(0); bin < bins_; bin = next_bin(bin + 1))
      for (std::uint64_t window = trees_[bin].next(0); window != none;
           window = trees_[bin].next(window + 1))
        f(run_in(bin, window));
  }
  /// No chunk is free any more.
  void clear();
  /// Checks the invariants; returns how many chunks are free.
  [[nodiscard]] std::uint64_t validate() const;

 private:
  static constexpr unsigned steps_order = 4;  // 16 bins to a power of two
  static constexpr unsigned steps = 1U << steps_order;
  static constexpr unsigned max_bins = 28 * steps;
  static constexpr std::uint32_t no_begin = ~std::uint32_t{0};

  /// The bin of runs of this length.
  [[nodiscard]] static unsigned bin_of(std::uint64_t length) {
    const auto order = static_cast<unsigned>(std::bit_width(length) - 1);
    const std::uint64_t top =
        order >= steps_order ? length >> (order - steps_order) : length << (steps_order - order);
    return order * steps + static_cast<unsigned>(top & (steps - 1));
  }
  [[nodiscard]] static unsigned order_of(unsigned bin) { return bin / steps; }
  [[nodiscard]] std::uint64_t windows(unsigned order) const { return ((chunks_ - 1) >> order) + 1; }
  /// The first bin >= bin that is not empty, or bins_.
  [[nodiscard]] unsigned next_bin(unsigned bin) const {
    for (unsigned w = bin / 64; w < filled_.size(); ++w) {
      const std::uint64_t word =
          w == bin / 64 ? filled_[w] & (~std::uint64_t{0} << (bin % 64)) : filled_[w];
      if (word != 0) return w * 64 + static_cast<unsigned>(std::countr_zero(word));
    }
    return bins_;
  }
  [[nodiscard]] PageRun run_in(unsigned bin, std::uint64_t window) const {
    const unsigned order = order_of(bin);
    const std::uint64_t begin = order == 0 ? window : begins_[order][window];
    return {begin, begin + lengths_[begin]};
  }
  /// The lowest and the highest place in a run; no_run if it has none.
  [[nodiscard]] static PageRun lowest_in(PageRun run, std::uint64_t count, std::uint64_t mask);
  [[nodiscard]] static PageRun highest_in(PageRun run, std::uint64_t count, std::uint64_t mask);

  void insert(PageRun run);
  void erase(PageRun run);
  void take_part(PageRun run, PageRun part);
  [[nodiscard]] PageRun find(std::uint64_t count) const;
  [[nodiscard]] PageRun find_aligned(std::uint64_t count, std::uint64_t mask) const;
  void validate_run(unsigned bin, std::uint64_t window) const;

  std::uint64_t chunks_;
  unsigned orders_;
  unsigned bins_;
  std::size_t tree_words_ = 0;
  std::size_t begin_count_ = 0;
  // Of the first and the last chunk of a run: its length; of all others 0.
  std::unique_ptr<std::uint32_t[]> lengths_;
  std::unique_ptr<std::uint32_t[]> begins_memory_;
  std::unique_ptr<std::uint64_t[]> tree_memory_;
  std::unique_ptr<BitTree[]> trees_;                       // a bin's windows in which a run begins
  std::array<std::uint32_t*, max_bins / steps> begins_{};  // of an order's windows; not of order 0
  std::array<std::uint64_t, (max_bins + 63) / 64> filled_{};  // bit b: bin b is not empty
};

template <class F>
PageRun ChunkRuns::first_of(std::uint64_t count, unsigned align_order, unsigned limit, F f) const {
  const std::uint64_t mask = (std::uint64_t{1} << std::min(align_order, 63U)) - 1;
  for (unsigned bin = next_bin(bin_of(count)); bin < bins_; bin = next_bin(bin + 1))
    for (std::uint64_t window = trees_[bin].next(0); window != none;
         window = trees_[bin].next(window + 1)) {
      if (limit-- == 0) return no_run;
      const PageRun run = run_in(bin, window);
      const PageRun low = lowest_in(run, count, mask);
      if (low.begin == none) continue;
      if (f(low)) return low;
      const PageRun high = highest_in(run, count, mask);
      if (high.begin != low.begin && f(high)) return high;
    }
  return no_run;
}

}  // namespace accelmm::mm
