// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>

/// The steps of ChunkMap that run without a lock, over atomics that the model checker can replace
/// (tests/model/mm/page_word_model.cpp).
namespace accelmm::mm {

/// The pages whose bits in `taken` and `given` are equal: those that are free. The second load is in
/// the one order of all that TouchedBits does: a page that was freed before a note is seen by the
/// count that the note asks for, although the note may have written nothing.
template <class Word>
[[nodiscard]] std::uint64_t free_pages(const Word& taken, const Word& given) {
  const std::uint64_t out = taken.load(std::memory_order_acquire);
  return ~(out ^ given.load(std::memory_order_seq_cst));
}

/// Frees a page whose state is the difference of its bits in `taken` and `given`. Returns whether it
/// was allocated.
template <class Word>
[[nodiscard]] bool give_page(const Word& taken, Word& given, std::uint64_t bit) {
  std::uint64_t seen = given.load(std::memory_order_acquire);
  do {
    if (((taken.load(std::memory_order_acquire) ^ seen) & bit) == 0) return false;
  } while (!given.compare_exchange_weak(seen, seen ^ bit, std::memory_order_seq_cst,
                                        std::memory_order_acquire));
  return true;
}

/// Which chunks give_page() was called for since they were last counted: a bit a chunk, a bit that
/// says whether a word of these has one, and a flag for all.
///
/// Whoever frees a page does so before note(); whoever counts calls collect() before. Where note()
/// finds a bit set already, the count that will clear it is still to come, and sees the page.
template <class Word, class Flag>
struct TouchedBits {
  static void note(Word& word, std::uint64_t bit, Word& summary, std::uint64_t summary_bit,
                   Flag& any) {
    if ((word.load(std::memory_order_seq_cst) & bit) == 0) {
      word.fetch_or(bit, std::memory_order_seq_cst);
      summary.fetch_or(summary_bit, std::memory_order_seq_cst);
    }
    if (!any.load(std::memory_order_seq_cst)) any.store(true, std::memory_order_seq_cst);
  }
  /// Called before the summaries are collected, then the words that they name.
  static void begin_collecting(Flag& any) { any.store(false, std::memory_order_seq_cst); }
  [[nodiscard]] static std::uint64_t collect(Word& word) {
    if (word.load(std::memory_order_seq_cst) == 0) return 0;
    return word.exchange(0, std::memory_order_seq_cst);
  }
};

}  // namespace accelmm::mm
