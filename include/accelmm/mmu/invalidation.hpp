// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/units.hpp>

#include <cstdint>
#include <limits>

namespace accelmm::mmu {

/// What a device must forget: every translation of `range`, and every table it read on the way
/// there.
struct Invalidation {
  std::uint32_t asid;
  Range<DeviceAddr> range;
  enum class Cause : std::uint8_t { map, unmap, close, move } cause;
};

/// The statement that a device holds nothing stale of a range any more: what tables and addresses
/// are released against.
///
/// Made only by the code that carried the invalidation out, after the device said so; everyone else
/// passes it on.
class InvalidationDone {
 public:
  /// Pre: the device has completed this invalidation.
  explicit constexpr InvalidationDone(const Invalidation& completed) : range_(completed.range) {}

  /// For tables that no device was ever shown: the root register never pointed at them.
  [[nodiscard]] static constexpr InvalidationDone never_shown() {
    return InvalidationDone({0,
                             {DeviceAddr(0), DeviceAddr(std::numeric_limits<std::uint64_t>::max())},
                             Invalidation::Cause::close});
  }

  [[nodiscard]] constexpr bool covers(Range<DeviceAddr> range) const {
    return range_.contains(range);
  }

 private:
  Range<DeviceAddr> range_;
};

}  // namespace accelmm::mmu
