// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/per_cpu_half.hpp"
#include "mm/slab_magazine.hpp"

#include <cstddef>
#include <cstdint>

/// The two steps that nearly every call needs, as one restartable section each.
///
/// Everything is read inside the section, so that nothing need be compared before the store: what
/// another thread of the slot could change meanwhile restarts it, and what others can change does
/// no harm. A free by another processor flips a bit of the other half. Whoever empties the slot
/// puts its mark first and interrupts the slot then; a section that read the word before either
/// commits before the interrupt or never.
namespace accelmm::mm {

// What the sections know of the layout: a reference is the record / 64 << 8 | word, marks begin 64
// bytes into the record, the current word is the first of a cache.
static_assert(sizeof(SlabRecord) == 64 && cache_line == 64);
static_assert(offsetof(SlabCache, current) == 0);
inline constexpr unsigned slot_log2 = 14;  // bytes from one slot's caches to the next

/// Which slots there are: the caches of one class of each.
struct QuickSlots {
  const SlabCache* caches;  ///< the first slot's
  unsigned count;
  std::ptrdiff_t area;  ///< per_cpu::quick_area(), not 0
};

struct QuickTaken {
  SlabWordRef word;
  std::uint32_t object = 0;  ///< its bit; 0 if none was taken
};

/// Takes the lowest free object of the current word, unless it is its last.
[[nodiscard, gnu::always_inline]] inline QuickTaken take_lowest(
    [[maybe_unused]] QuickSlots slots) noexcept {
#if ACCELMM_RSEQ
  per_cpu::detail::Area& area = per_cpu::detail::area(slots.area);
  std::uint64_t word;
  std::uint64_t marks;
  std::uint64_t scratch;
  std::uint32_t free;
  std::uint32_t object;
  // The area's fields: cpu_id at 4, rseq_cs at 8.
  asm goto volatile(
      ACCELMM_RSEQ_BEGIN("%[scratch]", "8(%[area])")
      "movl 4(%[area]), %k[scratch]\n\t"
      "cmpl %[count], %k[scratch]\n\t"
      "jae %l[lost]\n\t"
      "shlq %[slot_log2], %[scratch]\n\t"
      "movq (%[caches],%[scratch]), %[word]\n\t"
      "cmpq $1, %[word]\n\t"  // none, or closed
      "jbe %l[lost]\n\t"
      "movzbl %b[word], %k[scratch]\n\t"
      "movq %[word], %[marks]\n\t"
      "shrq $8, %[marks]\n\t"
      "shlq $6, %[marks]\n\t"
      "leaq 64(%[marks],%[scratch],8), %[marks]\n\t"
      "movl (%[marks]), %k[scratch]\n\t"
      "movl 4(%[marks]), %[free]\n\t"
      "xorl %k[scratch], %[free]\n\t"
      "notl %[free]\n\t"
      "movl %[free], %[object]\n\t"
      "negl %[object]\n\t"
      "andl %[free], %[object]\n\t"
      "cmpl %[free], %[object]\n\t"  // the last one, or none
      "je %l[lost]\n\t"
      "xorl %[object], %k[scratch]\n\t"
      "movl %k[scratch], (%[marks])\n\t"
      ACCELMM_RSEQ_END("8(%[area])")
      : [word] "=&q"(word), [marks] "=&r"(marks), [scratch] "=&r"(scratch), [free] "=&r"(free),
        [object] "=&r"(object)
      : [area] "r"(&area), [caches] "r"(slots.caches), [count] "rm"(slots.count),
        [slot_log2] "i"(slot_log2)
      : "memory", "cc"
      : lost);
  return {.word = SlabWordRef(word), .object = object};
lost:
  std::atomic_ref(area.rseq_cs).store(0, std::memory_order_relaxed);
#endif
  return {};
}

/// Frees objects of a word if it is the current one. Returns false, and does nothing, if it is not,
/// or one of them is not live.
[[nodiscard, gnu::always_inline]] inline bool give_to_current(
    [[maybe_unused]] QuickSlots slots, [[maybe_unused]] SlabWordRef word,
    [[maybe_unused]] per_cpu::Word& marks, [[maybe_unused]] std::uint32_t objects) noexcept {
#if ACCELMM_RSEQ
  per_cpu::detail::Area& area = per_cpu::detail::area(slots.area);
  std::uint64_t scratch;
  std::uint32_t free;
  asm goto volatile(
      ACCELMM_RSEQ_BEGIN("%[scratch]", "8(%[area])")
      "movl 4(%[area]), %k[scratch]\n\t"
      "cmpl %[count], %k[scratch]\n\t"
      "jae %l[lost]\n\t"
      "shlq %[slot_log2], %[scratch]\n\t"
      "cmpq %[word], (%[caches],%[scratch])\n\t"
      "jne %l[lost]\n\t"
      "movl (%[marks]), %k[scratch]\n\t"
      "movl 4(%[marks]), %[free]\n\t"
      "xorl %k[scratch], %[free]\n\t"
      "notl %[free]\n\t"
      "testl %[objects], %[free]\n\t"
      "jnz %l[lost]\n\t"
      "xorl %[objects], %k[scratch]\n\t"
      "movl %k[scratch], (%[marks])\n\t"
      ACCELMM_RSEQ_END("8(%[area])")
      : [scratch] "=&r"(scratch), [free] "=&r"(free)
      : [area] "r"(&area), [caches] "r"(slots.caches), [count] "rm"(slots.count),
        [slot_log2] "i"(slot_log2), [word] "r"(word.raw()), [marks] "r"(&marks),
        [objects] "r"(objects)
      : "memory", "cc"
      : lost);
  return true;
lost:
  std::atomic_ref(area.rseq_cs).store(0, std::memory_order_relaxed);
#endif
  return false;
}

}  // namespace accelmm::mm
