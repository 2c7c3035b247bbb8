// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/fd.hpp>

#include <cstddef>
#include <span>

namespace accelmm {

/// Writes zeroes over all of a file that was ever written, through the place where it is mapped;
/// what was never touched takes no memory for it. Where the system does not say what was written,
/// all is. Never fails, never allocates.
/// Pre     the place shows the file from its beginning, writable.
/// Cost    that of writing so many bytes.
void clear_written(std::span<std::byte> place, FdView file) noexcept;

}  // namespace accelmm
