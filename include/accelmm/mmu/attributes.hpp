// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/access.hpp>

#include <cstdint>

namespace accelmm::mmu {

/// How a device's accesses to a mapping are cached and ordered. What a format cannot say it refuses.
enum class MemoryType : std::uint8_t {
  write_back,      ///< ordinary cacheable memory
  write_combined,  ///< not cached, writes may be gathered
  device,          ///< not cached, each access as issued: registers
};

/// What a leaf says of a mapping besides its address.
struct Attributes {
  Access access = Access::read_write;
  MemoryType memory = MemoryType::write_back;

  constexpr Attributes() = default;
  // A mapping of ordinary memory is what nearly every caller wants.
  constexpr Attributes(Access wanted)  // NOLINT(google-explicit-constructor)
      : access(wanted) {}
  constexpr Attributes(Access wanted, MemoryType type) : access(wanted), memory(type) {}
  constexpr bool operator==(const Attributes&) const = default;
};

}  // namespace accelmm::mmu
