// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/per_cpu.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace accelmm::mm {

/// The whole free chunks that one slot has at hand.
///
/// push() and pop() are restartable sections, which commit with one store of the header. Any other
/// thread empties a stack: it puts a mark in place of the header, then interrupts the slot. A section
/// that was past its comparison by then may have overwritten the mark, which is not there any more
/// afterwards: nothing was won, and it is tried again. A mark that still stands says that what it
/// replaced was untouched.
///
/// `Sections` gives the words and the sections; another one lets a model checker run this.
template <class Sections>
struct alignas(64) ChunkStackOf {
  using Place = typename Sections::Place;

  static constexpr std::uint64_t none = ~std::uint64_t{0};
  // Lower 8 bits: how many chunks there are. The rest counts the changes, so that what was read
  // before a section began is still true while the header is what it was.
  static constexpr std::uint64_t change = 256;
  static constexpr std::uint64_t closed = none;

  typename Sections::Word header{0};
  typename Sections::Lock lock{};
  std::array<typename Sections::Word, Sections::chunks> chunks{};

  [[nodiscard]] static unsigned count_of(std::uint64_t header) { return header & (change - 1); }

  enum class Push { done, full, lost };
  [[nodiscard]] Push push(Place place, std::uint64_t chunk) {
    const std::uint64_t seen = header.load(std::memory_order_acquire);
    const unsigned count = count_of(seen);
    if (count >= Sections::chunks) return Push::full;  // or closed
    return Sections::push_if(place, lock, header, seen, chunks[count], chunk, seen + change + 1)
               ? Push::done
               : Push::lost;
  }

  enum class Pop { done, empty, lost };
  [[nodiscard]] Pop pop(Place place, std::uint64_t& chunk) {
    const std::uint64_t seen = header.load(std::memory_order_acquire);
    const unsigned count = count_of(seen);
    if (count == 0 || count > Sections::chunks) return Pop::empty;
    chunk = chunks[count - 1].load(std::memory_order_relaxed);
    return Sections::store_if(place, lock, header, seen, seen + change - 1) ? Pop::done : Pop::lost;
  }

  /// Takes all chunks off, and calls f(chunk) for each. One thread at a time. `interrupt` ends the
  /// slot's sections.
  template <class Interrupt, class F>
  void drain(Interrupt interrupt, F f) {
    if (count_of(header.load(std::memory_order_acquire)) == 0) return;
    std::uint64_t seen = closed;
    do {
      seen = header.exchange(closed, std::memory_order_acq_rel);
      interrupt(lock);
    } while (header.load(std::memory_order_acquire) != closed);
    for (unsigned i = 0; i < count_of(seen); ++i) f(chunks[i].load(std::memory_order_relaxed));
    header.store((seen & ~(change - 1)) + change, std::memory_order_release);
  }
};

/// The restartable sections of processors, for stacks of one line of cache each.
struct ChunkStackSections {
  using Word = per_cpu::Word;
  using Lock = per_cpu::SlotLock;
  using Place = per_cpu::Place;
  static constexpr unsigned chunks = 6;  // 12 MiB of 4 KiB pages

  // NOLINTBEGIN(readability-function-size): as in base/per_cpu.hpp
  [[nodiscard]] static bool store_if(Place place, Lock& lock, Word& target, std::uint64_t expected,
                                     std::uint64_t desired) noexcept {
    return per_cpu::store_if(place, lock, target, expected, target, expected, desired);
  }
  [[nodiscard]] static bool push_if(Place place, Lock& lock, Word& header, std::uint64_t expected,
                                    Word& cell, std::uint64_t value,
                                    std::uint64_t desired) noexcept {
    return per_cpu::push_if(place, lock, header, expected, cell, value, desired);
  }
  // NOLINTEND(readability-function-size)
};

/// Whole free chunks at hand of each processor, so that blocks of 2 MiB go out again as they came in,
/// without the lock and the runs.
///
/// Only numbers: what a chunk's kind is, the caller says (ChunkMap).
/// Owns      a cache line a processor.
/// Threads   push() and pop() any; drain() one at a time.
/// Source    restartable sequences, base/per_cpu.hpp.
class ChunkStacks {
 public:
  static constexpr std::uint64_t none = ~std::uint64_t{0};

  /// Throws std::bad_alloc.
  ChunkStacks() : slots_(per_cpu::slots()), stacks_(new Stack[slots_]()) {}

  /// Puts a chunk on this processor's stack. Returns false if it is full.
  [[nodiscard]] bool push(std::uint64_t chunk) {
    while (true) {
      const per_cpu::Place place = per_cpu::here();
      if (place.slot >= slots_) return false;
      const auto pushed = stacks_[place.slot].push(place, chunk);
      if (pushed != Stack::Push::lost) return pushed == Stack::Push::done;
    }
  }
  /// The newest of this processor's chunks, or none.
  [[nodiscard]] std::uint64_t pop() {
    while (true) {
      const per_cpu::Place place = per_cpu::here();
      if (place.slot >= slots_) return none;
      std::uint64_t chunk = none;
      const auto popped = stacks_[place.slot].pop(place, chunk);
      if (popped != Stack::Pop::lost) return popped == Stack::Pop::done ? chunk : none;
    }
  }

  /// Takes all chunks off all stacks, and calls f(chunk) for each. Costs a system call for each
  /// stack that is not empty.
  template <class F>
  void drain(F f) {
    for (unsigned slot = 0; slot < slots_; ++slot)
      stacks_[slot].drain([slot](per_cpu::SlotLock& lock) { per_cpu::interrupt(slot, lock); }, f);
  }

  /// Calls f(chunk) for each chunk on a stack. Pre: nobody uses the stacks meanwhile.
  template <class F>
  void each(F f) const {
    for (unsigned slot = 0; slot < slots_; ++slot)
      for (unsigned i = 0; i < Stack::count_of(stacks_[slot].header.load()); ++i)
        f(stacks_[slot].chunks[i].load(std::memory_order_relaxed));
  }
  [[nodiscard]] std::size_t metadata_bytes() const { return slots_ * sizeof(Stack); }

 private:
  using Stack = ChunkStackOf<ChunkStackSections>;
  static_assert(sizeof(Stack) == 64);

  unsigned slots_;
  std::unique_ptr<Stack[]> stacks_;
};

}  // namespace accelmm::mm
