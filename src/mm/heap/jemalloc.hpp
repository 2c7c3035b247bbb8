// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

/// jemalloc's interface under the names that src/CMakeLists.txt gives it. Its own header has the
/// names of the C library's malloc. Facts: jemalloc(3) of 5.3.
extern "C" {

struct accelmm_jemalloc_hooks;

using accelmm_jemalloc_alloc = void*(accelmm_jemalloc_hooks* hooks, void* wanted, std::size_t size,
                                     std::size_t alignment, bool* zero, bool* commit,
                                     unsigned arena);
using accelmm_jemalloc_dalloc = bool(accelmm_jemalloc_hooks* hooks, void* begin, std::size_t size,
                                     bool committed, unsigned arena);
using accelmm_jemalloc_destroy = void(accelmm_jemalloc_hooks* hooks, void* begin, std::size_t size,
                                      bool committed, unsigned arena);
using accelmm_jemalloc_part = bool(accelmm_jemalloc_hooks* hooks, void* begin, std::size_t size,
                                   std::size_t offset, std::size_t length, unsigned arena);
using accelmm_jemalloc_split = bool(accelmm_jemalloc_hooks* hooks, void* begin, std::size_t size,
                                    std::size_t first, std::size_t second, bool committed,
                                    unsigned arena);
using accelmm_jemalloc_merge = bool(accelmm_jemalloc_hooks* hooks, void* first,
                                    std::size_t first_size, void* second, std::size_t second_size,
                                    bool committed, unsigned arena);

/// extent_hooks_t. All but alloc and destroy return false for success.
struct accelmm_jemalloc_hooks {
  accelmm_jemalloc_alloc* alloc;
  accelmm_jemalloc_dalloc* dalloc;
  accelmm_jemalloc_destroy* destroy;
  accelmm_jemalloc_part* commit;
  accelmm_jemalloc_part* decommit;
  accelmm_jemalloc_part* purge_lazy;
  accelmm_jemalloc_part* purge_forced;
  accelmm_jemalloc_split* split;
  accelmm_jemalloc_merge* merge;
};

/// What experimental.arenas_create_ext takes.
struct accelmm_jemalloc_arena {
  accelmm_jemalloc_hooks* hooks;
  bool metadata_use_hooks;
};

void* accelmm_jemalloc_mallocx(std::size_t size, int flags);
void* accelmm_jemalloc_rallocx(void* pointer, std::size_t size, int flags);
void accelmm_jemalloc_dallocx(void* pointer, int flags);
std::size_t accelmm_jemalloc_sallocx(const void* pointer, int flags);
int accelmm_jemalloc_mallctl(const char* name, void* old_value, std::size_t* old_size,
                             void* new_value, std::size_t new_size);
extern const char* accelmm_jemalloc_malloc_conf;

}  // extern "C"

namespace accelmm::mm {

// The flags of mallocx(): bits 0-5 the logarithm of the alignment, 6 zero, 8-19 thread cache + 2,
// 20-31 arena + 1.
inline constexpr int jemalloc_zero = 0x40;
inline constexpr int jemalloc_no_thread_cache = 1 << 8;
[[nodiscard]] constexpr int jemalloc_arena(unsigned arena) {
  return static_cast<int>((arena + 1) << 20);
}

}  // namespace accelmm::mm
