// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "mm/chunk_bins.hpp"
#include "mm/chunk_map.hpp"
#include "mm/chunk_runs.hpp"
#include "mm/chunk_stacks.hpp"
#include "mm/page_leases.hpp"

#include <cstdint>
#include <vector>

namespace accelmm::mm {

/// Where pages are taken from and given back to: what PageAllocator does under its lock.
///
/// Whole free chunks are runs (ChunkRuns), with a few of them at hand of each processor in front. Partly free ones are in the bins, unless a processor leases them.
///
/// Threads   externally synchronised, except for take_cached_chunk(), give_lone_chunk(),
///           leases().take() and give() and map().free_page().
/// Invariant every chunk that is free is in the runs, every cached one on a stack or in a thread's
///           hands; every partial one that is neither leased nor full, as last counted, is in the bin
///           of what was counted.
class PageSpace {
 public:
  static constexpr std::uint64_t none = ~std::uint64_t{0};
  enum class Direction { up, down };

  /// Throws std::bad_alloc.
  PageSpace(std::uint64_t pages, ChunkMap::Zeros zeros);

  [[nodiscard]] ChunkMap& map() { return map_; }
  [[nodiscard]] const ChunkMap& map() const { return map_; }
  [[nodiscard]] PageLeases& leases() { return leases_; }
  [[nodiscard]] const PageLeases& leases() const { return leases_; }
  [[nodiscard]] std::size_t metadata_bytes() const;

  /// Counts the chunks again that pages were freed in without the lock.
  void settle() {
    if (map_.any_touched()) settle_touched();
  }

  /// Takes a run where it does the least harm: the fullest chunk that has a block that fits, in the
  /// given lifetime's chunks. Returns its first page, or none. Bounded; may miss runs that cross
  /// blocks, and chunks that others lease or keep.
  [[nodiscard]] std::uint64_t take(std::uint64_t count, unsigned align_order, unsigned lifetime);
  /// The same of pages that are known to hold zeros, of a bounded number of places.
  [[nodiscard]] std::uint64_t take_clean(std::uint64_t count, unsigned align_order,
                                         unsigned lifetime);
  /// The same as take(), but looks everywhere before it returns none.
  [[nodiscard]] std::uint64_t take_anywhere(std::uint64_t count, unsigned align_order,
                                            unsigned lifetime);
  /// Takes the lowest or highest run inside `within` that a block serves; before it returns none,
  /// any run there.
  [[nodiscard]] std::uint64_t take_within(std::uint64_t count, unsigned align_order,
                                          unsigned lifetime, PageRun within, Direction direction);
  /// Takes these pages. Pre: all free.
  void take_run(PageRun run, unsigned lifetime);
  /// The runs that take_run() may take to have `count` pages, as few as a greedy choice gives; an
  /// empty list if fewer are free. Throws std::bad_alloc.
  [[nodiscard]] std::vector<PageRun> plan_scattered(std::uint64_t count);

  /// Gives pages back that hold zeros, or something else. Returns false, and changes nothing, if one of
  /// them is not allocated.
  [[nodiscard]] bool release(PageRun run, ChunkMap::Zeros zeros);
  /// The same in two steps.
  /// Makes pages the caller's to give. Returns false, and changes nothing, if one of them is not
  /// allocated.
  [[nodiscard]] bool claim(PageRun run);
  /// Gives pages back that hold zeros, or something else. Pre: claimed.
  void give(PageRun run, ChunkMap::Zeros zeros);
  /// Lets pages of claimed chunks be given one by one, or never.
  void split_claimed(PageRun run);

  /// Takes a whole chunk that this processor has at hand. Returns its first page, or none.
  [[nodiscard]] std::uint64_t take_cached_chunk(unsigned lifetime);
  enum class Given { done, not_lone, no_room };
  /// Gives a lone chunk to this processor; `no_room`: it is claimed, and for give() under the lock.
  [[nodiscard]] Given give_lone_chunk(std::uint64_t c, ChunkMap::Zeros zeros);

  /// Gives this processor a chunk to take single pages of `lifetime` from. Returns false if there
  /// is none.
  [[nodiscard]] bool renew_lease(unsigned lifetime);
  /// Ends all leases, and empties the stacks.
  void gather();

  /// Chunks that are cached are not: gather() first.
  [[nodiscard]] bool all_free(PageRun run) const;
  [[nodiscard]] std::uint64_t free_pages() const;
  [[nodiscard]] std::uint64_t whole_chunk_pages() const;
  [[nodiscard]] std::uint64_t longest_run() const;
  /// Pre: nobody uses the space meanwhile.
  void validate() const;
  /// Files every chunk anew by its marks. Returns how many were filed wrongly. Pre: as validate().
  [[nodiscard]] std::uint64_t recount();

 private:
  using Kind = ChunkMap::Kind;
  using Zeros = ChunkMap::Zeros;

  void settle_touched();
  // --- bins ---
  void unbin(std::uint64_t c);
  void rebin(std::uint64_t c);
  void file(std::uint64_t c, unsigned free_pages, unsigned order);
  void refile(std::uint64_t c, unsigned free_pages);
  [[nodiscard]] ChunkBlock best_block_of(std::uint64_t c, unsigned order) const;
  [[nodiscard]] std::uint64_t take_from_chunk(std::uint64_t c, std::uint64_t count, unsigned order);
  [[nodiscard]] std::uint64_t take_part(std::uint64_t c, unsigned first, std::uint64_t count);
  void give_part(std::uint64_t c, unsigned begin, unsigned end, ChunkMap::Zeros zeros);
  // --- whole chunks ---
  [[nodiscard]] PageRun take_chunks(std::uint64_t count, unsigned align_order);
  [[nodiscard]] std::uint64_t carve(PageRun chunks, std::uint64_t pages, unsigned lifetime);
  void give_chunk(std::uint64_t c);
  [[nodiscard]] bool release_many(PageRun run, ChunkMap::Zeros zeros);
  void empty_stacks();
  [[nodiscard]] std::uint64_t chunk_to_lease(unsigned lifetime);
  // --- searches ---
  [[nodiscard]] bool all_allocated(PageRun run) const;
  template <class Whole>
  [[nodiscard]] bool all_pages(PageRun run, std::uint64_t bits, Whole whole) const;
  [[nodiscard]] std::uint64_t find_run(std::uint64_t count, unsigned align_order, PageRun within,
                                       Direction direction) const;
  [[nodiscard]] std::uint64_t take_clean_part(std::uint64_t count, unsigned order,
                                              unsigned lifetime);
  [[nodiscard]] bool all_clean(PageRun chunks) const;
  [[nodiscard]] bool is_filed_rightly(std::uint64_t c) const;
  [[nodiscard]] std::uint64_t best_within(unsigned order, unsigned lifetime, PageRun chunks,
                                          Direction direction) const;
  enum class Cached { skipped, counted };
  template <class F>
  void each_free_run(PageRun within, Cached cached, F f) const;

  ChunkMap map_;
  ChunkBins bins_;
  std::uint64_t whole_chunks_;  // without the last one, if the region ends inside it
  ChunkRuns chunks_;
  ChunkStacks stacks_;
  alignas(64) PageLeases leases_;  // what every page goes through, in one line
};

}  // namespace accelmm::mm
