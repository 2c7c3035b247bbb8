// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

namespace accelmm::mmu::test {

/// The bytes of one fuzz input, from first to last; zeros after them.
class Input {
 public:
  explicit Input(std::span<const std::uint8_t> bytes) : bytes_(bytes) {}
  [[nodiscard]] bool empty() const { return bytes_.empty(); }
  std::uint64_t byte() {
    if (bytes_.empty()) return 0;
    const std::uint8_t first = bytes_.front();
    bytes_ = bytes_.subspan(1);
    return first;
  }
  std::uint64_t pair() {
    const std::uint64_t low = byte();
    return low | byte() << 8;
  }

 private:
  std::span<const std::uint8_t> bytes_;
};

}  // namespace accelmm::mmu::test
