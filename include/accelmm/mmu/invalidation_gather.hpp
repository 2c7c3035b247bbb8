// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/mmu/address_space.hpp>
#include <accelmm/mmu/invalidation.hpp>
#include <accelmm/mmu/unmapped.hpp>
#include <accelmm/units.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>

namespace accelmm::mmu {

/// Many changes of one address space, for one invalidation: what must be forgotten, and what is
/// given back once it is.
///
/// Changes are hard (something was there before) or soft (addresses became mapped that were not):
/// soft ones count only for a device that caches negative entries.
/// Lifetime  move-only; must be released (checked) if it carries anything, before its address space
///           is destroyed.
/// Threads   externally synchronised.
/// Cost      O(ranges of the policy) a change; never allocates.
class [[nodiscard]] InvalidationGather {
 public:
  InvalidationGather(std::uint32_t asid, const InvalidationPolicy& policy);

  /// Carries what an unmap took away. Pre: all of one address space (checked).
  void add(Unmapped&& gone);
  /// Notes a range whose leaves changed in place.
  void add(const Changed& changed);
  /// Notes a range that became mapped.
  void add(const MappedRange& mapped);
  /// Notes and carries both.
  void add(Replaced&& replaced);

  /// Whether the device has something to forget. If not, what is carried waits for nothing.
  [[nodiscard]] bool is_needed() const { return !ranges_.empty(); }
  /// Changes that count since it was made.
  [[nodiscard]] std::size_t changes() const { return changes_; }
  [[nodiscard]] bool carries() const { return carried_.has_value(); }

  /// All that the device must forget, at once. Pre: is_needed() (checked).
  [[nodiscard]] Invalidation invalidation() const;

  /// Gives back all that is carried. Cannot fail; never allocates.
  /// Pre: the invalidation covers each range (checked).
  void release(InvalidationDone done) &&;

 private:
  void note(Range<DeviceAddr> range, const Touched& touched, Invalidation::Cause cause);

  std::uint32_t asid_;
  InvalidationPolicy policy_;
  InvalidationRanges ranges_;
  Touched touched_{0, ~0U, Touched::Tables::kept};
  Invalidation::Cause cause_ = Invalidation::Cause::map;
  std::size_t changes_ = 0;
  std::optional<Unmapped> carried_;
};

}  // namespace accelmm::mmu
