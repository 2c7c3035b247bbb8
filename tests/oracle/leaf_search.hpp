// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace accelmm::test {

/// Finds the size of a power of two that the leaf of a device address has.
///
/// Known is where the leaf begins on the bus, and perhaps where the address leads; then each size
/// that does not fit is out, and what is left is halved: if both sides of the middle of a block of
/// 2^n bytes around the address are in one leaf, it is at least as large as the block.
class LeafSearch {
 public:
  LeafSearch(std::uint64_t address, std::uint64_t leaf_bus, std::optional<std::uint64_t> bus,
             unsigned largest)
      : address_(address), leaf_bus_(leaf_bus) {
    for (unsigned power = 12; power <= largest; ++power) {
      const std::uint64_t offset_bits = (std::uint64_t{1} << power) - 1;
      if ((leaf_bus & offset_bits) != 0) break;
      if (!bus || leaf_bus + (address & offset_bits) == *bus) powers_.push_back(power);
    }
  }

  /// There is a size that fits.
  [[nodiscard]] bool possible() const { return !powers_.empty(); }
  [[nodiscard]] bool found() const { return powers_.size() == 1; }
  /// Pre  found()
  [[nodiscard]] std::uint64_t size() const { return std::uint64_t{1} << powers_.front(); }
  [[nodiscard]] std::uint64_t bus_address() const { return leaf_bus_ + (address_ & (size() - 1)); }

  [[nodiscard]] std::uint64_t leaf_bus() const { return leaf_bus_; }
  /// The last byte before the middle of the block that is to be asked for.
  [[nodiscard]] std::uint64_t before_middle() const {
    const std::uint64_t half = std::uint64_t{1} << (powers_[powers_.size() / 2] - 1);
    return (address_ / half / 2 * 2 + 1) * half - 1;
  }
  /// Takes in whether the bytes before and after the middle are in that one leaf.
  void learn(bool one_leaf) {
    const auto middle = powers_.begin() + static_cast<std::ptrdiff_t>(powers_.size() / 2);
    if (one_leaf)
      powers_.erase(powers_.begin(), middle);
    else
      powers_.erase(middle, powers_.end());
  }

 private:
  std::uint64_t address_;
  std::uint64_t leaf_bus_;
  std::vector<unsigned> powers_;  // ascending
};

}  // namespace accelmm::test
