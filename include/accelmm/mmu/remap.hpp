// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/extent.hpp>
#include <accelmm/mmu/attributes.hpp>
#include <accelmm/mmu/table_memory.hpp>
#include <accelmm/mmu/unmapped.hpp>
#include <accelmm/units.hpp>

#include <utility>
#include <vector>

namespace accelmm::mmu {

class AddressSpace;

/// A mapping that can be made to lead elsewhere: all that this needs is taken.
///
/// Lifetime  move-only; dropping it changes nothing. Its mapping must live until then, and no other
///           Remap of it may be made.
/// Threads   one at a time.
class Remap {
 public:
  Remap(Remap&& other) noexcept
      : space_(std::exchange(other.space_, nullptr)),
        range_(other.range_),
        attributes_(other.attributes_),
        runs_(std::move(other.runs_)),
        room_(std::move(other.room_)) {}
  Remap& operator=(Remap&&) = delete;
  Remap(const Remap&) = delete;
  Remap& operator=(const Remap&) = delete;
  ~Remap();

  /// What must be invalidated once it was applied.
  [[nodiscard]] Range<DeviceAddr> range() const { return range_; }
  /// Writes the new leaves. Cannot fail; never allocates. A device that uses the range meanwhile
  /// finds the old leaf, the new one, or none.
  [[nodiscard]] Unmapped apply() &&;

 private:
  friend class AddressSpace;
  Remap(AddressSpace& space, Range<DeviceAddr> range, Attributes attributes, std::vector<Run> runs)
      : space_(&space), range_(range), attributes_(attributes), runs_(std::move(runs)) {}

  AddressSpace* space_;
  Range<DeviceAddr> range_;
  Attributes attributes_;
  std::vector<Run> runs_;
  TableList room_;
};

}  // namespace accelmm::mmu
