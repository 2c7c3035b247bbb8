// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/restartable.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>

/// What a program that frees and allocates by turns does most, compiled into it: two calls of the
/// library would take as long again.
///
/// Each is one restartable section. What another thread of the slot could change meanwhile restarts
/// it, and what others can change does no harm: whoever empties the slot puts its mark first and
/// interrupts the slot then, so that a section that read the word before either commits before the
/// interrupt or never; a free by another processor is seen if it was before the comparison, and
/// else both are done, after which the object is live by its marks, lost until it is freed once
/// more, and never had by two.
namespace accelmm::mm {

/// The object that a slot freed last: where its marks are, and all that a call answers. A program
/// that frees and allocates by turns has this one over and over, without looking anything up.
///
/// It says nothing of whether the object is live, and counts only while `word` is the current word
/// of its class. Sections write it, `word` last; install() makes it forgotten.
struct alignas(64) SlabRecent {
  static constexpr std::uint64_t forgotten = 2;  ///< never a current word

  /// `any` is where some current word stands.
  explicit SlabRecent(const std::atomic<std::uint64_t>& any) : current(&any) {}

  std::atomic<std::uint64_t> word = forgotten;
  const std::atomic<std::uint64_t>* current;  ///< where the current word of the class stands
  std::atomic<std::uint64_t>* marks = nullptr;
  std::uint64_t offset = 0;
  std::uint64_t size = 0;  ///< of its class
  std::uint32_t free = 0;  ///< lower half of the marks if the object is free
  std::uint32_t live = 0;  ///< and if it is live
  std::uint32_t high = 0;  ///< the upper half
  std::uint64_t step = 0;  ///< sizes from size - step + 1 go to its class
};

// What the sections know of it.
inline constexpr unsigned slab_recent_log2 = 6;
static_assert(sizeof(SlabRecent) == 1U << slab_recent_log2);
static_assert(offsetof(SlabRecent, current) == 8 && offsetof(SlabRecent, marks) == 16);
static_assert(offsetof(SlabRecent, offset) == 24 && offsetof(SlabRecent, size) == 32);
static_assert(offsetof(SlabRecent, free) == 40 && offsetof(SlabRecent, live) == 44);
static_assert(offsetof(SlabRecent, high) == 48 && offsetof(SlabRecent, step) == 56);

/// The recent objects of all slots: none if sections are not restartable, or an option says how to
/// take or free.
struct SlabRecents {
  SlabRecent* slots = nullptr;
  std::uint32_t to_take = 0;  ///< how many slots take without the library
  std::uint32_t to_free = 0;  ///< and free
  /// Of the thread's area (rseq(2)), which is there even if the kernel does not know of it.
  std::ptrdiff_t area = 0;
};

/// An object in two registers: a Result would be handed over in memory.
struct SlabObject {
  std::uint64_t offset = 0;
  std::uint64_t size = 0;  ///< of its class; 0 is none
};

/// Takes the slot's recent object if it is free, not the last of its word and of the class of
/// `size`. Returns whether it did.
[[nodiscard, gnu::always_inline]] inline bool take_recent(
    [[maybe_unused]] const SlabRecents& recents, [[maybe_unused]] std::uint64_t size,
    [[maybe_unused]] SlabObject& object) noexcept {
#if ACCELMM_RSEQ
  per_cpu::detail::Area& area = per_cpu::detail::area(recents.area);
  std::uint64_t recent;
  std::uint64_t marks;
  std::uint64_t offset;
  std::uint64_t length;
  std::uint32_t low;
  // The area's fields: cpu_id at 4, rseq_cs at 8.
  asm goto volatile(
      ACCELMM_RSEQ_BEGIN("%[recent]", "8(%[area])")
      "movl 4(%[area]), %k[recent]\n\t"
      "cmpl %[count], %k[recent]\n\t"
      "jae %l[lost]\n\t"
      "shlq %[log2], %[recent]\n\t"
      "addq %[slots], %[recent]\n\t"
      "movq 32(%[recent]), %[length]\n\t"
      "movq %[length], %[offset]\n\t"
      "subq %[size], %[offset]\n\t"
      "cmpq 56(%[recent]), %[offset]\n\t"
      "jae %l[lost]\n\t"
      "movq (%[recent]), %[marks]\n\t"
      "movq 8(%[recent]), %[offset]\n\t"
      "cmpq (%[offset]), %[marks]\n\t"
      "jne %l[lost]\n\t"
      "movq 16(%[recent]), %[marks]\n\t"
      "movl 40(%[recent]), %[low]\n\t"
      "cmpl %[low], (%[marks])\n\t"
      "jne %l[lost]\n\t"
      "movl 48(%[recent]), %[low]\n\t"
      "cmpl %[low], 4(%[marks])\n\t"
      "jne %l[lost]\n\t"
      "movq 24(%[recent]), %[offset]\n\t"
      "movl 44(%[recent]), %[low]\n\t"
      "movl %[low], (%[marks])\n\t"
      ACCELMM_RSEQ_END("8(%[area])")
      : [recent] "=&r"(recent), [marks] "=&r"(marks), [offset] "=&r"(offset),
        [length] "=&r"(length), [low] "=&r"(low)
      : [area] "r"(&area), [slots] "m"(recents.slots), [count] "m"(recents.to_take),
        [log2] "i"(slab_recent_log2), [size] "r"(size)
      : "memory", "cc"
      : lost);
  // Makes them values of this block: g++ 12 cannot put two results of the jumping one into a vector.
  asm("" : "+r"(offset), "+r"(length));
  object = {.offset = offset, .size = length};
  return true;
lost:
  std::atomic_ref(area.rseq_cs).store(0, std::memory_order_relaxed);
#endif
  return false;
}

/// Frees the slot's recent object if it begins at `offset` and is live. Returns whether it did.
[[nodiscard, gnu::always_inline]] inline bool give_recent(
    [[maybe_unused]] const SlabRecents& recents, [[maybe_unused]] std::uint64_t offset) noexcept {
#if ACCELMM_RSEQ
  per_cpu::detail::Area& area = per_cpu::detail::area(recents.area);
  std::uint64_t recent;
  std::uint64_t marks;
  std::uint64_t scratch;
  asm goto volatile(
      ACCELMM_RSEQ_BEGIN("%[recent]", "8(%[area])")
      "movl 4(%[area]), %k[recent]\n\t"
      "cmpl %[count], %k[recent]\n\t"
      "jae %l[lost]\n\t"
      "shlq %[log2], %[recent]\n\t"
      "addq %[slots], %[recent]\n\t"
      "cmpq %[offset], 24(%[recent])\n\t"
      "jne %l[lost]\n\t"
      "movq (%[recent]), %[marks]\n\t"
      "movq 8(%[recent]), %[scratch]\n\t"
      "cmpq (%[scratch]), %[marks]\n\t"
      "jne %l[lost]\n\t"
      "movq 16(%[recent]), %[marks]\n\t"
      "movl 44(%[recent]), %k[scratch]\n\t"
      "cmpl %k[scratch], (%[marks])\n\t"
      "jne %l[lost]\n\t"
      "movl 48(%[recent]), %k[scratch]\n\t"
      "cmpl %k[scratch], 4(%[marks])\n\t"
      "jne %l[lost]\n\t"
      "movl 40(%[recent]), %k[scratch]\n\t"
      "movl %k[scratch], (%[marks])\n\t"
      ACCELMM_RSEQ_END("8(%[area])")
      : [recent] "=&r"(recent), [marks] "=&r"(marks), [scratch] "=&r"(scratch)
      : [area] "r"(&area), [slots] "m"(recents.slots), [count] "m"(recents.to_free),
        [log2] "i"(slab_recent_log2), [offset] "r"(offset)
      : "memory", "cc"
      : lost);
  return true;
lost:
  std::atomic_ref(area.rseq_cs).store(0, std::memory_order_relaxed);
#endif
  return false;
}

}  // namespace accelmm::mm
