// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

namespace accelmm {

/// Where a PCI function sits: 0000:00:1f.3, as lspci -D and sysfs write it.
struct PciAddress {
  std::uint32_t domain = 0;  ///< some machines have more than 16 bits of them
  std::uint8_t bus = 0;
  std::uint8_t device = 0;    ///< 0 to 31
  std::uint8_t function = 0;  ///< 0 to 7

  constexpr auto operator<=>(const PciAddress&) const = default;

  /// Reads "0000:00:1f.3", or "00:1f.3" in domain 0.
  /// Errors  invalid_argument: it is none.
  [[nodiscard]] static Result<PciAddress> parse(std::string_view text);
  /// With the domain. Throws std::bad_alloc.
  [[nodiscard]] std::string to_string() const;
};

}  // namespace accelmm
