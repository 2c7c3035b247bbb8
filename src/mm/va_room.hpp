// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "mm/va_pool.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

namespace accelmm::mm {

/// Addresses [begin, end).
struct VaInterval {
  std::uint64_t begin;
  std::uint64_t end;
};

/// How long a request can be that a stretch of free addresses serves: at any page, and at an
/// address aligned to the large page. By these two holes are sorted and searched.
struct Room {
  std::uint64_t whole = 0;
  std::uint64_t large = 0;

  bool operator==(const Room&) const = default;
  [[nodiscard]] bool covers(const Room& need) const {
    return whole >= need.whole && large >= need.large;
  }
  void raise(const Room& other) {
    whole = std::max(whole, other.whole);
    large = std::max(large, other.large);
  }
};

/// A stretch of free addresses, as the bins know it.
struct Hole {
  std::uint64_t begin;
  std::uint64_t end;
  struct Link {
    VaId previous;
    VaId next;
  };
  Link link[2];  // in the bins by Room::whole and in those by Room::large
};
static_assert(sizeof(Hole) == 32, "two to a cache line");
using HolePool = VaPool<Hole, 3>;

/// What a request asks for, in bytes, checked and rounded.
struct Wish {
  std::uint64_t length;
  std::uint64_t alignment;  // >= page
  std::uint64_t phase;      // < alignment
  std::uint64_t low;        // it must lie in [low, high)
  std::uint64_t high;
  bool from_the_top;

  [[nodiscard]] std::optional<std::uint64_t> place_in(VaInterval part) const {
    const std::uint64_t begin = std::max(part.begin, low);
    const std::uint64_t end = std::min(part.end, high);
    if (begin >= end || end - begin < length) return std::nullopt;
    const std::uint64_t spare = end - begin - length;
    if (from_the_top) {
      const std::uint64_t gap = (begin + spare - phase) & (alignment - 1);
      if (gap > spare) return std::nullopt;
      return begin + spare - gap;
    }
    const std::uint64_t gap = (phase - begin) & (alignment - 1);
    if (gap > spare) return std::nullopt;
    return begin + gap;
  }
};

/// Which addresses are given out only where a caller names them: the page at 0, and hint ranges.
///
/// A hole may reach into these closed ranges. Its open parts are what lies outside.
class OpenParts {
 public:
  static constexpr std::size_t max_closed = 9;  // page 0 and 8 hint ranges

  explicit OpenParts(std::uint64_t large) : large_(large) {}

  /// Pre: not empty, behind all that were closed before, and fewer than max_closed of them.
  void close(VaInterval interval) {
    ACCELMM_CHECK(count_ < max_closed && interval.begin < interval.end);
    ACCELMM_CHECK(count_ == 0 || closed_[count_ - 1].end <= interval.begin);
    closed_[count_++] = interval;
  }
  [[nodiscard]] std::uint64_t large() const { return large_; }

  /// Calls f for each open part of [begin, end), from the lowest up, until one call is true;
  /// returns whether one was.
  template <class F>
  bool any(std::uint64_t begin, std::uint64_t end, F f) const {
    if (count_ == 0 || end <= closed_[0].begin || closed_[count_ - 1].end <= begin)
      return f(VaInterval{begin, end});
    for (std::size_t i = 0; i < count_ && begin < end; ++i) {
      const VaInterval closed = closed_[i];
      if (closed.end <= begin) continue;
      if (begin < closed.begin && f(VaInterval{begin, std::min(end, closed.begin)})) return true;
      begin = closed.end;
    }
    return begin < end && f(VaInterval{begin, end});
  }

  [[nodiscard]] Room room_of(std::uint64_t begin, std::uint64_t end) const {
    Room room;
    any(begin, end, [&](VaInterval part) {
      const std::uint64_t skip = -part.begin & (large_ - 1);
      const std::uint64_t length = part.end - part.begin;
      room.raise({length, length > skip ? length - skip : 0});
      return false;
    });
    return room;
  }

  /// Where the wish would begin in these free addresses: at the lowest such place, or the highest.
  [[nodiscard]] std::optional<std::uint64_t> place(const Wish& wish, std::uint64_t begin,
                                                   std::uint64_t end) const {
    std::optional<std::uint64_t> found;
    any(begin, end, [&](VaInterval part) {
      if (const auto at = wish.place_in(part)) found = at;
      return found && !wish.from_the_top;
    });
    return found;
  }

 private:
  std::uint64_t large_;
  std::size_t count_ = 0;
  std::array<VaInterval, max_closed> closed_{};
};

}  // namespace accelmm::mm
