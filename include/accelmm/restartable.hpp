// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
#define ACCELMM_RSEQ 1
#else
#define ACCELMM_RSEQ 0
#endif
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#undef ACCELMM_RSEQ
#define ACCELMM_RSEQ 0
#endif
#endif

/// The frame of a restartable section (rseq(2)), for code that is compiled into its caller.
/// ACCELMM_RSEQ says whether there are any: with another compiler option or processor, callers do
/// without them and the library does what they would have done.
namespace accelmm::per_cpu::detail {

// What <sys/rseq.h> says of the thread's area, whose layout is the kernel's for ever.
struct alignas(32) Area {
  std::uint32_t cpu_id_start;
  std::uint32_t cpu_id;
  std::uint64_t rseq_cs;
  std::uint32_t flags;
};

#if ACCELMM_RSEQ
// The frame of a section, around its instructions in an asm goto that has the label `lost`. BEGIN
// takes a register to spoil and the operand that is the area's rseq_cs, END the latter again. The
// descriptor {version, flags, start, length, abort} goes to a section of its own, in the group of
// the function so that the linker drops both or neither. Between 3 and 4 the kernel jumps to 5
// instead of resuming; the bytes before 5 are the signature that it looks for.
#define ACCELMM_RSEQ_BEGIN(scratch, rseq_cs) \
  ".pushsection __rseq_cs, \"aw?\"\n\t"      \
  ".balign 32\n\t"                           \
  "1: .long 0, 0\n\t"                        \
  ".quad 3f, 4f - 3f, 5f\n\t"                \
  ".popsection\n\t"                          \
  "leaq 1b(%%rip), " scratch                 \
  "\n\t"                                     \
  "movq " scratch ", " rseq_cs               \
  "\n\t"                                     \
  "3:\n\t"
#define ACCELMM_RSEQ_END(rseq_cs)            \
  "4: movq $0, " rseq_cs                     \
  "\n\t"                                     \
  ".pushsection __rseq_failure, \"ax?\"\n\t" \
  ".byte 0x0f, 0xb9, 0x3d\n\t"               \
  ".long 0x53053053\n\t"                     \
  "5: jmp %l[lost]\n\t"                      \
  ".popsection"

/// `offset` is its distance from the thread pointer.
[[nodiscard]] inline Area& area(std::ptrdiff_t offset) noexcept {
  return *reinterpret_cast<Area*>(static_cast<char*>(__builtin_thread_pointer()) + offset);
}
#endif

}  // namespace accelmm::per_cpu::detail
