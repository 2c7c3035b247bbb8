// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "property/mm/checkpoints.hpp"

#include <accelmm/check.hpp>
#include <accelmm/page_allocator.hpp>

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

namespace accelmm::test {

/// A page allocator beside a naive model of it, one byte a page, that judges each of its answers.
///
/// Each operation returns whether it succeeded; an answer that the model does not allow aborts, and
/// so does a broken invariant: validate() runs after every operation, or at checkpoints.
class JudgedPages {
 public:
  explicit JudgedPages(std::uint64_t page_count, std::uint64_t page = 4096,
                       Checkpoints checkpoints = {})
      : page_bytes_(page),
        allocator_(
            PageAllocator::create(
                {.size = bytes(page_count), .page = ByteCount(page), .contents = Contents::zeros})
                .value()),
        taken_(page_count, 0),
        dirty_(page_count, 0),
        checkpoints_(checkpoints) {}

  [[nodiscard]] std::uint64_t page_count() const { return taken_.size(); }
  [[nodiscard]] std::uint64_t free_pages() const { return free_; }

  /// Pre: count > 0.
  bool allocate(std::uint64_t count, unsigned align_order) {
    const Alignment alignment = alignment_of(align_order);
    // A length that is no multiple of the page must round up.
    const auto extent = allocator_.allocate(ByteCount(count * page_bytes_ - 1), alignment);
    const bool possible = has_place(count, std::uint64_t{1} << align_order);
    ACCELMM_CHECK(extent.has_value() == possible);
    if (extent) {
      ACCELMM_CHECK(alignment.divides(extent->offset));
      ACCELMM_CHECK(extent->length == bytes(count));
      take(*extent);
    } else {
      ACCELMM_CHECK(extent.error().code == Errc::no_memory);
    }
    judge_state();
    return extent.has_value();
  }

  /// Pages that are known to hold zeros if there are, at any place.
  bool allocate_clean(std::uint64_t count, unsigned align_order) {
    const auto extent = allocator_.allocate({.size = bytes(count),
                                             .alignment = alignment_of(align_order),
                                             .contents = Contents::zeros});
    ACCELMM_CHECK(extent.has_value() == has_place(count, std::uint64_t{1} << align_order));
    if (extent) {
      ACCELMM_CHECK(alignment_of(align_order).divides(extent->offset));
      ACCELMM_CHECK(extent->length == bytes(count));
      take(*extent);
    }
    judge_state();
    return extent.has_value();
  }

  /// What is counted anew must agree with what was counted all along.
  void recount() {
    ACCELMM_CHECK(allocator_.recount() == 0);
    judge_state();
  }

  /// Inside [begin, end), at the end that `placement` says, of any lifetime.
  bool allocate_within(std::uint64_t count, unsigned align_order, std::uint64_t begin,
                       std::uint64_t end, Placement placement, Lifetime lifetime) {
    const Alignment alignment = alignment_of(align_order);
    const Range<RegionOffset> within{RegionOffset(begin * page_bytes_),
                                     RegionOffset(end * page_bytes_)};
    const auto extent = allocator_.allocate({.size = bytes(count),
                                             .alignment = alignment,
                                             .lifetime = lifetime,
                                             .placement = placement,
                                             .within = within});
    ACCELMM_CHECK(extent.has_value() ==
                  has_place(count, std::uint64_t{1} << align_order, begin, end));
    if (extent) {
      ACCELMM_CHECK(alignment.divides(extent->offset));
      ACCELMM_CHECK(within.begin <= extent->offset && extent->end() <= within.end);
      take(*extent);
    }
    judge_state();
    return extent.has_value();
  }

  bool allocate_scattered(std::uint64_t count) {
    const auto extents = allocator_.allocate_scattered(bytes(count));
    ACCELMM_CHECK(extents.has_value() == (count <= free_));
    if (extents) {
      std::uint64_t total = 0;
      for (const Extent& extent : *extents) {
        take(extent);
        total += extent.length.value() / page_bytes_;
      }
      ACCELMM_CHECK(total == count);
      judge_list(*extents);
    }
    judge_state();
    return extents.has_value();
  }

  /// Frees [begin, begin + count), which need not be allocated nor inside the region.
  bool free(std::uint64_t begin, std::uint64_t count, Contents contents = Contents::unknown) {
    const bool allowed = all(begin, count, 1);
    const auto freed = allocator_.free(extent(begin, count), contents);
    if (freed)
      std::fill_n(dirty_.begin() + static_cast<std::ptrdiff_t>(begin), count,
                  contents == Contents::zeros ? 0 : 1);
    ACCELMM_CHECK(freed.has_value() == allowed);
    if (freed) fill(begin, count, 0);
    if (!freed) ACCELMM_CHECK(freed.error().code == Errc::invalid_argument);
    judge_state();
    return allowed;
  }

  bool reserve(std::uint64_t begin, std::uint64_t count) {
    const bool allowed = all(begin, count, 0);
    const auto reserved = allocator_.reserve(extent(begin, count));
    ACCELMM_CHECK(reserved.has_value() == allowed);
    if (reserved) fill(begin, count, 1);
    judge_state();
    return allowed;
  }

