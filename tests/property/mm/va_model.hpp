// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/check.hpp>
#include <accelmm/va_allocator.hpp>

#include <cstdint>
#include <iterator>
#include <map>

namespace accelmm::test {

/// A VA allocator beside a naive model of it, a std::map of taken intervals, that judges each of its
/// answers. Addresses and lengths are in pages of 4 KiB.
///
/// Each operation returns whether it succeeded; an answer that the model does not allow aborts, and so
/// does a broken invariant: validate() runs after every operation.
class JudgedIntervals {
 public:
  JudgedIntervals(std::uint64_t begin, std::uint64_t end)
      : begin_(begin),
        end_(end),
        allocator_(VaAllocator::create(range(begin, end), page).value()) {}

  [[nodiscard]] std::uint64_t taken_pages() const { return taken_pages_; }
  [[nodiscard]] std::uint64_t begin() const { return begin_; }
  [[nodiscard]] std::uint64_t end() const { return end_; }

  /// Pre: count > 0; phase < alignment, a power of two.
  bool allocate(std::uint64_t count, std::uint64_t alignment, std::uint64_t phase) {
    const auto got =
        allocator_.allocate(ByteCount(count * page_bytes - 1), Alignment(alignment * page_bytes),
                            ByteCount(phase * page_bytes));
    ACCELMM_CHECK(got.has_value() == has_place(count, alignment, phase));
    if (got) {
      const std::uint64_t first = got->begin.value() / page_bytes;
      ACCELMM_CHECK(*got == range(first, first + count));
      ACCELMM_CHECK(first != 0 && first % alignment == phase);
      take(first, count);
    } else {
      ACCELMM_CHECK(got.error().code == Errc::no_memory);
    }
    judge_state();
    return got.has_value();
  }

  /// The interval may be empty, taken, or outside.
  bool allocate_at(std::uint64_t first, std::uint64_t count) {
    const bool inside = count > 0 && begin_ <= first && first + count <= end_;
    const auto got = allocator_.allocate_at(range(first, first + count));
    ACCELMM_CHECK(got.has_value() == (inside && is_free(first, count)));
    if (got) {
      ACCELMM_CHECK(*got == range(first, first + count));
      take(first, count);
    } else {
      const auto expected = inside ? Errc::address_in_use : Errc::invalid_argument;
      ACCELMM_CHECK(got.error().code == expected);
    }
    judge_state();
    return got.has_value();
  }

  bool free(std::uint64_t first) {
    const auto interval = taken_.find(first);
    const auto freed = allocator_.free(DeviceAddr(first * page_bytes));
    ACCELMM_CHECK(freed.has_value() == (interval != taken_.end()));
    if (freed) {
      taken_pages_ -= interval->second;
      taken_.erase(interval);
    } else {
      ACCELMM_CHECK(freed.error().code == Errc::invalid_argument);
    }
    judge_state();
    return freed.has_value();
  }

  /// Where a taken interval begins: the first at or behind a page, else the lowest, else that page.
  [[nodiscard]] std::uint64_t taken_from(std::uint64_t at) const {
    if (taken_.empty()) return at;
    const auto found = taken_.lower_bound(at);
    return found == taken_.end() ? taken_.begin()->first : found->first;
  }

  /// Frees all that is taken: one hole must be left.
  void free_everything() {
    while (!taken_.empty()) ACCELMM_CHECK(free(taken_.begin()->first));
    ACCELMM_CHECK(allocator_.holes() == 1);
  }

 private:
  static constexpr std::uint64_t page_bytes = 4096;
  static constexpr Alignment page{page_bytes};

  static Range<DeviceAddr> range(std::uint64_t first, std::uint64_t last) {
    return {DeviceAddr(first * page_bytes), DeviceAddr(last * page_bytes)};
  }

  [[nodiscard]] bool is_free(std::uint64_t first, std::uint64_t count) const {
    const auto above = taken_.lower_bound(first);
    if (above != taken_.end() && above->first < first + count) return false;
    if (above == taken_.begin()) return true;
    const auto below = std::prev(above);
    return below->first + below->second <= first;
  }

  void take(std::uint64_t first, std::uint64_t count) {
    ACCELMM_CHECK(begin_ <= first && first + count <= end_);
    ACCELMM_CHECK(is_free(first, count));
    taken_.emplace(first, count);
    taken_pages_ += count;
  }

  /// Calls f(first, last) for each hole; returns whether one call was true.
  template <class F>
  bool any_hole(F f) const {
    std::uint64_t at = begin_;
    for (const auto& [first, count] : taken_) {
      if (at < first && f(at, first)) return true;
      at = first + count;
    }
    return at < end_ && f(at, end_);
  }

  [[nodiscard]] bool has_place(std::uint64_t count, std::uint64_t alignment,
                               std::uint64_t phase) const {
    return any_hole([&](std::uint64_t first, std::uint64_t last) {
      if (first == 0) first = 1;  // address 0 reads as null
      while (first < last && first % alignment != phase) ++first;
      return first + count <= last;
    });
  }

  void judge_state() const {
    std::size_t holes = 0;
    any_hole([&](std::uint64_t, std::uint64_t) {
      ++holes;
      return false;
    });
    ACCELMM_CHECK(allocator_.holes() == holes);
    ACCELMM_CHECK(allocator_.free_bytes().value() == (end_ - begin_ - taken_pages_) * page_bytes);
    allocator_.validate();
  }

  std::uint64_t begin_;
  std::uint64_t end_;
  VaAllocator allocator_;
  std::map<std::uint64_t, std::uint64_t> taken_;  // first page -> pages
  std::uint64_t taken_pages_ = 0;
};

}  // namespace accelmm::test
