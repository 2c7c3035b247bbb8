// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>

#include <span>

namespace accelmm {

/// One errno and what it means in accelmm. docs/errors.md has the same list; a test compares them.
struct ErrorText {
  Errc code;
  const char* name;
  const char* text;
};

/// All errnos that have a meaning of ours, in order of their names.
[[nodiscard]] std::span<const ErrorText> error_texts() noexcept;

}  // namespace accelmm