  /// The run of allocated pages that begins at or behind `page`, at most `limit` of it: {begin,
  /// count}.
  [[nodiscard]] std::pair<std::uint64_t, std::uint64_t> taken_run(std::uint64_t page,
                                                                  std::uint64_t limit) const {
    return run_of(1, page, limit);
  }
  [[nodiscard]] std::pair<std::uint64_t, std::uint64_t> free_run(std::uint64_t page,
                                                                 std::uint64_t limit) const {
    return run_of(0, page, limit);
  }

  /// Frees all that is taken: the region must be whole again.
  void free_everything() {
    for (;;) {
      const auto [begin, count] = taken_run(0, page_count());
      if (count == 0) break;
      ACCELMM_CHECK(free(begin, count));
    }
    ACCELMM_CHECK(allocator_.statistics().largest_free == bytes(page_count()));
  }

 private:
  const std::uint64_t page_bytes_;

  [[nodiscard]] ByteCount bytes(std::uint64_t count) const {
    return ByteCount(count * page_bytes_);
  }
  /// What every 2^align_order pages divide, however odd a page is.
  [[nodiscard]] Alignment alignment_of(unsigned align_order) const {
    return Alignment((page_bytes_ & (~page_bytes_ + 1)) << align_order);
  }
  [[nodiscard]] Extent extent(std::uint64_t begin, std::uint64_t count) const {
    return {RegionOffset(begin * page_bytes_), bytes(count)};
  }

  [[nodiscard]] bool all(std::uint64_t begin, std::uint64_t count, std::uint8_t state) const {
    if (count == 0 || begin >= page_count() || count > page_count() - begin) return false;
    for (std::uint64_t page = begin; page < begin + count; ++page)
      if (taken_[page] != state) return false;
    return true;
  }

  void fill(std::uint64_t begin, std::uint64_t count, std::uint8_t state) {
    std::fill_n(taken_.begin() + static_cast<std::ptrdiff_t>(begin), count, state);
    if (state == 0) free_ += count;
    if (state == 1) free_ -= count;
  }

  void take(const Extent& got) {
    const std::uint64_t begin = got.offset.value() / page_bytes_;
    const std::uint64_t count = got.length.value() / page_bytes_;
    ACCELMM_CHECK(got == extent(begin, count));
    ACCELMM_CHECK(all(begin, count, 0));
    fill(begin, count, 1);
    judge_zeros(got);
  }

  /// What is said to be zero was never handed out, or came back as zeros. What is not may be zero.
  void judge_zeros(Extent rest) const {
    while (rest.length > ByteCount(0)) {
      const Extent dirty = allocator_.first_dirty(rest).value();
      const std::uint64_t clean_end =
          (dirty.length > ByteCount(0) ? dirty.offset : rest.end()).value() / page_bytes_;
      for (std::uint64_t page = rest.offset.value() / page_bytes_; page < clean_end; ++page)
        ACCELMM_CHECK(dirty_[page] == 0);
      if (dirty.length == ByteCount(0)) return;
      rest = {dirty.end(), rest.end() - dirty.end()};
    }
  }

  [[nodiscard]] bool has_place(std::uint64_t count, std::uint64_t alignment) const {
    return has_place(count, alignment, 0, page_count());
  }
  [[nodiscard]] bool has_place(std::uint64_t count, std::uint64_t alignment, std::uint64_t first,
                               std::uint64_t last) const {
    std::uint64_t clear = 0;  // free pages right before `end`
    for (std::uint64_t end = first + 1; end <= last; ++end) {
      clear = taken_[end - 1] == 0 ? clear + 1 : 0;
      if (clear < count) continue;
      const std::uint64_t lowest = end - clear;
      if ((lowest + alignment - 1) / alignment * alignment <= end - count) return true;
    }
    return false;
  }

  /// Longest first, and no two of the list touch.
  static void judge_list(const std::vector<Extent>& extents) {
    for (std::size_t i = 0; i < extents.size(); ++i) {
      ACCELMM_CHECK(i == 0 || extents[i].length <= extents[i - 1].length);
      for (std::size_t j = 0; j < extents.size(); ++j)
        ACCELMM_CHECK(extents[i].end() != extents[j].offset);
    }
  }

  [[nodiscard]] std::pair<std::uint64_t, std::uint64_t> run_of(std::uint8_t state,
                                                               std::uint64_t page,
                                                               std::uint64_t limit) const {
    while (page < page_count() && taken_[page] != state) ++page;
    std::uint64_t count = 0;
    while (count < limit && page + count < page_count() && taken_[page + count] == state) ++count;
    return {page, count};
  }

  [[nodiscard]] std::uint64_t longest_free() const {
    std::uint64_t longest = 0;
    std::uint64_t clear = 0;
    for (const std::uint8_t state : taken_) {
      clear = state == 0 ? clear + 1 : 0;
      longest = std::max(longest, clear);
    }
    return longest;
  }

  void judge_state() {
    if (!checkpoints_.due()) return;
    const auto statistics = allocator_.statistics();
    ACCELMM_CHECK(statistics.free == bytes(free_));
    ACCELMM_CHECK(statistics.largest_free == bytes(longest_free()));
    allocator_.validate();
  }

  PageAllocator allocator_;
  std::vector<std::uint8_t> taken_;  // 1: allocated
  std::vector<std::uint8_t> dirty_;  // 1: handed out, and not freed as zeros since
  std::uint64_t free_ = taken_.size();
  Checkpoints checkpoints_;
};

}  // namespace accelmm::test
