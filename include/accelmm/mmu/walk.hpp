// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/mmu/attributes.hpp>
#include <accelmm/mmu/format.hpp>
#include <accelmm/units.hpp>

#include <array>
#include <cstdint>
#include <span>

namespace accelmm::mmu {

/// What a device address means: the bus address behind it and the leaf that says so.
struct Translation {
  BusAddr address;
  Attributes attributes;
  ByteCount leaf_size;
  ByteCount remaining;  ///< bytes from the address to the end of its leaf
  constexpr bool operator==(const Translation&) const = default;
};

/// One leaf of a tree: a whole group where its format has groups.
struct Leaf {
  DeviceAddr va;
  BusAddr address;
  ByteCount size;
  Attributes attributes;
  constexpr bool operator==(const Leaf&) const = default;
};

/// One table that a walk passed: where it lies, which entry was read there, and what that held.
struct WalkStep {
  unsigned hop;
  BusAddr table;
  std::uint32_t index;
  std::uint64_t entry;
  EntryKind kind;
};

/// The way from the root to a device address, for fault reports and for people. Ends at the first
/// entry that is no link; a dual entry has two words, and what lies behind each.
class Walk {
 public:
  [[nodiscard]] std::span<const WalkStep> steps() const { return std::span(steps_).first(count_); }
  void add(const WalkStep& step) { steps_[count_++] = step; }

 private:
  std::array<WalkStep, max_hops + 1> steps_{};
  unsigned count_ = 0;
};

}  // namespace accelmm::mmu
