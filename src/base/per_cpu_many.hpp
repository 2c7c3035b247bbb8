// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/per_cpu.hpp"

#include <cstddef>
#include <cstdint>

namespace accelmm::per_cpu {

#if ACCELMM_RSEQ
// Copies [left] words, at least one, the last ones first: eight a turn, or two, or one. Both ways go
// through this, since a load waits for an earlier store that it overlaps only in part.
#define ACCELMM_COPY_TWO(from, to, at) \
  "movups " at "(" from                \
  ",%[left],8), %%xmm0\n\t"            \
  "movups %%xmm0, " at "(" to ",%[left],8)\n\t"
#define ACCELMM_COPY_WORDS(from, to) \
  "testb $1, %b[left]\n\t"                   \
  "jz 6f\n\t"                                \
  "movq -8(" from ",%[left],8), %%rax\n\t"   \
  "movq %%rax, -8(" to ",%[left],8)\n\t"     \
  "subq $1, %[left]\n\t"                     \
  "jz 8f\n"                                  \
  "6:\n\t"                                   \
  "testb $7, %b[left]\n\t"                   \
  "jz 7f\n\t"                                \
  ACCELMM_COPY_TWO(from, to, "-16")          \
  "subq $2, %[left]\n\t"                     \
  "jnz 6b\n\t"                               \
  "jmp 8f\n"                                 \
  "7:\n\t"                                   \
  ACCELMM_COPY_TWO(from, to, "-16")          \
  ACCELMM_COPY_TWO(from, to, "-32")          \
  ACCELMM_COPY_TWO(from, to, "-48")          \
  ACCELMM_COPY_TWO(from, to, "-64")          \
  "subq $8, %[left]\n\t"                     \
  "jnz 7b\n"                                 \
  "8:\n\t"
#endif

/// Reads `count` cells, at least one, side by side, that may change meanwhile; what was read means nothing then.
inline void load_many(const Word* cells, std::uint64_t* values, std::size_t count) noexcept {
#if ACCELMM_RSEQ
  asm volatile(ACCELMM_COPY_WORDS("%[cells]", "%[values]")  //
               : [left] "+&r"(count)
               : [cells] "r"(cells), [values] "r"(values)
               : "memory", "cc", "rax", "xmm0");
#else
  for (std::size_t i = 0; i < count; ++i) values[i] = cells[i].load(std::memory_order_relaxed);
#endif
}

// NOLINTBEGIN(readability-function-size): an instruction's operands, in registers.
/// As push_if(), with `count` cells side by side, which may have been written in part all the same.
/// Pre  as of push_if(); count is not 0.
[[nodiscard]] inline bool push_many_if(unsigned slot, SlotLock& lock, Word& header,
                                       std::uint64_t expected, Word* cells,
                                       const std::uint64_t* values, std::size_t count,
                                       std::uint64_t desired) noexcept {
#if ACCELMM_RSEQ
  if (const std::ptrdiff_t offset = detail::area_offset.load(std::memory_order_relaxed);
      offset != 0) [[likely]] {
    detail::Area& area = detail::area(offset);
    std::uint64_t left = count;
    // The area's fields: cpu_id at 4, rseq_cs at 8.
    asm goto volatile(
        ACCELMM_RSEQ_BEGIN("%%rax", "8(%[area])")
        "cmpl %[slot], 4(%[area])\n\t"
        "jne %l[lost]\n\t"
        "cmpq %[expected], (%[header])\n\t"
        "jne %l[lost]\n\t"
        ACCELMM_COPY_WORDS("%[values]", "%[cells]")
        "movq %[desired], (%[header])\n\t"
        ACCELMM_RSEQ_END("8(%[area])")
        : [left] "+&r"(left)
        : [slot] "r"(slot), [area] "r"(&area), [header] "r"(&header), [expected] "r"(expected),
          [cells] "r"(cells), [values] "r"(values), [desired] "r"(desired)
        : "memory", "cc", "rax", "xmm0"
        : lost);
    return true;
  lost:
    std::atomic_ref(area.rseq_cs).store(0, std::memory_order_relaxed);
    return false;
  }
#endif
  static_cast<void>(slot);
  lock.lock();
  const bool same = header.load(std::memory_order_relaxed) == expected;
  if (same) {
    for (std::size_t i = 0; i < count; ++i) cells[i].store(values[i], std::memory_order_relaxed);
    header.store(desired, std::memory_order_release);
  }
  lock.unlock();
  return same;
}
// NOLINTEND(readability-function-size)

}  // namespace accelmm::per_cpu
