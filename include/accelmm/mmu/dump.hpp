// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/mmu/address_space.hpp>
#include <accelmm/mmu/attributes.hpp>
#include <accelmm/units.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace accelmm::mmu {

/// Leaves side by side that say the same: each goes on where the one before it ends on the bus, or
/// each maps the same memory.
struct MappedStretch {
  enum class Memory : std::uint8_t { continuous, repeated };

  Range<DeviceAddr> range;
  BusAddr address;
  Memory memory;
  Attributes attributes;
  std::uint64_t leaf_sizes;  ///< a set
  bool operator==(const MappedStretch&) const = default;
};

/// What is mapped in a range, as few stretches as can say it, in ascending order: whole leaves.
/// May throw bad_alloc.
[[nodiscard]] std::vector<MappedStretch> stretches(const AddressSpace& space,
                                                   Range<DeviceAddr> range);

/// The same for people, one line each:
/// `0x1000..0x3000 -> 0x8000..0xa000 read-write write-back 4K`.
[[nodiscard]] std::string dump(const AddressSpace& space, Range<DeviceAddr> range);

}  // namespace accelmm::mmu
