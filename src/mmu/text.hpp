// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/access.hpp>
#include <accelmm/mmu/attributes.hpp>
#include <accelmm/units.hpp>

#include <array>
#include <charconv>
#include <cstdint>
#include <string>

namespace accelmm::mmu {

// Addresses and attributes as people read them.

[[nodiscard]] inline std::string hex(std::uint64_t value) {
  std::array<char, 16> digits;
  const auto end = std::to_chars(digits.begin(), digits.end(), value, 16);
  std::string text("0x");  // appended to: g++ 12 warns falsely where something is put before
  text.append(digits.data(), end.ptr);
  return text;
}

template <class Addr>
[[nodiscard]] std::string text_of(Range<Addr> range) {
  return hex(range.begin.value()) + ".." + hex(range.end.value());
}

[[nodiscard]] inline const char* name_of(Access access) {
  switch (access) {
    case Access::read:
      return "read";
    case Access::write:
      return "write";
    case Access::read_write:
      return "read-write";
  }
  return "?";
}

[[nodiscard]] inline const char* name_of(MemoryType type) {
  switch (type) {
    case MemoryType::write_back:
      return "write-back";
    case MemoryType::write_combined:
      return "write-combined";
    case MemoryType::device:
      return "device";
  }
  return "?";
}

}  // namespace accelmm::mmu
