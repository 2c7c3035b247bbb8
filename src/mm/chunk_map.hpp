// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/per_cpu.hpp"
#include "mm/chunk_bits.hpp"
#include "mm/chunk_states.hpp"
#include "mm/page_run.hpp"
#include "mm/page_word.hpp"

#include <accelmm/check.hpp>

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace accelmm::mm {

/// Of 64 pages, two bits each: a page is allocated while its bits differ. Side by side, so that who
/// frees a page of another processor's waits for one cache line and not for two.
struct PageMarks {
  per_cpu::Word taken = 0;
  per_cpu::Word given = 0;
};

/// The truth about every page of a region: whether it is allocated, and whether it is known to hold
/// zeros. Chunks that are free or allocated as a whole are one value; the others are two bits a page.
///
/// A page of a `partial` chunk is allocated exactly while its bits in `taken` and in `given`
/// differ (PageMarks). Only one writer at a time changes `taken`: the processor that leases the chunk, or,
/// where nobody does, whoever holds the allocator's lock. Anyone may flip a bit of `given`, with a
/// compare-and-swap, to free a page. So a leased chunk is changed with plain stores, and no free has
/// to know who leases what.
///
/// Owns      its words and descriptors: 3 bits and 1/30 byte a page.
/// Threads   free_page() and is_allocated() any; the rest needs the allocator's lock.
/// Invariant the bits of a chunk that is not partial mean nothing, and those of `zero` only where
///           some pages are zero. Pages behind the last are allocated for ever. A partial chunk is
///           never known to be all zeros, so that soil_page() has nothing to convert.
class ChunkMap {
 public:
  using Kind = ChunkKind;
  using Zeros = ChunkZeros;

  /// What is known of a partial chunk.
  struct Chunk {
    // As last counted (settle() of PageSpace counts again). Pages that were freed since without the
    // lock may be missing; what is said to be free is.
    BlockOrders blocks;
    std::uint16_t free_pages = 0;
    std::uint8_t order = no_order;  // of the largest free block; no_order: in no bin
    std::atomic<std::uint8_t> lifetime = 0;
    std::atomic<std::uint16_t> lease = 0;  // slot + 1 of the processor that writes `taken`
  };
  static_assert(sizeof(Chunk) == 16);

  ChunkMap() = default;
  /// Throws std::bad_alloc.
  ChunkMap(std::uint64_t pages, Zeros zeros);

  [[nodiscard]] std::uint64_t pages() const { return pages_; }
  [[nodiscard]] std::uint64_t chunks() const { return chunks_; }
  [[nodiscard]] Chunk& chunk(std::uint64_t c) { return descriptors_[c]; }
  [[nodiscard]] const Chunk& chunk(std::uint64_t c) const { return descriptors_[c]; }
  [[nodiscard]] ChunkStates& states() { return states_; }
  [[nodiscard]] Kind kind(std::uint64_t c) const { return states_.at(c).kind(); }
  /// Pre: the chunk is the caller's to change.
  void set_kind(std::uint64_t c, Kind kind) { states_.set(c, states_.at(c).with(kind)); }
  [[nodiscard]] Zeros zeros(std::uint64_t c) const { return states_.at(c).zeros(); }
  [[nodiscard]] std::size_t metadata_bytes() const;

  /// Counts a chunk's free pages and blocks anew. Returns the pages.
  unsigned count_blocks(std::uint64_t c);

  [[nodiscard]] PageMarks* marks() { return marks_.get(); }

  /// The free pages of 64, as bits.
  [[nodiscard]] std::uint64_t free_word(std::uint64_t word) const {
    return mm::free_pages(marks_[word].taken, marks_[word].given);
  }
  /// The free pages of a chunk, of any kind.
  [[nodiscard]] ChunkBits free_bits(std::uint64_t c) const;
  [[nodiscard]] bool is_allocated(std::uint64_t page) const;

  /// Frees one page of a partial chunk. Returns whether it was allocated. Exactly one of several
  /// calls for the same page that run at once does.
  [[nodiscard]] bool free_page(std::uint64_t page);

  /// Makes the bits of a whole chunk say what its kind says, and its kind partial.
  /// Pre: it is free, or cached and in nobody else's hands, or claimed.
  void make_partial(std::uint64_t c);
  /// Whether the pages [begin, end) of a partial chunk are all as free as `bits`: all ones, or 0.
  /// Pre: begin < end, here and below.
  [[nodiscard]] bool part_is(std::uint64_t c, unsigned begin, unsigned end,
                             std::uint64_t bits) const;
  /// Takes pages of a partial chunk that nobody leases. Pre: all are free.
  void take(std::uint64_t c, unsigned begin, unsigned end) { flip<Flip::take>(c, begin, end); }
  /// Gives pages of a partial chunk back. Pre: all are allocated.
  void give(std::uint64_t c, unsigned begin, unsigned end) {
    if (descriptors_[c].lease.load(std::memory_order_relaxed) == 0)
      flip<Flip::give>(c, begin, end);
    else
      give_to_lease(c, begin, end);
  }

  // --- knowledge of zeros: a bit says that a page held zeros when it was last handed out ---
  /// Whether soil_page() has something to do.
  [[nodiscard]] bool is_clean(std::uint64_t page) const {
    return states_.at(page >> chunk_order).has_some_zeros() &&
           (zero_[page >> 6].load(std::memory_order_relaxed) >> (page & 63) & 1) != 0;
  }
  /// Forgets that one page of a partial chunk holds zeros. Any thread.
  void soil_page(std::uint64_t page) {
    if (is_clean(page))
      zero_[page >> 6].fetch_and(~(std::uint64_t{1} << (page & 63)), std::memory_order_acq_rel);
  }
  /// Notes that pages hold zeros (all) or may not (none).
  void set_zeros(PageRun run, Zeros zeros);
  [[nodiscard]] bool is_zero(std::uint64_t page) const;
  /// Word `word` of a chunk's 512 bits.
  [[nodiscard]] std::uint64_t zero_word(std::uint64_t c, unsigned word) const;

  // --- chunks with pages that free_page() freed, to be counted again ---
  /// Notes that free_page() freed a page of this chunk.
  void touch(std::uint64_t c);
  [[nodiscard]] bool any_touched() const { return any_touched_.load(std::memory_order_seq_cst); }
  /// Calls f(chunk) for each touched chunk, which is touched no more.
  template <class F>
  void each_touched(F f) {
    Touched::begin_collecting(any_touched_);
    for (std::size_t s = 0; s < summary_words_; ++s)
      for (std::uint64_t words = Touched::collect(summary_[s]); words != 0; words &= words - 1) {
        const std::uint64_t w = s * 64 + static_cast<std::uint64_t>(std::countr_zero(words));
        for (std::uint64_t bits = Touched::collect(touched_[w]); bits != 0; bits &= bits - 1)
          f(w * 64 + static_cast<std::uint64_t>(std::countr_zero(bits)));
      }
  }

 private:
  using Touched = TouchedBits<per_cpu::Word, std::atomic<bool>>;

  static constexpr std::uint64_t ones = ~std::uint64_t{0};

  [[nodiscard]] static std::uint64_t words_of(std::uint64_t bits) { return (bits + 63) / 64; }
  /// Of the first and of the last word of [begin, end): the pages from begin, and those before end.
  [[nodiscard]] static std::uint64_t mask_from(unsigned begin) { return ones << (begin % 64); }
  [[nodiscard]] static std::uint64_t mask_to(unsigned end) { return ones >> (63 - (end - 1) % 64); }

  /// Changes pages that nobody leases, and notes the blocks.
  enum class Flip { take, give };
  template <Flip what>
  void flip(std::uint64_t c, unsigned begin, unsigned end);
  void give_to_lease(std::uint64_t c, unsigned begin, unsigned end);
  /// Writes what is known of a chunk into its words.
  void spell_zeros(std::uint64_t c);

  std::uint64_t pages_ = 0;
  std::uint64_t chunks_ = 0;
  ChunkStates states_;
  std::size_t touched_words_ = 0;
  std::size_t summary_words_ = 0;
  std::unique_ptr<PageMarks[]> marks_;
  std::unique_ptr<per_cpu::Word[]> zero_;
  std::unique_ptr<Chunk[]> descriptors_;
  std::unique_ptr<per_cpu::Word[]> touched_;
  std::unique_ptr<per_cpu::Word[]> summary_;
  std::atomic<bool> any_touched_ = false;
};

inline bool ChunkMap::part_is(std::uint64_t c, unsigned begin, unsigned end,
                              std::uint64_t bits) const {
  const unsigned last = (end - 1) / 64;
  std::uint64_t mask = mask_from(begin);
  std::uint64_t other = 0;
  for (unsigned w = begin / 64; w < last; ++w, mask = ones)
    other |= (free_word(c * chunk_words + w) ^ bits) & mask;
  return (other | ((free_word(c * chunk_words + last) ^ bits) & mask & mask_to(end))) == 0;
}

template <ChunkMap::Flip what>
void ChunkMap::flip(std::uint64_t c, unsigned begin, unsigned end) {
  PageMarks* const words = &marks_[c * chunk_words];
  BlockOrders blocks = descriptors_[c].blocks;
  const auto part = [&](unsigned w, std::uint64_t mask) {
    const std::uint64_t taken = words[w].taken.load(std::memory_order_relaxed) ^ mask;
    words[w].taken.store(taken, std::memory_order_release);
    blocks.note(w, ~(taken ^ words[w].given.load(std::memory_order_seq_cst)));
  };
  unsigned w = begin / 64;
  if (w == (end - 1) / 64) {
    part(w, mask_from(begin) & mask_to(end));
  } else {
    if (begin % 64 != 0) part(w++, mask_from(begin));
    for (; w * 64 + 64 <= end; ++w) {
      per_cpu::Word& taken = words[w].taken;
      taken.store(~taken.load(std::memory_order_relaxed), std::memory_order_release);
      if constexpr (what == Flip::take)
        blocks.note_taken(w);
      else
        blocks.note_free(w);
    }
    if (end % 64 != 0) part(w, mask_to(end));
  }
  descriptors_[c].blocks = blocks;
}

// What frees pages of other processors' chunks is all in one function, page by page.
inline bool ChunkMap::free_page(std::uint64_t page) {
  return give_page(marks_[page >> 6].taken, marks_[page >> 6].given,
                   std::uint64_t{1} << (page & 63));
}

inline void ChunkMap::touch(std::uint64_t c) {
  Touched::note(touched_[c >> 6], std::uint64_t{1} << (c & 63), summary_[c >> 12],
                std::uint64_t{1} << ((c >> 6) & 63), any_touched_);
}

}  // namespace accelmm::mm
