// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

namespace accelmm {

/// Copies between memory that several devices, threads and processes may touch at once, and memory
/// of the caller.
///
/// Every aligned 8-byte word of the shared side that lies wholly inside the range is one atomic
/// access, the bytes around them one each: what a bus does. Loads acquire and stores release, so
/// that who reads a word sees what its writer wrote before it (on x86 that costs nothing).
void copy_from_shared(std::byte* into, const std::byte* shared, std::size_t size) noexcept;
void copy_to_shared(std::byte* shared, const std::byte* from, std::size_t size) noexcept;
void zero_shared(std::byte* shared, std::size_t size) noexcept;

}  // namespace accelmm
