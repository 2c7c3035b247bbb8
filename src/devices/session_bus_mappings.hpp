// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "devices/region.hpp"

#include <accelmm/access.hpp>
#include <accelmm/account.hpp>
#include <accelmm/bus.hpp>
#include <accelmm/mmu/space_options.hpp>
#include <accelmm/timeline.hpp>
#include <accelmm/units.hpp>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

namespace accelmm::devices {

/// The mappings of a session on a device without an MMU of its own: its engines use the addresses
/// that the bus gives, behind the machine's IOMMU.
///
/// Where a bus has one address for an extent however often it is attached, so have its mappings; the
/// device reaches it until each of them was unmapped.
/// Threads   the loop's.
/// Lifetime  close() before it is destroyed (checked by the bus).
class SessionBusMappings {
 public:
  explicit SessionBusMappings(Bus& bus) : bus_(bus) {}
  SessionBusMappings(const SessionBusMappings&) = delete;
  SessionBusMappings& operator=(const SessionBusMappings&) = delete;

  struct Mapped {
    DeviceAddr address;
    std::uint64_t point;
  };
  /// `charge` is kept with the mapping. Hints are not followed.
  /// Errors  not_permitted: the memory is read-only.  not_supported: device memory; a fixed address,
  ///         since the bus chooses; memory to which the bus gives several addresses.
  ///         Those of Bus::attach().  State unchanged in all cases.
  [[nodiscard]] Result<Mapped> map(View view, mmu::Placement placement, Access access,
                                   Charge charge);
  /// The same of memory of this process, as it lies there.
  /// Errors  not_supported: a fixed address.  Those of Bus::attach_memory().
  [[nodiscard]] Result<Mapped> map_memory(std::span<std::byte> memory, mmu::Placement placement,
                                          Access access, Charge charge);
  /// Ends one of the mappings that begin at `start`: an access of the device is a fault of the IOMMU
  /// from then on.
  /// Errors  invalid_argument: none begins there.
  [[nodiscard]] Result<std::uint64_t> unmap(DeviceAddr start);
  /// Whether mappings with this access cover the range.
  [[nodiscard]] bool reaches(Range<DeviceAddr> range, Access access) const;
  /// Ends all of them.
  void close() noexcept;

  [[nodiscard]] Timeline& timeline() { return timeline_; }
  [[nodiscard]] std::size_t mappings() const { return mappings_.size(); }
  [[nodiscard]] ByteCount mapped_bytes() const { return mapped_; }

 private:
  struct Mapping {
    std::shared_ptr<Allocation> allocation;  // null: memory in place
    ByteCount length;
    Access access;
    Charge charge;
    std::vector<Run> attached = {};
  };
  // Several may begin at one address: the same extent, mapped more than once.
  using Mappings = std::multimap<DeviceAddr, Mapping>;
  template <class Attach>
  [[nodiscard]] Result<Mapped> add(Mapping mapping, mmu::Placement placement, Attach attach);
  [[nodiscard]] std::uint64_t next_reached_point();

  Bus& bus_;
  Mappings mappings_;
  ByteCount mapped_;
  Timeline timeline_;
};

}  // namespace accelmm::devices
