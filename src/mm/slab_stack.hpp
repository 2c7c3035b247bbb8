// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/per_cpu_many.hpp"
#include "mm/slab_record.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace accelmm::mm {

/// Objects of one class that a slot was told are free (Slab::Bulk::trusted): their offsets, a stack.
/// By their marks they are live, so that nobody else can have them.
///
/// As in a magazine (slab_magazine.hpp), the header {version, depth} changes with every step and
/// tells what was read from what has changed since; who empties the slot puts a mark in its place.
template <class Sections>
struct alignas(cache_line) SlabStackOf {
  using Word = typename Sections::Word;
  using Lock = typename Sections::Lock;
  static constexpr std::size_t capacity = Sections::stack_cells;
  static constexpr std::uint64_t depth_mask = 0xff;
  static constexpr std::uint64_t closed_depth = 0xff;
  static constexpr std::uint64_t version_step = 0x100;
  static_assert(capacity < closed_depth);

  Word header{0};
  alignas(16) std::array<Word, capacity> cells{};  // two at a time

  [[nodiscard]] static unsigned depth_of(std::uint64_t header) {
    return static_cast<unsigned>(header & depth_mask);
  }

  enum class Outcome { done, refused, lost };
  /// Puts `count` offsets on top. Refused if there is no room for all.
  [[nodiscard]] Outcome push(unsigned slot, Lock& lock, const std::uint64_t* offsets,
                             std::size_t count) {
    const std::uint64_t seen = header.load(std::memory_order_acquire);
    const unsigned depth = depth_of(seen);
    if (depth > capacity || count > capacity - depth) return Outcome::refused;  // or closed
    return Sections::push_many_if(slot, lock, header, seen, cells.data() + depth, offsets, count,
                                  seen + version_step + count)
               ? Outcome::done
               : Outcome::lost;
  }

  /// Takes `count` from the top. Refused if there are fewer.
  [[nodiscard]] Outcome pop(unsigned slot, Lock& lock, std::uint64_t* offsets, std::size_t count) {
    const std::uint64_t seen = header.load(std::memory_order_acquire);
    const unsigned depth = depth_of(seen);
    if (depth > capacity || count > depth) return Outcome::refused;
    // What lies below the depth changes only with the header.
    Sections::load_many(cells.data() + (depth - count), offsets, count);
    return Sections::store_if(slot, lock, header, seen, header, seen, seen + version_step - count)
               ? Outcome::done
               : Outcome::lost;
  }
};

}  // namespace accelmm::mm
