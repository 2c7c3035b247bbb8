// SPDX-License-Identifier: Apache-2.0
#include "mm/heap/memory_watch.hpp"

#if defined(__SANITIZE_ADDRESS__)
#define ACCELMM_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ACCELMM_ASAN 1
#endif
#endif

#ifdef ACCELMM_ASAN
#include <sanitizer/asan_interface.h>
#endif

// Where the header is, the client requests are built in: a few instructions that do nothing outside
// of Valgrind.
#if __has_include(<valgrind/memcheck.h>)
#include <valgrind/memcheck.h>
#include <valgrind/valgrind.h>
#define ACCELMM_VALGRIND 1
#endif

namespace accelmm::mm {

namespace {

#ifdef ACCELMM_ASAN
constexpr bool sanitized = true;
void poison(const std::byte* begin, ByteCount size) noexcept {
  __asan_poison_memory_region(begin, size.value());
}
void unpoison(const std::byte* begin, ByteCount size) noexcept {
  __asan_unpoison_memory_region(begin, size.value());
}
#else
constexpr bool sanitized = false;
void poison(const std::byte* /*begin*/, ByteCount /*size*/) noexcept {}
void unpoison(const std::byte* /*begin*/, ByteCount /*size*/) noexcept {}
#endif

#ifdef ACCELMM_VALGRIND
bool under_valgrind() noexcept {
  return RUNNING_ON_VALGRIND != 0;
}
#endif

}  // namespace

bool somebody_watches() noexcept {
#ifdef ACCELMM_VALGRIND
  if (under_valgrind()) return true;
#endif
  return sanitized;
}

void close_memory(const std::byte* begin, ByteCount size) noexcept {
  poison(begin, size);
#ifdef ACCELMM_VALGRIND
  static_cast<void>(VALGRIND_MAKE_MEM_NOACCESS(begin, size.value()));
#endif
}

void open_memory(const std::byte* begin, ByteCount size) noexcept {
  unpoison(begin, size);
#ifdef ACCELMM_VALGRIND
  static_cast<void>(VALGRIND_MAKE_MEM_DEFINED(begin, size.value()));
#endif
}

void piece_taken(const std::byte* begin, ByteCount size) noexcept {
  unpoison(begin, size);
#ifdef ACCELMM_VALGRIND
  VALGRIND_MALLOCLIKE_BLOCK(begin, size.value(), 0, 0);
#endif
}

void piece_freed(const std::byte* begin, ByteCount size) noexcept {
  poison(begin, size);
#ifdef ACCELMM_VALGRIND
  VALGRIND_FREELIKE_BLOCK(begin, 0);
#endif
}

}  // namespace accelmm::mm
