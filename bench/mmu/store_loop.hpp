// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>

namespace accelmm::bench {

struct Freed {
  void operator()(void* memory) const { std::free(memory); }
};
using Memory = std::unique_ptr<std::byte, Freed>;

/// Zeroed and touched.
inline Memory zeroed(std::size_t bytes) {
  Memory memory(static_cast<std::byte*>(std::aligned_alloc(std::size_t{2} << 20, bytes)));
  std::memset(memory.get(), 0, bytes);
  return memory;
}

/// The limit of any page table: entry, entry + step, ... stored one after the other, with the vectors
/// that the processor has.
#ifdef __x86_64__
[[gnu::target_clones("avx2", "default")]]
#endif
#ifndef __clang__  // which never inlines a function that has clones, and takes no such wish
[[gnu::noinline]]
#endif
inline void store_entries(std::uint64_t* out, std::size_t count, std::uint64_t entry,
                          std::uint64_t step) {
  using Four [[gnu::vector_size(32)]] = std::uint64_t;
  Four words{entry, entry + step, entry + 2 * step, entry + 3 * step};
  const Four far{4 * step, 4 * step, 4 * step, 4 * step};
  std::size_t i = 0;
  // Four at a time: where a loop of one lies in the code would decide over a half of its speed.
  for (; i + 16 <= count; i += 16) {
    for (std::size_t next = 0; next < 16; next += 4, words += far)
      std::memcpy(out + i + next, &words, sizeof words);
  }
  for (; i + 4 <= count; i += 4, words += far) std::memcpy(out + i, &words, sizeof words);
}

}  // namespace accelmm::bench
