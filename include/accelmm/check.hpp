// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace accelmm {

/// Prints "accelmm: check failed: <text> at <file>:<line>" to stderr and aborts. Never allocates.
[[noreturn]] void check_failed(const char* text, const char* file, int line) noexcept;

}  // namespace accelmm

// A broken invariant of our own, checked in every build: there is no sane way to go on.
#define ACCELMM_CHECK(condition)                       \
  (static_cast<bool>(condition) ? static_cast<void>(0) \
                                : ::accelmm::check_failed(#condition, __FILE__, __LINE__))

// The same on hot inner paths: debug and sanitizer builds only. The condition is always compiled.
#ifdef NDEBUG
#define ACCELMM_DCHECK(condition) static_cast<void>(sizeof(static_cast<bool>(condition)))
#else
#define ACCELMM_DCHECK(condition) ACCELMM_CHECK(condition)
#endif
