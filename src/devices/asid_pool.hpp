// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/check.hpp>
#include <accelmm/error.hpp>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace accelmm::devices {

/// The address space numbers of one device, 1 to `count`. Give one back only after the device was
/// invalidated for it.
class AsidPool {
 public:
  explicit AsidPool(std::uint32_t count) : taken_(count, false) {}

  /// Errors  busy: all are taken.
  [[nodiscard]] Result<std::uint32_t> take() {
    for (std::uint32_t i = 0; i < taken_.size(); ++i) {
      if (taken_[i]) continue;
      taken_[i] = true;
      return i + 1;
    }
    return fail(Errc::busy, "device has no free address space");
  }
  [[nodiscard]] bool any_free() const { return std::ranges::find(taken_, false) != taken_.end(); }
  void give_back(std::uint32_t asid) {
    ACCELMM_CHECK(asid >= 1 && asid <= taken_.size() && taken_[asid - 1]);
    taken_[asid - 1] = false;
  }

 private:
  std::vector<bool> taken_;
};

}  // namespace accelmm::devices
