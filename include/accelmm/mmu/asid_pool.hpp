// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/check.hpp>
#include <accelmm/error.hpp>
#include <accelmm/mmu/invalidation.hpp>
#include <accelmm/units.hpp>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace accelmm::mmu {

/// The address space numbers of one device, 1 to `count`.
///
/// A number is used again only after the device was invalidated for it, and never if the device may
/// hold something stale of it.
/// Owns      one byte a number.
/// Threads   externally synchronised.
/// Cost      O(count).
class AsidPool {
 public:
  /// `addresses` are all that an address space of this device can map. May throw bad_alloc.
  AsidPool(std::uint32_t count, Range<DeviceAddr> addresses)
      : addresses_(addresses), states_(count, State::free) {}

  /// Takes the lowest. Errors  busy: none is free.
  [[nodiscard]] Result<std::uint32_t> take() {
    const auto found = std::ranges::find(states_, State::free);
    if (found == states_.end()) return fail(Errc::busy, "device has no free address space");
    *found = State::taken;
    return static_cast<std::uint32_t>(found - states_.begin()) + 1;
  }
  [[nodiscard]] bool any_free() const {
    return std::ranges::find(states_, State::free) != states_.end();
  }

  /// Pre: the invalidation was for this number and all of its addresses (checked).
  void give_back(std::uint32_t asid, const InvalidationDone& done) {
    ACCELMM_CHECK(done.is_for(asid));
    ACCELMM_CHECK(done.covers(addresses_));
    taken(asid) = State::free;
  }
  /// The device could not be invalidated for this number: nobody gets it until reset().
  void taint(std::uint32_t asid) { taken(asid) = State::tainted; }

  /// The device was reset and remembers nothing: tainted numbers are free.
  void reset() { std::ranges::replace(states_, State::tainted, State::free); }

 private:
  enum class State : std::uint8_t { free, taken, tainted };

  [[nodiscard]] State& taken(std::uint32_t asid) {
    ACCELMM_CHECK(asid >= 1 && asid <= states_.size());
    State& state = states_[asid - 1];
    ACCELMM_CHECK(state == State::taken);
    return state;
  }

  Range<DeviceAddr> addresses_;
  std::vector<State> states_;
};

}  // namespace accelmm::mmu
