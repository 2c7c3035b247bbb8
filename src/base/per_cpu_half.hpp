// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/per_cpu.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>

/// Words of which a slot's sections own the lower half.
///
/// The upper half is changed by any thread, with atomic read-modify-writes of the whole word; so
/// whoever does one sees both halves at one instant. The lower half is changed by a section's plain
/// store, which leaves the upper half alone.
namespace accelmm::per_cpu {

struct Halves {
  std::uint32_t low = 0;
  std::uint32_t high = 0;

  [[nodiscard]] constexpr std::uint64_t word() const { return std::uint64_t{high} << 32 | low; }
  [[nodiscard]] static constexpr Halves of(std::uint64_t word) {
    return {.low = static_cast<std::uint32_t>(word),
            .high = static_cast<std::uint32_t>(word >> 32)};
  }
};

/// Where the area of the thread is, from the thread pointer, for sections written elsewhere; 0
/// where sections are not restartable. The same for the life of the process, once slots() was
/// called.
[[nodiscard]] inline std::ptrdiff_t quick_area() noexcept {
#if ACCELMM_RSEQ
  return detail::area_offset.load(std::memory_order_relaxed);
#else
  return 0;
#endif
}

/// Reads the halves one after the other, so that the lower one may be newer or older. A load of the
/// whole word would have to wait for the last store of its lower half to leave the store buffer.
[[nodiscard]] inline Halves load_halves(const Word& word) noexcept {
#if ACCELMM_RSEQ
  Halves halves;
  asm volatile(
      "movl (%[word]), %[low]\n\t"
      "movl 4(%[word]), %[high]"
      : [low] "=&r"(halves.low), [high] "=r"(halves.high)
      : [word] "r"(&word)
      : "memory");
  return halves;
#else
  return Halves::of(word.load(std::memory_order_acquire));
#endif
}

namespace detail {

[[nodiscard]] inline bool locked_store_low_if(SlotLock& lock, const Word& check,
                                              std::uint64_t check_expected, Word& target,
                                              Halves expected, std::uint32_t desired) noexcept {
  lock.lock();
  const bool same = check.load(std::memory_order_relaxed) == check_expected &&
                    target.load(std::memory_order_acquire) == expected.word();
  // The upper half may change meanwhile; what was expected of the lower one stays.
  if (same) target.fetch_xor(expected.low ^ desired, std::memory_order_acq_rel);
  lock.unlock();
  return same;
}

}  // namespace detail

// NOLINTBEGIN(readability-function-size): an instruction's operands, in registers.
/// Stores `desired` in the lower half of `target` if the thread is still in `slot`, `check` is
/// `check_expected` and both halves of `target` are `expected`. Returns whether it did. The upper
/// half may have changed when the store happens.
/// Pre  only sections of `slot`, or code after interrupt(slot), write `check`; only sections that
///      check this write the lower half.
[[nodiscard]] inline bool store_low_if(unsigned slot, SlotLock& lock, const Word& check,
                                       std::uint64_t check_expected, Word& target, Halves expected,
                                       std::uint32_t desired) noexcept {
#if ACCELMM_RSEQ
  if (const std::ptrdiff_t offset = quick_area(); offset != 0) [[likely]] {
    detail::Area& area = detail::area(offset);
    // As in store_if(). The area's fields: cpu_id at 4, rseq_cs at 8.
    asm goto volatile(
        ACCELMM_RSEQ_BEGIN("%%rax", "8(%[area])")
        "cmpl %[slot], 4(%[area])\n\t"
        "jne %l[lost]\n\t"
        "cmpq %[check_expected], %[check]\n\t"
        "jne %l[lost]\n\t"
        "cmpl %[low], (%[target])\n\t"
        "jne %l[lost]\n\t"
        "cmpl %[high], 4(%[target])\n\t"
        "jne %l[lost]\n\t"
        "movl %[desired], (%[target])\n\t"
        ACCELMM_RSEQ_END("8(%[area])")
        :
        : [slot] "r"(slot), [area] "r"(&area), [check] "m"(check),
          [check_expected] "r"(check_expected), [target] "r"(&target), [low] "r"(expected.low),
          [high] "r"(expected.high), [desired] "r"(desired)
        : "memory", "cc", "rax"
        : lost);
    return true;
  lost:
    std::atomic_ref(area.rseq_cs).store(0, std::memory_order_relaxed);
    return false;
  }
#endif
  static_cast<void>(slot);
  return detail::locked_store_low_if(lock, check, check_expected, target, expected, desired);
}

#if ACCELMM_RSEQ
static_assert(offsetof(detail::Area, cpu_id) == 4 && offsetof(detail::Area, rseq_cs) == 8);
#endif

// NOLINTEND(readability-function-size)

}  // namespace accelmm::per_cpu
