// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <iterator>
#include <map>
#include <string_view>

namespace accelmm::test {

/// Ranges of addresses that do not overlap.
class AddressRanges {
 public:
  void add(std::uint64_t start, std::uint64_t length) { lengths_[start] = length; }
  [[nodiscard]] bool contains(std::uint64_t address) const {
    const auto after = lengths_.upper_bound(address);
    if (after == lengths_.begin()) return false;
    const auto& [start, length] = *std::prev(after);
    return address - start < length;
  }

 private:
  std::map<std::uint64_t, std::uint64_t> lengths_;
};

/// Hands each line of a text to `use`, without its end.
template <class Use>
void for_each_line(std::string_view text, Use use) {
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    use(line);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
}

}  // namespace accelmm::test
