// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/units.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>

namespace accelmm {

/// How the free memory of a region lies: counts of blocks and of chunks, and what follows from them.
///
/// A block is 2^order free pages at a multiple of 2^order pages that is part of no larger one. What an
/// allocator keeps where does not matter: only which pages are free.
/// Owns      nothing but its counts; a few KiB.
/// Units     orders are of pages: at 4 KiB, 4 is 64 KiB, 9 is 2 MiB and 18 is 1 GiB.
/// Source    external(): Gorman and Whitcroft, "The what, the why and the where to of
///           anti-fragmentation" (2006), as the share of free memory that a request cannot use.
class Fragmentation {
 public:
  static constexpr unsigned orders = 37;        ///< a region has 2^36 pages at most
  static constexpr unsigned chunk_pages = 512;  ///< 2 MiB of 4 KiB pages: a chunk

  explicit Fragmentation(ByteCount page) : page_(page) {}

  [[nodiscard]] ByteCount total() const { return bytes(pages_); }
  [[nodiscard]] ByteCount free() const { return bytes(free_); }
  /// The longest run of free pages.
  [[nodiscard]] ByteCount largest_free() const { return bytes(longest_); }
  [[nodiscard]] std::uint64_t blocks(unsigned order) const { return blocks_[order]; }
  [[nodiscard]] std::uint64_t whole_chunks() const { return whole_chunks_; }
  /// Chunks that hold free and allocated pages.
  [[nodiscard]] std::uint64_t partial_chunks() const;

  /// The share of the free memory that lies in blocks smaller than 2^order pages: 0 where all of it
  /// serves a request of that order, 1 where none does. 0 if nothing is free.
  [[nodiscard]] double external(unsigned order) const;
  /// 1 - largest_free / free; 0 if nothing is free.
  [[nodiscard]] double scattered() const;
  /// The share of the free memory in whole chunks; 1 if nothing is free.
  [[nodiscard]] double whole_share() const { return 1.0 - external(9); }

  /// The fewest bytes that must move so that `chunks` more chunks are whole; nothing if they do not
  /// fit into the free pages of other partly free chunks. Counts pages, and does not know which of
  /// them may not move.
  [[nodiscard]] std::optional<ByteCount> compaction_debt(std::uint64_t chunks) const;

  // --- how it is made ---
  /// Adds the next chunk, lowest first: bit p of word w is page 64 w + p, set where it is free. The
  /// last chunk may have fewer pages than bits; those behind are clear.
  void add_chunk(std::span<const std::uint64_t, chunk_pages / 64> free,
                 unsigned pages = chunk_pages);
  /// Adds so many chunks that are free, or allocated, as wholes.
  void add_free_chunks(std::uint64_t count);
  void add_allocated_chunks(std::uint64_t count);
  /// Ends the last run of free chunks. Pre: no chunk is added afterwards.
  void finish();

  bool operator==(const Fragmentation&) const = default;

 private:
  [[nodiscard]] ByteCount bytes(std::uint64_t pages) const {
    return ByteCount(pages * page_.value());
  }
  void end_free_chunks();
  void end_run();
  void count_blocks(std::span<const std::uint64_t, chunk_pages / 64> free);
  void count_runs(std::span<const std::uint64_t, chunk_pages / 64> free);

  ByteCount page_;
  std::uint64_t pages_ = 0;
  std::uint64_t free_ = 0;
  std::uint64_t longest_ = 0;
  std::uint64_t whole_chunks_ = 0;
  std::array<std::uint64_t, orders> blocks_{};
  // [n]: whole chunks' worth of pages of which n are allocated, n > 0. The last, shorter chunk of a
  // region can never be whole, and is not among them.
  std::array<std::uint64_t, chunk_pages + 1> chunks_by_allocated_{};
  std::uint64_t partial_tail_ = 0;
  std::uint64_t free_in_partial_ = 0;
  std::uint64_t run_ = 0;  // free pages right before the next chunk
  std::uint64_t free_chunks_ =
      0;  // free chunks right before the next one, not yet counted as blocks
  std::uint64_t next_chunk_ = 0;
};

/// The same of any map of pages: bit p of word w is page 64 w + p, set where it is free. Bits behind
/// `pages` must be clear.
/// Pre  free.size() * 64 >= pages.
[[nodiscard]] Fragmentation fragmentation_of(std::span<const std::uint64_t> free,
                                             std::uint64_t pages, ByteCount page);

/// What requests were granted, beyond their success: one for each allocator that is watched.
///
/// Threads   externally synchronised.
/// Cost      O(1) each.
class GrantTally {
 public:
  /// Extents of one allocation from here on are counted together.
  static constexpr std::size_t most_extents = 256;

  void add(ByteCount requested, ByteCount granted);
  void add_extents(std::size_t count);
  /// Of a request that needs zeros, so many bytes were known to hold them.
  void add_zeros(ByteCount needed, ByteCount zero);

  /// 1 - requested / granted.
  [[nodiscard]] double internal() const;
  /// Of allocations that may have several: how many extents each took. Stands for the entries that
  /// a page table needs.
  [[nodiscard]] double mean_extents() const;
  /// What 99 of 100 such allocations did not exceed; most_extents means that, or more.
  [[nodiscard]] std::size_t p99_extents() const;
  /// The share of needed zeros that was there already.
  [[nodiscard]] double zero_hit_rate() const;

 private:
  ByteCount requested_, granted_, needed_, zero_;
  std::array<std::uint64_t, most_extents + 1> by_extents_{};
  std::uint64_t scattered_ = 0;
  std::uint64_t extents_ = 0;
};

}  // namespace accelmm
