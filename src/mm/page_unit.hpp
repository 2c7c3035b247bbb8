// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstdint>

namespace accelmm::mm {

/// The page of a region, in bytes: between byte offsets and page numbers. Any number but 0; memory
/// parts have pages of 48 or 768 MiB.
class PageUnit {
 public:
  explicit constexpr PageUnit(std::uint64_t bytes)
      : bytes_(bytes), shift_(static_cast<unsigned>(std::countr_zero(bytes))) {}

  [[nodiscard]] constexpr std::uint64_t bytes() const { return bytes_; }
  [[nodiscard]] constexpr bool is_power_of_two() const { return bytes_ >> shift_ == 1; }
  /// log2 of the largest power of two that divides the page.
  [[nodiscard]] constexpr unsigned shift() const { return shift_; }

  /// Whole pages in so many bytes.
  [[nodiscard]] constexpr std::uint64_t whole(std::uint64_t bytes) const {
    return is_power_of_two() ? bytes >> shift_ : bytes / bytes_;
  }
  /// Pages that so many bytes touch.
  [[nodiscard]] constexpr std::uint64_t covering(std::uint64_t bytes) const {
    return whole(bytes) + (whole(bytes) * bytes_ == bytes ? 0 : 1);
  }
  [[nodiscard]] constexpr bool divides(std::uint64_t bytes) const {
    return whole(bytes) * bytes_ == bytes;
  }
  /// A page is at a multiple of 2^log2 bytes where its number is a multiple of 2^(this): the odd
  /// factor of the page has no part in it.
  [[nodiscard]] constexpr unsigned order_of_alignment(unsigned log2) const {
    return log2 > shift_ ? log2 - shift_ : 0;
  }

 private:
  std::uint64_t bytes_;
  unsigned shift_;
};

}  // namespace accelmm::mm
