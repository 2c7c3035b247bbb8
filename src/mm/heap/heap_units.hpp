// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/heap_source.hpp>
#include <accelmm/units.hpp>

#include <cstdint>
#include <optional>

/// What a heap counts in.
namespace accelmm::mm {

/// Large pieces are whole pages. The host's may be larger; only the source must know.
inline constexpr Alignment heap_page{4096};
inline constexpr unsigned heap_unit_log2 = HeapSource::unit.log2();
/// So that 32 bits count the pages of a piece, and no sum of two offsets overflows.
inline constexpr std::uint64_t heap_largest_range = std::uint64_t{1} << 44;

/// How many bytes into a chunk `size` bytes lie at the first multiple of `alignment`, if they do.
[[nodiscard]] inline std::optional<std::uint64_t> aligned_place(const HeapChunk& chunk,
                                                                ByteCount size,
                                                                Alignment alignment) {
  const auto begin = reinterpret_cast<std::uintptr_t>(chunk.pointer);
  const std::uint64_t skip = (0 - begin) & (alignment.value() - 1);
  if (skip > chunk.size.value() || size.value() > chunk.size.value() - skip) return {};
  return skip;
}

}  // namespace accelmm::mm
