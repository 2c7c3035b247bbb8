// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/units.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace accelmm::mm {

/// The offsets of neighbours, one after the other, two at a time: a compiler that is told so has
/// one instruction for both, and does not find it by itself.
class SlabRun {
 public:
  SlabRun(std::uint64_t first, std::uint64_t size)
      : next_{first, first + size}, step_{2 * size, 2 * size} {}

  /// Writes the next two.
  void write(RegionOffset* at) {
    std::memcpy(static_cast<void*>(at), &next_, sizeof next_);
    next_ += step_;
  }
  /// Whether any of the eight at `at` is not what the next eight are.
  [[nodiscard]] bool differs(const RegionOffset* at) {
    Two any{};
    for (std::size_t i = 0; i < 8; i += 2) {
      Two two;
      std::memcpy(&two, at + i, sizeof two);
      any |= two ^ next_;
      next_ += step_;
    }
    return (any[0] | any[1]) != 0;
  }

 private:
  using Two = std::uint64_t __attribute__((vector_size(16)));
  static_assert(sizeof(RegionOffset) == sizeof(std::uint64_t));

  Two next_;
  Two step_;
};

}  // namespace accelmm::mm
