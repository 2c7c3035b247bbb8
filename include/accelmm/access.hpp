// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace accelmm {

/// What a device may do with a mapping. The values are a bit set: bit 0 read, bit 1 write.
enum class Access : std::uint8_t {
  read = 1,
  write = 2,
  read_write = 3,
};

/// Tells whether the value is one of the enumerators (it may have come from outside).
[[nodiscard]] constexpr bool is_valid(Access access) {
  return access == Access::read || access == Access::write || access == Access::read_write;
}

/// Tells whether everything in `wanted` is in `granted`.
[[nodiscard]] constexpr bool allows(Access granted, Access wanted) {
  const auto has = static_cast<std::uint8_t>(granted);
  const auto needs = static_cast<std::uint8_t>(wanted);
  return (has & needs) == needs;
}

}  // namespace accelmm
