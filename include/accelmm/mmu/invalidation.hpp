// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/units.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>

namespace accelmm::mmu {

/// Which entries of a tree a change touched: hardware that can forgets no more than these.
///
/// What nobody knows better is everything: a default one stands for any change.
struct Touched {
  /// Whether tables left the tree: if none did, what is cached of links is still right.
  enum class Tables : std::uint8_t { kept, freed };

  std::uint64_t leaf_sizes = ~std::uint64_t{0};  ///< a set: bit n stands for leaves of 2^n bytes
  unsigned first_hop = 0;  ///< the hop nearest the root at which an entry changed
  Tables tables = Tables::freed;

  constexpr bool operator==(const Touched&) const = default;
  constexpr void add(const Touched& other) {
    leaf_sizes |= other.leaf_sizes;
    first_hop = std::min(first_hop, other.first_hop);
    tables = std::max(tables, other.tables);
  }
};

/// A few disjoint ranges in ascending order, none of which touches the next.
class InvalidationRanges {
 public:
  static constexpr std::size_t most = 8;  ///< more than any device in sight takes at once

  [[nodiscard]] constexpr std::span<const Range<DeviceAddr>> all() const {
    return std::span(ranges_).first(count_);
  }
  [[nodiscard]] constexpr bool empty() const { return count_ == 0; }
  /// Pre: not empty.
  [[nodiscard]] constexpr Range<DeviceAddr> hull() const {
    return {ranges_[0].begin, ranges_[count_ - 1].end};
  }
  [[nodiscard]] constexpr bool covers(Range<DeviceAddr> range) const {
    return std::ranges::any_of(all(), [&](const auto& one) { return one.contains(range); });
  }
  /// Adds a range, joined with those that it touches. Answers no, and adds nothing, where that makes
  /// more than `limit` ranges. Pre: limit <= most.
  [[nodiscard]] constexpr bool add(Range<DeviceAddr> range, std::size_t limit) {
    std::size_t first = 0;
    while (first < count_ && ranges_[first].end < range.begin) ++first;
    std::size_t last = first;  // behind those that it touches
    for (; last < count_ && ranges_[last].begin <= range.end; ++last) {
      range.begin = std::min(range.begin, ranges_[last].begin);
      range.end = std::max(range.end, ranges_[last].end);
    }
    if (first == last) {
      if (count_ >= limit) return false;
      for (std::size_t i = count_; i > first; --i) ranges_[i] = ranges_[i - 1];
      ++count_;
    } else {
      for (std::size_t i = last; i < count_; ++i) ranges_[first + 1 + (i - last)] = ranges_[i];
      count_ -= last - first - 1;
    }
    ranges_[first] = range;
    return true;
  }
  constexpr void clear() { count_ = 0; }

 private:
  std::array<Range<DeviceAddr>, most> ranges_{};
  std::size_t count_ = 0;
};

/// What a device must forget: every translation of its ranges, and every table it read on the way
/// there.
///
/// A driver may take `range` alone, which covers all the rest, and ignore what its hardware has no
/// use for.
struct Invalidation {
  std::uint32_t asid;
  Range<DeviceAddr> range;  ///< from the first to the last
  enum class Cause : std::uint8_t { map, protect, move, unmap, close } cause;
  Touched touched = {};
  InvalidationRanges pieces = {};  ///< what of `range` is meant; empty: all of it

  [[nodiscard]] constexpr std::span<const Range<DeviceAddr>> ranges() const {
    return pieces.empty() ? std::span(&range, 1) : pieces.all();
  }
};

/// What a device can be told to forget, and what it remembers.
struct InvalidationPolicy {
  /// Whether a device remembers that an address was not mapped, so that a map needs one too.
  enum class NegativeEntries : std::uint8_t { not_cached, cached };
  /// What is asked for where there are more ranges than a device takes.
  enum class Beyond : std::uint8_t { hull, everything };

  NegativeEntries negative_entries = NegativeEntries::not_cached;
  std::size_t most_ranges =
      InvalidationRanges::most;  ///< at once; 0: the device forgets all or nothing
  Alignment granularity{1};      ///< ranges grow to multiples of it
  Beyond beyond = Beyond::hull;
};

/// The statement that a device holds nothing stale of some ranges any more: what tables and
/// addresses are released against.
///
/// Made only by the code that carried the invalidation out, after the device said so; everyone else
/// passes it on.
class InvalidationDone {
 public:
  /// Pre: the device has completed this invalidation.
  explicit constexpr InvalidationDone(const Invalidation& completed)
      : asid_(completed.asid), range_(completed.range), pieces_(completed.pieces) {}

  /// For tables that no device was ever shown: the root register never pointed at them.
  [[nodiscard]] static constexpr InvalidationDone never_shown() {
    InvalidationDone done({0,
                           {DeviceAddr(0), DeviceAddr(std::numeric_limits<std::uint64_t>::max())},
                           Invalidation::Cause::close});
    done.asid_.reset();
    return done;
  }

  [[nodiscard]] constexpr bool covers(Range<DeviceAddr> range) const {
    return pieces_.empty() ? range_.contains(range) : pieces_.covers(range);
  }
  /// Whether it was for this address space.
  [[nodiscard]] constexpr bool is_for(std::uint32_t asid) const { return !asid_ || *asid_ == asid; }

 private:
  std::optional<std::uint32_t> asid_;  // none: for whichever
  Range<DeviceAddr> range_;
  InvalidationRanges pieces_;
};

}  // namespace accelmm::mmu
