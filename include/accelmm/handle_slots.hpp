// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/handle_slot.hpp>

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <new>

namespace accelmm::mm {

/// The slots of a handle table, numbered from 1, and which of them are free.
///
/// Slots lie in chunks of 64, 64, 128, 256, ...: each as large as all before it together, so that 15
/// of them hold a million and none ever moves. A number's top bit says which chunk. The free ones are a
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
    for (Slot* chunk : chunks_) delete[] chunk;
  }

  /// The slot of a number below 2^20, or null for numbers far beyond those in use. That of 0 is never
  /// taken, and has a name that no handle of number 0 has.
  [[nodiscard]] Slot* find(std::uint64_t number) const noexcept {
    const std::uintptr_t origin = origin_of(number);
    if (origin == 0) return nullptr;
    Slot* const slot = slot_from(origin, number);
    if (slot == nullptr) __builtin_unreachable();  // so that callers need not ask once more
    return slot;
  }
  /// Pre     the number was taken once.
  [[nodiscard]] Slot& at(std::uint64_t number) const noexcept {
    return *slot_from(origin_of(number), number);
  }

  /// A closed slot that is the caller's until it gives it back.
  /// Errors  over_quota: every slot is in use or worn out.  no_memory: no room for more slots.
  [[nodiscard]] Result<std::uint32_t> take() noexcept {
    std::uint64_t top = free_.load(std::memory_order_acquire);
    while (const auto number = static_cast<std::uint32_t>(top & max_slots)) {
      // Another thread may take the slot just now: its link is then wrong, and so is `top`.
      const std::uint64_t below =
          (top & ~std::uint64_t{max_slots}) | (at(number).link() & max_slots);
      if (free_.compare_exchange_weak(top, below, std::memory_order_acquire,
                                      std::memory_order_acquire))
        return number;
    }
    return take_fresh();
  }

  /// Pre     the slot is closed, the caller's, and not worn out.
  void give_back(std::uint32_t number) noexcept {
    Slot& slot = at(number);
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
    for (std::uint32_t number = 1; number <= used; ++number) f(at(number));
  }

 private:
  static constexpr std::uint64_t first_chunk = 64;  // a table of few handles stays within a few KiB
  static constexpr std::uintptr_t is_there = 1;
  static constexpr std::uint64_t one_push = std::uint64_t{1} << number_bits;
  static constexpr std::size_t chunk_names = 27;  // bsr gives 5 to 19, lzcnt of 32 bits 12 to 26

  template <class Word>
  using Atomic = typename Atomics::template Atomic<Word>;

  /// Which chunk a number is in: a function of its top bit, bit 5 for those below 64. Which function
  /// is the processor's affair: one that has no lzcnt runs bsr instead, which counts from the other
  /// end. Without the instruction a compiler uses bsr, with a correction, and that is slow on some.
  [[nodiscard]] static std::uint64_t chunk_of(std::uint64_t number) noexcept {
    const auto scanned = static_cast<std::uint32_t>(number | (first_chunk - 1));
#if defined(__x86_64__)
    std::uint64_t which;
    asm("lzcntl %1, %k0" : "=r"(which) : "r"(scanned) : "cc");  // the upper half becomes 0
    return which;
#else
    return static_cast<unsigned>(__builtin_clz(scanned));
#endif
  }
  [[nodiscard]] std::uintptr_t origin_of(std::uint64_t number) const noexcept {
    return origins_[chunk_of(number)].load(std::memory_order_acquire);
  }
  [[nodiscard]] static Slot* slot_from(std::uintptr_t origin, std::uint64_t number) noexcept {
    return reinterpret_cast<Slot*>(origin - is_there + number * sizeof(Slot));
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
  [[nodiscard]] bool reach(std::uint64_t number) noexcept {
    const std::uint64_t which = chunk_of(number);
    if (origins_[which].load(std::memory_order_acquire) != 0) return true;
    const bool lowest = number < first_chunk;
    const std::uint64_t first = lowest ? 0 : std::bit_floor(number);
    Slot* made = new (std::nothrow) Slot[lowest ? first_chunk : first];
    if (made == nullptr) return false;
    if (lowest) made[0].set_link(1);
    const std::uintptr_t origin =
        reinterpret_cast<std::uintptr_t>(made) - first * sizeof(Slot) + is_there;
    std::uintptr_t other = 0;
    if (origins_[which].compare_exchange_strong(other, origin, std::memory_order_release,
                                                std::memory_order_relaxed))
      chunks_[which] = made;
    else
      delete[] made;  // another thread was faster
    return true;
  }

  // Where slot 0 would be if all slots up to those of a chunk lay in one row with it, and 1; or 0 for
  // a chunk that is not there. Read by every lookup, which so needs no place within the chunk.
  std::array<Atomic<std::uintptr_t>, chunk_names> origins_{};
  // What inserts and removals write is in no cache line with what lookups read.
  [[maybe_unused]] std::array<std::byte, 64> apart_{};
  Atomic<std::uint64_t> free_{0};  // the top of the stack, 0 if empty, below a count of pushes
  Atomic<std::uint32_t> used_{0};  // slots ever used
  std::array<Slot*, chunk_names> chunks_{};  // each written once, by who made it
};

}  // namespace accelmm::mm
