// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/restartable.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>

/// Data of each processor, changed without an atomic instruction.
///
/// A structure that many threads use keeps one record a *slot*, a slot being a processor. A thread
/// reads the record of current() with plain loads, decides, and commits with one store through
/// store_if(), which happens only if the thread has not left the processor and nothing it decided
/// by has changed: the kernel restarts such a section where it preempts it (restartable sequences,
/// rseq(2), which glibc registers for each thread). An uncontended commit costs less than one
/// compare-and-swap, and two processors share no cache line.
///
/// Where there are no restartable sequences (an old kernel, valgrind, the thread sanitizer, a
/// processor that accelmm has no code for), a slot is shared by some threads and its SlotLock
/// stands in: same calls, same promises, slower.
///
/// Threads  any.
/// Source   rseq(2); glibc 2.36, <sys/rseq.h>; membarrier(2), PRIVATE_EXPEDITED_RSEQ.
namespace accelmm::per_cpu {

using Word = std::atomic<std::uint64_t>;

/// Stands in for restartable sequences. One in each record; zero at first.
class SlotLock {
 public:
  void lock() noexcept;
  void unlock() noexcept { held_.store(false, std::memory_order_release); }

 private:
  std::atomic<bool> held_ = false;
};

/// How many slots a structure needs; the same for the life of the process. Called before anything
/// else here.
[[nodiscard]] unsigned slots() noexcept;

/// Whether slots are processors, rather than groups of threads behind a SlotLock.
[[nodiscard]] bool restartable() noexcept;

namespace detail {

// The distance of the area from the thread pointer; 0 where sections are not restartable. Written
// once, by the first slots().
inline constinit std::atomic<std::ptrdiff_t> area_offset = 0;
[[nodiscard]] unsigned slot_of_thread() noexcept;
[[nodiscard]] bool locked_store_if(SlotLock& lock, const Word& check, std::uint64_t check_expected,
                                   Word& target, std::uint64_t expected,
                                   std::uint64_t desired) noexcept;
[[nodiscard]] bool locked_push_if(SlotLock& lock, Word& header, std::uint64_t expected, Word& cell,
                                  std::uint64_t value, std::uint64_t desired) noexcept;

}  // namespace detail

/// Where a thread is at this moment. Costs one look at the thread's area for all sections that
/// begin with it.
struct Place {
  detail::Area* area = nullptr;  // null where sections are not restartable
  /// May be slots() or more, on a processor that was added since: the caller then does without.
  unsigned slot = 0;
};

/// Where the thread is, if sections are restartable; else an area of null.
[[nodiscard]] inline Place quick_here() noexcept {
#if ACCELMM_RSEQ
  const std::ptrdiff_t offset = detail::area_offset.load(std::memory_order_relaxed);
  if (offset != 0) [[likely]] {
    detail::Area& area = detail::area(offset);
    return {&area, std::atomic_ref(area.cpu_id_start).load(std::memory_order_relaxed)};
  }
#endif
  return {};
}

/// Where the thread is, on any system.
[[nodiscard]] inline Place here() noexcept {
  const Place place = quick_here();
  return place.area != nullptr ? place : Place{nullptr, detail::slot_of_thread()};
}

/// The slot of the processor that this thread is on, at this moment; as in Place.
[[nodiscard]] inline unsigned current() noexcept {
  return here().slot;
}

// NOLINTBEGIN(readability-function-size): an instruction's operands, in registers.
/// Stores `desired` in `target` if the thread is still in the slot of `place`, `check` is
/// `check_expected` and `target` is `expected`; all at once as seen by any thread in the same slot.
/// Returns whether it did. A value that changed and changed back goes unnoticed.
/// Pre  only sections of the slot, or code after interrupt(slot), write `check` and `target`.
[[nodiscard]] inline bool store_if(Place place, SlotLock& lock, const Word& check,
                                   std::uint64_t check_expected, Word& target,
                                   std::uint64_t expected, std::uint64_t desired) noexcept {
#if ACCELMM_RSEQ
  if (place.area != nullptr) [[likely]] {
    detail::Area& area = *place.area;
    asm goto volatile(
        ACCELMM_RSEQ_BEGIN("%%rax", "%[rseq_cs]")
        "cmpl %[slot], %[cpu_id]\n\t"
        "jne %l[lost]\n\t"
        "cmpq %[check_expected], %[check]\n\t"
        "jne %l[lost]\n\t"
        "cmpq %[expected], %[target]\n\t"
        "jne %l[lost]\n\t"
        "movq %[desired], %[target]\n\t"
        ACCELMM_RSEQ_END("%[rseq_cs]")
        :
        : [slot] "r"(place.slot), [cpu_id] "m"(area.cpu_id), [rseq_cs] "m"(area.rseq_cs),
          [check] "m"(check), [check_expected] "r"(check_expected), [target] "m"(target),
          [expected] "r"(expected), [desired] "r"(desired)
        : "memory", "cc", "rax"
        : lost);
    return true;
  lost:
    std::atomic_ref(area.rseq_cs).store(0, std::memory_order_relaxed);
    return false;
  }
#endif
  static_cast<void>(place);
  return detail::locked_store_if(lock, check, check_expected, target, expected, desired);
}

/// The same, and what is stored is `expected` with one bit changed, that of the number `bit` mod 64.
/// Fewer instructions and registers than computing the value beforehand.
[[nodiscard, gnu::always_inline]] inline bool flip_if(Place place, SlotLock& lock,
                                                      const Word& check,
                                                      std::uint64_t check_expected, Word& target,
                                                      std::uint64_t expected,
                                                      std::uint64_t bit) noexcept {
#if ACCELMM_RSEQ
  if (place.area != nullptr) [[likely]] {
    detail::Area& area = *place.area;
    asm goto volatile(
        ACCELMM_RSEQ_BEGIN("%%rax", "%[rseq_cs]")
        "cmpl %[slot], %[cpu_id]\n\t"
        "jne %l[lost]\n\t"
        "cmpq %[check_expected], %[check]\n\t"
        "jne %l[lost]\n\t"
        "movq %[expected], %%rax\n\t"
        "cmpq %%rax, %[target]\n\t"
        "jne %l[lost]\n\t"
        "btcq %[bit], %%rax\n\t"
        "movq %%rax, %[target]\n\t"
        ACCELMM_RSEQ_END("%[rseq_cs]")
        :
        : [slot] "r"(place.slot), [cpu_id] "m"(area.cpu_id), [rseq_cs] "m"(area.rseq_cs),
          [check] "m"(check), [check_expected] "r"(check_expected), [target] "m"(target),
          [expected] "r"(expected), [bit] "r"(bit)
        : "memory", "cc", "rax"
        : lost);
    return true;
  lost:
    std::atomic_ref(area.rseq_cs).store(0, std::memory_order_relaxed);
    return false;
  }
#endif
  return store_if(place, lock, check, check_expected, target, expected,
                  expected ^ std::uint64_t{1} << (bit & 63));
}

/// The same, from a slot that is known from elsewhere.
[[nodiscard]] inline bool store_if(unsigned slot, SlotLock& lock, const Word& check,
                                   std::uint64_t check_expected, Word& target,
                                   std::uint64_t expected, std::uint64_t desired) noexcept {
  return store_if(Place{here().area, slot}, lock, check, check_expected, target, expected, desired);
}

/// Stores `value` in `cell` and then `desired` in `header` if the thread is still in its slot and
/// `header` is `expected`. Returns whether it did; `cell` may have been written all the same.
/// Pre  only sections of the slot, or code after interrupt(slot), write `header` and `cell`; what
///      `cell` holds means nothing while `header` is `expected`.
[[nodiscard]] inline bool push_if(Place place, SlotLock& lock, Word& header, std::uint64_t expected,
                                  Word& cell, std::uint64_t value, std::uint64_t desired) noexcept {
#if ACCELMM_RSEQ
  if (place.area != nullptr) [[likely]] {
    detail::Area& area = *place.area;
    asm goto volatile(
        ACCELMM_RSEQ_BEGIN("%%rax", "%[rseq_cs]")
        "cmpl %[slot], %[cpu_id]\n\t"
        "jne %l[lost]\n\t"
        "cmpq %[expected], %[header]\n\t"
        "jne %l[lost]\n\t"
        "movq %[value], %[cell]\n\t"
        "movq %[desired], %[header]\n\t"
        ACCELMM_RSEQ_END("%[rseq_cs]")
        :
        : [slot] "r"(place.slot), [cpu_id] "m"(area.cpu_id), [rseq_cs] "m"(area.rseq_cs),
          [header] "m"(header), [expected] "r"(expected), [cell] "m"(cell), [value] "r"(value),
          [desired] "r"(desired)
        : "memory", "cc", "rax"
        : lost);
    return true;
  lost:
    std::atomic_ref(area.rseq_cs).store(0, std::memory_order_relaxed);
    return false;
  }
#endif
  static_cast<void>(place);
  return detail::locked_push_if(lock, header, expected, cell, value, desired);
}

/// The same, from a slot that is known from elsewhere.
[[nodiscard]] inline bool push_if(unsigned slot, SlotLock& lock, Word& header,
                                  std::uint64_t expected, Word& cell, std::uint64_t value,
                                  std::uint64_t desired) noexcept {
  return push_if(Place{here().area, slot}, lock, header, expected, cell, value, desired);
}

// NOLINTEND(readability-function-size)

/// Returns when no section of `slot` that began before the call can commit any more. The caller has
/// already made new ones fail, by changing the word that they check.
/// Cost  a system call, and an interrupt of that processor if it is busy.
void interrupt(unsigned slot, SlotLock& lock) noexcept;

}  // namespace accelmm::per_cpu
