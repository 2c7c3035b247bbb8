// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/mmu/attributes.hpp>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>
#include <optional>

namespace accelmm::mmu::test {

/// What is mapped where, as disjoint intervals: knows nothing of tables, hops or leaves.
class IntervalModel {
 public:
  struct Interval {
    std::uint64_t end;
    std::uint64_t bus;  ///< of the first byte
    Attributes attributes;
  };
  struct Meaning {
    std::uint64_t bus;
    Attributes attributes;
    constexpr bool operator==(const Meaning&) const = default;
  };

  [[nodiscard]] std::optional<Meaning> at(std::uint64_t va) const {
    const auto after = intervals_.upper_bound(va);
    if (after == intervals_.begin()) return std::nullopt;
    const auto& [begin, interval] = *std::prev(after);
    if (va >= interval.end) return std::nullopt;
    return Meaning{interval.bus + (va - begin), interval.attributes};
  }

  /// Bytes of [begin, end) that are mapped.
  [[nodiscard]] std::uint64_t mapped(std::uint64_t begin, std::uint64_t end) const {
    std::uint64_t sum = 0;
    for (const auto& [from, interval] : intervals_) {
      const std::uint64_t low = std::max(from, begin);
      const std::uint64_t high = std::min(interval.end, end);
      if (low < high) sum += high - low;
    }
    return sum;
  }

  void insert(std::uint64_t begin, std::uint64_t length, std::uint64_t bus, Attributes attributes) {
    intervals_[begin] = {begin + length, bus, attributes};
  }

  void erase(std::uint64_t begin, std::uint64_t end) {
    cut(begin);
    cut(end);
    intervals_.erase(intervals_.lower_bound(begin), intervals_.lower_bound(end));
  }

  void protect(std::uint64_t begin, std::uint64_t end, Attributes attributes) {
    cut(begin);
    cut(end);
    for (auto at = intervals_.lower_bound(begin); at != intervals_.lower_bound(end); ++at)
      at->second.attributes = attributes;
  }

  [[nodiscard]] const std::map<std::uint64_t, Interval>& intervals() const { return intervals_; }

 private:
  void cut(std::uint64_t at) {
    auto after = intervals_.upper_bound(at);
    if (after == intervals_.begin()) return;
    auto& [begin, interval] = *std::prev(after);
    if (begin == at || at >= interval.end) return;
    intervals_[at] = {interval.end, interval.bus + (at - begin), interval.attributes};
    interval.end = at;
  }

  std::map<std::uint64_t, Interval> intervals_;
};

}  // namespace accelmm::mmu::test
