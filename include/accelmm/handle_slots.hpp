// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/handle_slot.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <new>

namespace accelmm::mm {

/// The slots of a handle table, numbered from 1, and which of them are free.
///
/// Slots lie in chunks of 64, 128, 256, ...: each larger than all before it together, so that 15
/// pointers, in the table itself, reach a million of them and none ever moves. The free ones are a
/// stack, so that the slot which is warm in the cache is used next: handles need no delay before a
/// slot's reuse, since none is ever given out twice.
///
/// Owns      the chunks; they stay until it is destroyed.
/// Threads   at, take and give_back: any, at any time, without a lock. for_each: externally
///           synchronised.
/// Source    R. K. Treiber, Systems programming: coping with parallelism, 1986 (the stack).
template <class T, class Atomics = StdAtomics>
class HandleSlots {
 public:
  using Slot = HandleSlot<T, Atomics>;
  static constexpr unsigned number_bits = 20;
  static constexpr std::uint32_t max_slots = (std::uint32_t{1} << number_bits) - 1;

  HandleSlots() = default;
  HandleSlots(const HandleSlots&) = delete;
  HandleSlots& operator=(const HandleSlots&) = delete;
  ~HandleSlots() {
    for (auto& chunk : chunks_) delete[] chunk.load(std::memory_order_relaxed);
  }

  /// The slot of a number below 2^20, or null: for 0, and for numbers far beyond those in use.
  [[nodiscard]] Slot* at(std::uint32_t number) const noexcept {
    const std::uint32_t biased = number + first_chunk - 1;  // a chunk's numbers share the top bit
    Slot* chunk = chunk_of(biased).load(std::memory_order_acquire);
    return chunk == nullptr ? nullptr : chunk + (biased ^ std::bit_floor(biased));
  }

  /// A closed slot that is the caller's until it gives it back.
  /// Errors  over_quota: every slot is in use or worn out.  no_memory: no room for more slots.
  [[nodiscard]] Result<std::uint32_t> take() noexcept {
    std::uint64_t top = free_.load(std::memory_order_acquire);
    while (const auto number = static_cast<std::uint32_t>(top & max_slots)) {
      // Another thread may take the slot just now: its link is then wrong, and so is `top`.
      const std::uint64_t below =
          (top & ~std::uint64_t{max_slots}) | (at(number)->link() & max_slots);
      if (free_.compare_exchange_weak(top, below, std::memory_order_acquire,
                                      std::memory_order_acquire))
        return number;
    }
    return take_fresh();
  }

  /// Pre     the slot is closed, the caller's, and not worn out.
  void give_back(std::uint32_t number) noexcept {
    Slot& slot = *at(number);
    std::uint64_t top = free_.load(std::memory_order_relaxed);
    std::uint64_t with_it;
    do {
      slot.set_link(static_cast<std::uint32_t>(top & max_slots));
      // The upper 44 bits count: a slot that was taken and came back meanwhile is not the same top.
      with_it = ((top & ~std::uint64_t{max_slots}) + one_push) | number;
    } while (!free_.compare_exchange_weak(top, with_it, std::memory_order_release,
                                          std::memory_order_relaxed));
  }

  /// Calls f(Slot&) for each slot ever used, lowest number first.
  template <class F>
  void for_each(F f) {
    const std::uint32_t used = used_.load(std::memory_order_relaxed);
    for (std::uint32_t number = 1; number <= used; ++number) f(*at(number));
  }

 private:
  static constexpr std::uint32_t first_chunk = 64;  // a table of few handles stays within a few KiB
  static constexpr int first_bits = std::bit_width(first_chunk - 1);  // those of a biased 0
  static constexpr std::uint64_t one_push = std::uint64_t{1} << number_bits;
  // One for number 0, always null, and one for each number of bits above that.
  static constexpr std::size_t chunk_count =
      static_cast<std::size_t>(std::bit_width(max_slots + first_chunk - 1) - first_bits) + 1;

  template <class Word>
  using Atomic = typename Atomics::template Atomic<Word>;

  [[nodiscard]] static std::size_t chunk_number(std::uint32_t biased) noexcept {
    return static_cast<std::size_t>(std::bit_width(biased) - first_bits);
  }
  [[nodiscard]] const Atomic<Slot*>& chunk_of(std::uint32_t biased) const noexcept {
    return chunks_[chunk_number(biased)];
  }

  /// Takes the lowest slot that was never used.
  [[nodiscard]] Result<std::uint32_t> take_fresh() noexcept {
    std::uint32_t used = used_.load(std::memory_order_relaxed);
    do {
      if (used == max_slots) return fail(Errc::over_quota, "every handle slot is worn out");
      if (!reach(used + 1)) return fail(Errc::no_memory, "no room for handle slots");
    } while (!used_.compare_exchange_weak(used, used + 1, std::memory_order_relaxed,
                                          std::memory_order_relaxed));
    return used + 1;
  }

  /// Sees to it that the chunk of a slot is there. False if there is no memory.
  [[nodiscard]] bool reach(std::uint32_t number) noexcept {
    const std::uint32_t biased = number + first_chunk - 1;
    Atomic<Slot*>& place = chunks_[chunk_number(biased)];
    if (place.load(std::memory_order_acquire) != nullptr) return true;
    const std::uint32_t first = std::bit_floor(biased);
    const std::uint32_t end = std::min(first * 2, max_slots + first_chunk);
    Slot* made = new (std::nothrow) Slot[end - first];
    if (made == nullptr) return false;
    Slot* other = nullptr;
    if (!place.compare_exchange_strong(other, made, std::memory_order_release,
                                       std::memory_order_relaxed))
      delete[] made;  // another thread was faster
    return true;
  }

  std::array<Atomic<Slot*>, chunk_count> chunks_{};  // read by every lookup
  // What inserts and removals write is in no cache line with what lookups read.
  [[maybe_unused]] std::array<std::byte, 64> apart_{};
  Atomic<std::uint64_t> free_{0};  // the top of the stack, 0 if empty, below a count of pushes
  Atomic<std::uint32_t> used_{0};  // slots ever used
};

}  // namespace accelmm::mm
