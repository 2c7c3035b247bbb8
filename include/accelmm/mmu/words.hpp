// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace accelmm::mmu {

// Stores and scans of the words of tables, with the widest vectors that the processor has. Each word
// is stored whole: a device that reads it at the same time sees the old or the new one.

/// Stores entry, entry + step, ... into `count` words.
void fill_words(std::uint64_t* out, std::uint32_t count, std::uint64_t entry, std::uint64_t step);
void fill_words(std::uint32_t* out, std::uint32_t count, std::uint32_t entry, std::uint32_t step);

/// Tells whether none of the words is set.
[[nodiscard]] bool all_zero(const std::uint64_t* words, std::uint32_t count);
[[nodiscard]] bool all_zero(const std::uint32_t* words, std::uint32_t count);

/// Tells whether one of the words is not set.
[[nodiscard]] bool any_zero(const std::uint64_t* words, std::uint32_t count);
[[nodiscard]] bool any_zero(const std::uint32_t* words, std::uint32_t count);

}  // namespace accelmm::mmu
