// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/access.hpp>
#include <accelmm/mmu/attributes.hpp>
#include <accelmm/mmu/walk.hpp>
#include <accelmm/units.hpp>

#include <cstdint>
#include <optional>
#include <string>

namespace accelmm::mmu {

/// An access that a device could not do, as it tells it.
struct FaultedAccess {
  std::uint32_t asid;
  DeviceAddr address;
  Access access;
};

/// What stands behind an access that faulted: the entries that the device read on its way, and what
/// the books say of the address, both as they are now.
struct FaultReport {
  enum class Covered : std::uint8_t {
    nothing,      ///< nobody has these addresses
    mapping,      ///< mapped: the access was not allowed, or the fault is stale
    null,         ///< mapped to the default page
    cover,        ///< nobody has them, and stray accesses go to the default page
    reservation,  ///< set aside, not mapped
    unmapped,     ///< unmapped, and not invalidated yet
    outside,      ///< no address of this space
  };

  FaultedAccess fault;
  Walk walk;
  Covered covered = Covered::nothing;
  std::optional<Range<DeviceAddr>> range;  ///< of what covers it
  Attributes attributes;                   ///< of a mapping

  /// Several lines for people: the access, what covers it, one line for each entry.
  /// May throw bad_alloc.
  [[nodiscard]] std::string text() const;
};

}  // namespace accelmm::mmu
