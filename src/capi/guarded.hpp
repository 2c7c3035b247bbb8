// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>

#include <cerrno>
#include <cstdint>
#include <new>
#include <utility>

namespace accelmm {

/// What C sees of an error.
[[nodiscard]] inline int to_c(const Error& error) noexcept {
  return -std::to_underlying(error.code);
}
[[nodiscard]] inline int to_c(const Result<void>& result) noexcept {
  return result ? 0 : to_c(result.error());
}

/// Runs the body of a C function: nothing that C++ throws gets out.
template <class Body>
[[nodiscard]] int guarded(Body&& body) noexcept {
  try {
    return std::forward<Body>(body)();
  } catch (const std::bad_alloc&) {
    return -ENOMEM;
  } catch (...) {
    return -EIO;
  }
}

}  // namespace accelmm
