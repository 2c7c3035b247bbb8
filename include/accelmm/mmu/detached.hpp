// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/check.hpp>
#include <accelmm/mmu/invalidation.hpp>
#include <accelmm/mmu/table_memory.hpp>
#include <accelmm/units.hpp>

#include <cstdint>
#include <utility>

namespace accelmm::mmu {

class AddressSpace;

/// Tables that an unmap took out of a tree, and the range they served.
///
/// A device may still hold links to them, so they are neither free nor in use until it was
/// invalidated: release() is the only way back, and asks for the proof.
/// Lifetime  move-only; destroying one that still holds tables aborts. Its memory must outlive it.
template <TableMemory Memory>
class [[nodiscard]] Detached {
 public:
  /// `first_hop` is the hop nearest the root at which an entry changed.
  Detached(Memory& memory, Range<DeviceAddr> range, TableList tables, unsigned first_hop)
      : memory_(&memory), range_(range), tables_(std::move(tables)), first_hop_(first_hop) {}

  [[nodiscard]] Range<DeviceAddr> range() const { return range_; }
  [[nodiscard]] std::uint32_t tables() const { return tables_.count; }
  [[nodiscard]] unsigned first_hop() const { return first_hop_; }

  /// Gives the tables back to their memory. Cannot fail; never allocates.
  /// Pre: the invalidation covers range() (checked).
  void release(InvalidationDone done) && {
    ACCELMM_CHECK(done.covers(range_));
    memory_->give_back(std::move(tables_));
  }

 private:
  friend class AddressSpace;  // which gathers the tables of several in one Unmapped

  Memory* memory_;
  Range<DeviceAddr> range_;
  TableList tables_;
  unsigned first_hop_;
};

}  // namespace accelmm::mmu
