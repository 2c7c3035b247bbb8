// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "mm/page_run.hpp"

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace accelmm::mm {

/// What a chunk is as a whole.
///
/// `lone`: allocated in a request of its own. `cached`: free, and at hand of a processor
/// (ChunkStacks) or on the way there. `claimed`: allocated, and in the hands of whoever frees it.
/// A lone chunk may be claimed without the allocator's lock; so only from lone, and only by
/// compare-and-swap, others that hold it leave that kind.
enum class ChunkKind : std::uint8_t { free, allocated, lone, partial, cached, claimed };

/// Which pages of a chunk are known to hold zeros.
enum class ChunkZeros : std::uint8_t { none, all, some };

/// A chunk's kind, what is known of its zeros, and, where it is allocated or lone, its lifetime: a byte.
class ChunkState {
 public:
  constexpr ChunkState() = default;
  explicit constexpr ChunkState(std::uint8_t byte) : byte_(byte) {}
  constexpr ChunkState(ChunkKind kind, ChunkZeros zeros, unsigned lifetime = 0)
      : byte_(static_cast<std::uint8_t>(static_cast<unsigned>(kind) |
                                        static_cast<unsigned>(zeros) << zeros_shift |
                                        lifetime << lifetime_shift)) {}

  [[nodiscard]] constexpr ChunkKind kind() const { return ChunkKind(byte_ & kind_mask); }
  [[nodiscard]] constexpr ChunkZeros zeros() const {
    return ChunkZeros((byte_ & zeros_mask) >> zeros_shift);
  }
  /// Whether zeros() is some: one instruction, for who gives a page.
  [[nodiscard]] constexpr bool has_some_zeros() const {
    return (byte_ & static_cast<unsigned>(ChunkZeros::some) << zeros_shift) != 0;
  }
  [[nodiscard]] constexpr unsigned lifetime() const { return byte_ >> lifetime_shift; }
  [[nodiscard]] constexpr ChunkState with(ChunkKind kind) const {
    return ChunkState(
        static_cast<std::uint8_t>((byte_ & ~kind_mask) | static_cast<unsigned>(kind)));
  }
  [[nodiscard]] constexpr ChunkState with(ChunkZeros zeros) const {
    return ChunkState(static_cast<std::uint8_t>((byte_ & ~zeros_mask) | static_cast<unsigned>(zeros)
                                                                            << zeros_shift));
  }
  [[nodiscard]] constexpr std::uint8_t byte() const { return byte_; }

  static constexpr unsigned kind_mask = 0x07;
  static constexpr unsigned zeros_mask = 0x18;

 private:
  static constexpr unsigned zeros_shift = 3;
  static constexpr unsigned lifetime_shift = 5;
  std::uint8_t byte_ = 0;
};

/// The states of the chunks of a region, eight to a word, so that a request of many chunks is a few
/// words' work.
///
/// A word is written as a whole only where all its chunks are of one run, which is then in the hands
/// of the holder of the allocator's lock; a single chunk's byte by whoever has that chunk.
///
/// Owns      a byte a chunk.
/// Threads   at() and claim_lone() any; the rest needs the allocator's lock, or a chunk in hand.
class ChunkStates {
 public:
  ChunkStates() = default;
  /// All free. Throws std::bad_alloc.
  ChunkStates(std::uint64_t chunks, ChunkZeros zeros)
      : word_count_((chunks + 7) / 8), words_(new std::uint64_t[word_count_]) {
    for (std::uint64_t w = 0; w < word_count_; ++w)
      words_[w] = each_byte * ChunkState(ChunkKind::free, zeros).byte();
  }

  [[nodiscard]] ChunkState at(std::uint64_t c) const {
    return ChunkState(byte(c).load(std::memory_order_acquire));
  }
  void set(std::uint64_t c, ChunkState state) {
    byte(c).store(state.byte(), std::memory_order_release);
  }
  /// Makes a lone chunk claimed. Returns whether it was lone. Exactly one of several calls that run at
  /// once does.
  [[nodiscard]] bool claim_lone(std::uint64_t c) {
    std::uint8_t seen = byte(c).load(std::memory_order_acquire);
    const ChunkState state(seen);
    return state.kind() == ChunkKind::lone &&
           byte(c).compare_exchange_strong(seen, state.with(ChunkKind::claimed).byte(),
                                           std::memory_order_acq_rel, std::memory_order_acquire);
  }

  /// Whether all chunks of a run are of one kind. Pre: the run is not empty.
  [[nodiscard]] bool all(PageRun run, ChunkKind kind) const {
    // Of the first and the last word only the run's own bytes count.
    static_assert(std::endian::native == std::endian::little);
    const std::uint64_t wanted = each_byte * static_cast<unsigned>(kind);
    const std::uint64_t last = (run.end - 1) / 8;
    std::uint64_t mask = ~std::uint64_t{0} << (run.begin % 8 * 8);
    std::uint64_t other = 0;
    for (std::uint64_t w = run.begin / 8; w < last; ++w, mask = ~std::uint64_t{0})
      other |= (word(w).load(std::memory_order_acquire) ^ wanted) & mask;
    mask &= ~std::uint64_t{0} >> (56 - (run.end - 1) % 8 * 8);
    other |= (word(last).load(std::memory_order_acquire) ^ wanted) & mask;
    return (other & each_byte * ChunkState::kind_mask) == 0;
  }
  /// Gives all chunks of a run a state.
  void set_all(PageRun run, ChunkState state) { change(run, 0, state); }
  /// The same, but what is known of their zeros stays.
  void set_all_but_zeros(PageRun run, ChunkState state) {
    change(run, ChunkState::zeros_mask, state);
  }

  [[nodiscard]] std::size_t metadata_bytes() const { return word_count_ * sizeof(std::uint64_t); }

 private:
  static constexpr std::uint64_t each_byte = 0x0101'0101'0101'0101;

  [[nodiscard]] std::atomic_ref<std::uint8_t> byte(std::uint64_t c) const {
    return std::atomic_ref(reinterpret_cast<std::uint8_t*>(words_.get())[c]);
  }
  [[nodiscard]] std::atomic_ref<std::uint64_t> word(std::uint64_t w) const {
    return std::atomic_ref(words_[w]);
  }

  void change(PageRun run, std::uint64_t kept, ChunkState state) {
    const std::uint64_t kept_bytes = each_byte * kept;
    const std::uint64_t bytes = each_byte * state.byte();
    for_words(
        run,
        [&](std::uint64_t c) {
          set(c, ChunkState(static_cast<std::uint8_t>((at(c).byte() & kept) | state.byte())));
        },
        [&](std::uint64_t w) {
          word(w).store((word(w).load(std::memory_order_relaxed) & kept_bytes) | bytes,
                        std::memory_order_release);
        });
  }

  /// Calls one(chunk) for the chunks of a run that share their word with others, and
  /// eight(word) for the words that the run fills.
  template <class One, class Eight>
  static void for_words(PageRun run, One one, Eight eight) {
    std::uint64_t c = run.begin;
    for (; c < run.end && c % 8 != 0; ++c) one(c);
    for (; run.end - c >= 8; c += 8) eight(c / 8);
    for (; c < run.end; ++c) one(c);
  }

  std::uint64_t word_count_ = 0;
  std::unique_ptr<std::uint64_t[]> words_;
};

}  // namespace accelmm::mm
