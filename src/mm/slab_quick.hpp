// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/per_cpu_half.hpp"
#include "mm/slab_classes.hpp"
#include "mm/slab_magazine.hpp"
#include "mm/slab_table.hpp"

#include <accelmm/slab_recent.hpp>

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

// What the sections know of the layout: a slot's caches are 2^slot_log2 bytes from the next ones,
// and begin with the current word.
inline constexpr unsigned slot_log2 = 14;
static_assert(offsetof(SlabCache, current) == 0);

/// The slots: none if sections are not restartable, or options say how to take or free.
struct QuickSlots {
  SlabCache* caches = nullptr;  ///< the first slot's, of the first class
  SlabRecent* recents = nullptr;
  std::uint32_t count = 0;
  std::ptrdiff_t area = 0;  ///< as in SlabRecents, also where there are none

  [[nodiscard]] bool exist() const { return count != 0; }
};

struct QuickTaken {
  SlabWordRef word{};
  std::uint32_t object = 0;  ///< its bit; 0 if none was taken
};

/// Takes the lowest free object of the current word, unless it is its last.
[[nodiscard, gnu::always_inline]] inline QuickTaken take_lowest(
    [[maybe_unused]] const QuickSlots& slots, [[maybe_unused]] unsigned number) noexcept {
#if ACCELMM_RSEQ
  per_cpu::detail::Area& area = per_cpu::detail::area(slots.area);
  std::uint64_t word;
  std::uint64_t marks;
  std::uint64_t scratch;
  std::uint32_t free;
  std::uint32_t object;
  asm goto volatile(
      ACCELMM_RSEQ_BEGIN("%[scratch]", "8(%[area])")
      "movl 4(%[area]), %k[scratch]\n\t"
      "cmpl %[count], %k[scratch]\n\t"
      "jae %l[lost]\n\t"
      "shlq %[slot_log2], %[scratch]\n\t"
      "movq (%[caches],%[scratch]), %[word]\n\t"
      "cmpq $1, %[word]\n\t"  // none, or closed
      "jbe %l[lost]\n\t"
      "movq %[word], %[marks]\n\t"
      "shlq $8, %[marks]\n\t"
      "shrq $8, %[marks]\n\t"
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
      : [area] "r"(&area), [caches] "r"(slots.caches + number), [count] "m"(slots.count),
        [slot_log2] "i"(slot_log2)
      : "memory", "cc"
      : lost);
  return {.word = SlabWordRef(word), .object = object};
lost:
  std::atomic_ref(area.rseq_cs).store(0, std::memory_order_relaxed);
#endif
  return {};
}

/// An object, as a free finds it.
struct QuickPlace {
  const std::uint64_t* unit;  ///< of the table
  std::uint64_t entry;        ///< what stood there
  std::uint64_t offset;
  unsigned word;
  std::uint32_t bit;
};

/// Frees an object of the current word of its class, which becomes the slot's recent one. Returns
/// false, and does nothing, if it is of another word, or not live. The slab is looked up once more:
/// it may have gone, and the word have become another slab's, before the section began, but not
/// while it is the current one.
[[nodiscard, gnu::always_inline]] inline bool give_to_current(
    [[maybe_unused]] const QuickSlots& slots, [[maybe_unused]] const QuickPlace& place) noexcept {
#if ACCELMM_RSEQ
  per_cpu::detail::Area& area = per_cpu::detail::area(slots.area);
  const unsigned number = SlabTable::class_of(place.entry);
  const SlabWordRef word(SlabTable::record_of(place.entry), place.word);
  std::uint64_t cache;
  std::uint64_t recent;
  std::uint32_t low;
  std::uint64_t entry = place.entry;  // free for other use once it was compared
  // Few operands, so that there are registers for them in a build without optimisation, too.
  asm goto volatile(
      ACCELMM_RSEQ_BEGIN("%[cache]", "8(%[area])")
      "movl 4(%[area]), %k[cache]\n\t"
      "cmpl %c[count](%[slots]), %k[cache]\n\t"
      "jae %l[lost]\n\t"
      "movq %[cache], %[recent]\n\t"
      "shlq %[slot_log2], %[cache]\n\t"
      "addq %[caches], %[cache]\n\t"
      "cmpq %[word], (%[cache])\n\t"
      "jne %l[lost]\n\t"
      "cmpq %[entry], (%[unit])\n\t"
      "jne %l[lost]\n\t"
      "movl (%[marks]), %[low]\n\t"
      "movl 4(%[marks]), %k[entry]\n\t"
      "xorl %[low], %k[entry]\n\t"
      "testl %[bit], %k[entry]\n\t"
      "jz %l[lost]\n\t"
      "shlq %[recent_log2], %[recent]\n\t"
      "addq %c[recents](%[slots]), %[recent]\n\t"
      "movq %[forgotten], (%[recent])\n\t"  // what follows does not belong together meanwhile
      "movq %[cache], 8(%[recent])\n\t"
      "movq %[marks], 16(%[recent])\n\t"
      "movq %[offset], 24(%[recent])\n\t"
      "movl %[low], 44(%[recent])\n\t"
      "xorl %k[entry], %[low]\n\t"  // the upper half as it was when looked at
      "movl %[low], 48(%[recent])\n\t"
      "xorl %k[entry], %[low]\n\t"
      "xorl %[bit], %[low]\n\t"
      "movl %[low], 40(%[recent])\n\t"
      "movl %c[size](%[shape]), %k[entry]\n\t"
      "movq %[entry], 32(%[recent])\n\t"
      "movl %c[step](%[shape]), %k[entry]\n\t"
      "movq %[entry], 56(%[recent])\n\t"
      "movq %[word], (%[recent])\n\t"
      "movl %[low], (%[marks])\n\t"
      ACCELMM_RSEQ_END("8(%[area])")
      : [cache] "=&r"(cache), [recent] "=&r"(recent), [low] "=&r"(low), [entry] "+&r"(entry)
      : [area] "r"(&area), [slots] "r"(&slots), [caches] "r"(slots.caches + number),
        [shape] "r"(&slab_shapes[number]), [word] "r"(word.raw()), [marks] "r"(&word.marks()),
        [unit] "r"(place.unit), [offset] "r"(place.offset), [bit] "r"(place.bit),
        [count] "i"(offsetof(QuickSlots, count)), [recents] "i"(offsetof(QuickSlots, recents)),
        [size] "i"(offsetof(SlabClassShape, size)), [step] "i"(offsetof(SlabClassShape, step)),
        [slot_log2] "i"(slot_log2), [recent_log2] "i"(slab_recent_log2),
        [forgotten] "i"(SlabRecent::forgotten)
      : "memory", "cc"
      : lost);
  return true;
lost:
  std::atomic_ref(area.rseq_cs).store(0, std::memory_order_relaxed);
#endif
  return false;
}

}  // namespace accelmm::mm
