// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/per_cpu.hpp"
#include "mm/chunk_bits.hpp"
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
/// Owns      its words and descriptors: 3 bits and 1/64 byte a page.
/// Threads   free_page() and is_allocated() any; the rest needs the allocator's lock.
/// Invariant the bits of a chunk that is not partial mean nothing, and those of `zero` only where
///           some pages are zero. Pages behind the last are allocated for ever. A partial chunk is
///           never known to be all zeros, so that soil_page() has nothing to convert.
class ChunkMap {
 public:
  /// `lone`: allocated in a request of its own. `cached`: free, and at hand of a processor
  /// (ChunkStacks) or on the way there. `claimed`: allocated, and in the hands of whoever frees it.
  /// A lone chunk may be claimed without the allocator's lock; so only from lone, and only by
  /// compare-and-swap, others that hold it leave that kind.
  enum class Kind : std::uint8_t { free, allocated, lone, partial, cached, claimed };
  enum class Zeros : std::uint8_t { none, some, all };

  /// What is known of a chunk as a whole.
  struct Chunk {
    std::atomic<Kind> kind = Kind::free;
    std::atomic<std::uint8_t> lifetime = 0;
    std::atomic<std::uint16_t> lease = 0;  // slot + 1 of the processor that writes `taken`
    // Of a partial chunk, as last counted (settle() of PageSpace counts again):
    std::uint16_t free_pages = 0;
    std::uint8_t order = no_order;  // of the largest free block; no_order: in no bin
    std::atomic<Zeros> zeros = Zeros::none;
  };
  static_assert(sizeof(Chunk) == 8);

  ChunkMap() = default;
  /// Throws std::bad_alloc.
  ChunkMap(std::uint64_t pages, Zeros zeros);

  [[nodiscard]] std::uint64_t pages() const { return pages_; }
  [[nodiscard]] std::uint64_t chunks() const { return chunks_; }
  [[nodiscard]] Chunk& chunk(std::uint64_t c) { return descriptors_[c]; }
  [[nodiscard]] const Chunk& chunk(std::uint64_t c) const { return descriptors_[c]; }
  [[nodiscard]] Kind kind(std::uint64_t c) const {
    return descriptors_[c].kind.load(std::memory_order_acquire);
  }
  [[nodiscard]] std::size_t metadata_bytes() const;

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

  /// Makes a lone chunk the caller's to free. Returns whether it was one. Exactly one of several
  /// calls that run at once does.
  [[nodiscard]] bool claim_lone(std::uint64_t c) {
    Kind lone = Kind::lone;
    return descriptors_[c].kind.compare_exchange_strong(
        lone, Kind::claimed, std::memory_order_acq_rel, std::memory_order_acquire);
  }

  /// Makes the bits of a whole chunk say what its kind says, and its kind partial.
  /// Pre: it is free, or cached and in nobody else's hands, or claimed.
  void make_partial(std::uint64_t c);
  /// Changes pages of a partial chunk that nobody leases. Pre: all free / all allocated before.
  void take(std::uint64_t c, unsigned begin, unsigned end);
  void give(std::uint64_t c, unsigned begin, unsigned end);

  // --- knowledge of zeros: a bit says that a page held zeros when it was last handed out ---
  /// Whether soil_page() has something to do.
  [[nodiscard]] bool is_clean(std::uint64_t page) const {
    return descriptors_[page >> chunk_order].zeros.load(std::memory_order_acquire) == Zeros::some &&
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

  [[nodiscard]] static std::uint64_t words_of(std::uint64_t bits) { return (bits + 63) / 64; }
  /// Writes what is known of a chunk into its words.
  void spell_zeros(std::uint64_t c);

  std::uint64_t pages_ = 0;
  std::uint64_t chunks_ = 0;
  std::size_t touched_words_ = 0;
  std::size_t summary_words_ = 0;
  std::unique_ptr<PageMarks[]> marks_;
  std::unique_ptr<per_cpu::Word[]> zero_;
  std::unique_ptr<Chunk[]> descriptors_;
  std::unique_ptr<per_cpu::Word[]> touched_;
  std::unique_ptr<per_cpu::Word[]> summary_;
  std::atomic<bool> any_touched_ = false;
};

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
