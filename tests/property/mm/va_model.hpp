// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "property/mm/checkpoints.hpp"

#include <accelmm/check.hpp>
#include <accelmm/va_allocator.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

namespace accelmm::test {

/// A VA allocator beside a naive model of it, a std::map of intervals in use, that judges each of
/// its answers. Addresses and lengths are in pages of 4 KiB.
///
/// Each operation returns whether it succeeded; an answer that the model does not allow aborts, and
/// so does a broken invariant: validate() runs after every operation, where there are many
/// intervals after every 16th, or at checkpoints.
class JudgedIntervals {
 public:
  using Placement = VaAllocator::Placement;
  struct Span {
    std::uint64_t first;
    std::uint64_t last;  // not included
  };
  struct Setting {
    std::uint64_t large = 512;
    std::uint64_t guard = 0;
    std::vector<Span> hint_ranges{};
    std::size_t quarantine_ranges = 0;
    std::uint64_t quarantine_pages = 0;
    Checkpoints checkpoints{};
  };
  /// Pre: count > 0; phase < alignment, a power of two.
  struct Ask {
    std::uint64_t count;
    std::uint64_t alignment = 1;
    std::uint64_t phase = 0;
    std::uint64_t guard = 0;
    std::optional<Span> within{};
    std::optional<std::uint64_t> hint{};
    Placement placement = Placement::best_fit;
  };

  JudgedIntervals(std::uint64_t begin, std::uint64_t end)
      : JudgedIntervals(begin, end, Setting{}) {}
  JudgedIntervals(std::uint64_t begin, std::uint64_t end, const Setting& setting)
      : begin_(begin),
        end_(end),
        setting_(setting),
        owned_(std::make_unique<VaAllocator>(create(begin, end, setting))),
        allocator_(owned_.get()) {}

  [[nodiscard]] std::uint64_t taken_pages() const { return used_pages_; }
  [[nodiscard]] std::uint64_t begin() const { return begin_; }
  [[nodiscard]] std::uint64_t end() const { return end_; }
  [[nodiscard]] const VaAllocator& allocator() const { return *allocator_; }

  bool allocate(const Ask& ask) { return obtain(ask, Kind::taken) != nullptr; }
  bool allocate(std::uint64_t count, std::uint64_t alignment, std::uint64_t phase) {
    return allocate({.count = count, .alignment = alignment, .phase = phase});
  }
  /// The interval may be empty, taken, or outside.
  bool allocate_at(std::uint64_t first, std::uint64_t count, std::uint64_t guard = 0) {
    return obtain_at(first, count, guard, Kind::taken) != nullptr;
  }
  bool reserve(const Ask& ask) { return adopt(obtain(ask, Kind::reserved)); }
  bool reserve_at(std::uint64_t first, std::uint64_t count) {
    return adopt(obtain_at(first, count, 0, Kind::reserved));
  }

  bool free(std::uint64_t first) {
    const auto interval = used_.find(first);
    const bool valid = interval != used_.end() && interval->second.kind == Kind::taken;
    const auto freed = allocator_->free(DeviceAddr(first * page_bytes));
    ACCELMM_CHECK(freed.has_value() == valid);
    if (!valid) {
      ACCELMM_CHECK(freed.error().code == Errc::invalid_argument);
    } else if (setting_.quarantine_ranges == 0) {
      drop(interval);
    } else {
      if (quarantine_.size() == setting_.quarantine_ranges) retire_oldest();
      interval->second.kind = Kind::quarantined;
      quarantine_.push_back(first);
      quarantined_pages_ += interval->second.pages();
      while (quarantined_pages_ > setting_.quarantine_pages) retire_oldest();
    }
    judge_state();
    return valid;
  }

  bool release(std::uint64_t first) {
    const auto interval = used_.find(first);
    const bool exists = interval != used_.end() && interval->second.kind == Kind::reserved;
    const bool valid = exists && interval->second.pieces->used_.empty();
    const auto released = allocator_->release(DeviceAddr(first * page_bytes));
    ACCELMM_CHECK(released.has_value() == valid);
    if (valid)
      drop(interval);
    else
      ACCELMM_CHECK(released.error().code == (exists ? Errc::busy : Errc::invalid_argument));
    judge_state();
    return valid;
  }

  void drain_quarantine() {
    allocator_->drain_quarantine();
    retire_all();
    judge_state();
  }

  /// The pieces of the first reservation at or behind a page, else of the lowest; nullptr if there
  /// is none.
  [[nodiscard]] JudgedIntervals* reservation_from(std::uint64_t at) {
    JudgedIntervals* found = nullptr;
    for (const auto& [first, interval] : used_) {
      if (interval.kind != Kind::reserved || (found != nullptr && first < at)) continue;
      found = interval.pieces.get();
      if (first >= at) break;
    }
    return found;
  }

  /// Where a taken interval begins: the first at or behind a page, else the lowest, else that page.
  [[nodiscard]] std::uint64_t taken_from(std::uint64_t at) const {
    const auto taken = [](const auto& entry) { return entry.second.kind == Kind::taken; };
    const auto above = std::find_if(used_.lower_bound(at), used_.end(), taken);
    if (above != used_.end()) return above->first;
    const auto any = std::find_if(used_.begin(), used_.end(), taken);
    return any == used_.end() ? at : any->first;
  }

  /// Takes all that is free, in pieces of up to so many pages.
  void fill_everything(std::uint64_t count) {
    drain_quarantine();
    for (;;) {
      std::optional<Span> hole;
      any_hole([&](Span found) {
        hole = found;
        return true;
      });
      if (!hole) break;
      ACCELMM_CHECK(allocate_at(hole->first, std::min(count, hole->last - hole->first)));
    }
    ACCELMM_CHECK(allocator_->free_bytes() == ByteCount(0) && allocator_->holes() == 0);
    ACCELMM_CHECK(!allocate({.count = 1}));
  }

  /// Frees all that is in use: one hole must be left.
  void free_everything() {
    drain_quarantine();
    while (!used_.empty()) {
      const auto& [first, interval] = *used_.begin();
      if (interval.kind == Kind::reserved) {
        interval.pieces->free_everything();
        ACCELMM_CHECK(release(first));
      } else {
        ACCELMM_CHECK(free(first));
        drain_quarantine();
      }
    }
    ACCELMM_CHECK(allocator_->holes() == 1);
    allocator_->validate();
  }

 private:
  static constexpr std::uint64_t page_bytes = 4096;
  static constexpr Alignment page{page_bytes};
  enum class Kind : std::uint8_t { taken, reserved, quarantined };
  struct Interval {
    std::uint64_t count;
    std::uint64_t guard;
    Kind kind;
    std::unique_ptr<JudgedIntervals> pieces{};  // of a reservation
    [[nodiscard]] std::uint64_t pages() const { return count + guard; }
  };
  using Used = std::map<std::uint64_t, Interval>;  // first page -> interval

  /// The pieces of a reservation.
  JudgedIntervals(Span span, VaAllocator* allocator, std::uint64_t large)
      : begin_(span.first), end_(span.last), setting_{.large = large}, allocator_(allocator) {}

  static Range<DeviceAddr> range(std::uint64_t first, std::uint64_t last) {
    return {DeviceAddr(first * page_bytes), DeviceAddr(last * page_bytes)};
  }
  static VaAllocator create(std::uint64_t begin, std::uint64_t end, const Setting& setting) {
    std::vector<Range<DeviceAddr>> hint_ranges;
    for (const Span& span : setting.hint_ranges)
      hint_ranges.push_back(range(span.first, span.last));
    return VaAllocator::create(
               range(begin, end), page,
               {.large = Alignment(setting.large * page_bytes),
                .guard = ByteCount(setting.guard * page_bytes),
                .hint_ranges = hint_ranges,
                .quarantine = {.ranges = setting.quarantine_ranges,
                               .bytes = ByteCount(setting.quarantine_pages * page_bytes)}})
        .value();
  }
  static VaAllocator::Request request_of(const Ask& ask) {
    VaAllocator::Request request{.size = ByteCount(ask.count * page_bytes - 1),
                                 .alignment = Alignment(ask.alignment * page_bytes),
                                 .phase = ByteCount(ask.phase * page_bytes),
                                 .guard = ByteCount(ask.guard * page_bytes),
                                 .placement = ask.placement};
    if (ask.within) request.within = range(ask.within->first, ask.within->last);
    if (ask.hint) request.hint = DeviceAddr(*ask.hint * page_bytes);
    return request;
  }

  // ---- what the model expects ----

  /// Calls f(span) for each hole, upwards; returns whether one call was true.
  template <class F>
  bool any_hole(F f) const {
    std::uint64_t at = begin_;
    for (const auto& [first, interval] : used_) {
      if (at < first && f(Span{at, first})) return true;
      at = first + interval.pages();
    }
    return at < end_ && f(Span{at, end_});
  }

  /// Whether all of it is free; quarantine does not count as free.
  [[nodiscard]] bool is_free(std::uint64_t first, std::uint64_t count) const {
    const auto above = used_.lower_bound(first);
    if (above != used_.end() && above->first < first + count) return false;
    if (above == used_.begin()) return true;
    const auto below = std::prev(above);
    return below->first + below->second.pages() <= first;
  }

  [[nodiscard]] bool is_open(Span span) const {
    if (span.first == 0) return false;  // address 0 reads as null
    return std::ranges::none_of(setting_.hint_ranges, [&](const Span& closed) {
      return closed.first < span.last && span.first < closed.last;
    });
  }

  struct Places {
    std::uint64_t lowest;
    std::uint64_t highest;
  };
  [[nodiscard]] std::optional<Places> places(const Ask& ask, std::uint64_t length) const {
    std::optional<Places> found;
    const Span within = ask.within.value_or(Span{begin_, end_});
    any_hole([&](Span hole) {
      hole.first = std::max(hole.first, within.first);
      hole.last = std::min(hole.last, within.last);
      std::uint64_t at = hole.first + ((ask.phase - hole.first) & (ask.alignment - 1));
      for (; at + length <= hole.last; at += ask.alignment)
        if (is_open({at, at + length})) found = Places{found ? found->lowest : at, at};
      return false;
    });
    return found;
  }

  [[nodiscard]] bool hint_holds(const Ask& ask, std::uint64_t length) const {
    if (!ask.hint || *ask.hint == 0 || *ask.hint % ask.alignment != ask.phase) return false;
    const Span within = ask.within.value_or(Span{begin_, end_});
    return *ask.hint >= within.first && *ask.hint + length <= within.last &&
           is_free(*ask.hint, length);
  }

  /// The pages of the smallest hole of that many pages or more, and of that around a page.
  [[nodiscard]] std::pair<std::uint64_t, std::uint64_t> best_and_own_hole(std::uint64_t length,
                                                                          std::uint64_t at) const {
    std::uint64_t best = end_ - begin_;
    std::uint64_t own = 0;
    any_hole([&](Span hole) {
      const std::uint64_t pages = hole.last - hole.first;
      if (pages >= length) best = std::min(best, pages);
      if (hole.first <= at && at < hole.last) own = pages;
      return false;
    });
    return {best, own};
  }

  /// Which of all places it may take, beyond those that fit.
  void judge_choice(const Ask& ask, std::uint64_t length, const Places& fit,
                    std::uint64_t first) const {
    const bool exact = ask.alignment == 1 || (ask.alignment == setting_.large && ask.phase == 0);
    if (ask.placement == Placement::bottom_up) ACCELMM_CHECK(!exact || first == fit.lowest);
    if (ask.placement == Placement::top_down) ACCELMM_CHECK(!exact || first == fit.highest);
    if (ask.placement == Placement::best_fit && ask.alignment == 1 && !ask.within &&
        setting_.hint_ranges.empty() && begin_ > 0) {
      const auto [best, own] = best_and_own_hole(length, first);
      ACCELMM_CHECK(best >= 64 || own == best);  // the bins of up to 63 pages hold one length each
      ACCELMM_CHECK(own >= length);
    }
  }

  // ---- operations ----

  const Used::value_type* obtain(const Ask& ask, Kind kind) {
    const std::uint64_t guard = kind == Kind::taken ? std::max(ask.guard, setting_.guard) : 0;
    const std::uint64_t length = ask.count + guard;
    auto request = request_of(ask);
    if (kind == Kind::reserved) request.guard = ByteCount(0);
    const bool follows_hint = hint_holds(ask, length);
    auto fit = places(ask, length);
    if (!fit && !follows_hint && !quarantine_.empty()) {
      retire_all();
      fit = places(ask, length);
    }
    const auto before = allocator_->statistics();
    const auto got =
        kind == Kind::taken ? allocator_->allocate(request) : allocator_->reserve(request);
    ACCELMM_CHECK(got.has_value() == (follows_hint || fit));
    if (!got) {
      ACCELMM_CHECK(got.error().code == Errc::no_memory);
      ACCELMM_CHECK(allocator_->statistics() == before || before.quarantined_ranges > 0);
      judge_state();
      return nullptr;
    }
    const std::uint64_t first = got->begin.value() / page_bytes;
    ACCELMM_CHECK(*got == range(first, first + ask.count));
    ACCELMM_CHECK(first % ask.alignment == ask.phase);
    if (follows_hint) {
      ACCELMM_CHECK(first == *ask.hint);
    } else {
      ACCELMM_CHECK(is_open({first, first + length}));
      if (ask.within)
        ACCELMM_CHECK(ask.within->first <= first && first + length <= ask.within->last);
      judge_choice(ask, length, *fit, first);
    }
    return &take(first, ask.count, guard, kind);
  }

  const Used::value_type* obtain_at(std::uint64_t first, std::uint64_t count, std::uint64_t guard,
                                    Kind kind) {
    const bool inside = count > 0 && begin_ <= first && first + count + guard <= end_;
    bool vacant = inside;
    bool quarantined = false;
    for (const auto& [other, interval] : used_) {
      if (other >= first + count + guard || other + interval.pages() <= first) continue;
      quarantined = quarantined || interval.kind == Kind::quarantined;
      vacant = vacant && interval.kind == Kind::quarantined;
    }
    const auto wanted = range(first, first + count);
    // A guard is rounded up to whole pages.
    const ByteCount behind(guard == 0 ? 0 : guard * page_bytes - 1);
    const auto got = kind == Kind::taken ? allocator_->allocate_at(wanted, behind)
                                         : allocator_->reserve_at(wanted);
    ACCELMM_CHECK(got.has_value() == vacant);
    if (!got) {
      ACCELMM_CHECK(got.error().code == (inside ? Errc::address_in_use : Errc::invalid_argument));
      judge_state();
      return nullptr;
    }
    ACCELMM_CHECK(*got == wanted);
    if (quarantined) retire_all();
    return &take(first, count, guard, kind);
  }

  const Used::value_type& take(std::uint64_t first, std::uint64_t count, std::uint64_t guard,
                               Kind kind) {
    ACCELMM_CHECK(begin_ <= first && first + count + guard <= end_);
    ACCELMM_CHECK(is_free(first, count + guard));
    const auto [entry, _] = used_.emplace(first, Interval{count, guard, kind});
    used_pages_ += entry->second.pages();
    judge_state();
    return *entry;
  }

  bool adopt(const Used::value_type* entry) {
    if (entry == nullptr) return false;
    VaAllocator* pieces = allocator_->reservation(DeviceAddr(entry->first * page_bytes));
    const Span span{entry->first, entry->first + entry->second.count};
    ACCELMM_CHECK(pieces != nullptr && pieces->range() == range(span.first, span.last));
    used_.at(entry->first).pieces.reset(new JudgedIntervals(span, pieces, setting_.large));
    return true;
  }

  void drop(Used::iterator interval) {
    used_pages_ -= interval->second.pages();
    used_.erase(interval);
  }
  void retire_oldest() {
    const auto interval = used_.find(quarantine_.front());
    quarantine_.pop_front();
    quarantined_pages_ -= interval->second.pages();
    drop(interval);
  }
  void retire_all() {
    while (!quarantine_.empty()) retire_oldest();
  }

  void judge_state() {
    std::size_t holes = 0;
    any_hole([&](Span) {
      ++holes;
      return false;
    });
    ACCELMM_CHECK(allocator_->holes() == holes);
    ACCELMM_CHECK(allocator_->free_bytes().value() == (end_ - begin_ - used_pages_) * page_bytes);
    if (used_.size() > 64 && ++steps_ % 16 != 0) return;
    if (!setting_.checkpoints.due()) return;
    allocator_->validate();
    const VaAllocator::Statistics statistics = allocator_->statistics();
    ACCELMM_CHECK(statistics == allocator_->recount());
    std::uint64_t pages[3] = {};
    std::uint64_t guard = 0;
    for (const auto& [first, interval] : used_) {
      pages[static_cast<std::size_t>(interval.kind)] += interval.pages();
      if (interval.kind == Kind::taken) guard += interval.guard;
    }
    ACCELMM_CHECK(statistics.taken.value() == (pages[0] - guard) * page_bytes);
    ACCELMM_CHECK(statistics.guard.value() == guard * page_bytes);
    ACCELMM_CHECK(statistics.reserved.value() == pages[1] * page_bytes);
    ACCELMM_CHECK(statistics.quarantined.value() == pages[2] * page_bytes);
    ACCELMM_CHECK(statistics.quarantined_ranges == quarantine_.size());
  }

  std::uint64_t begin_;
  std::uint64_t end_;
  Setting setting_;
  std::unique_ptr<VaAllocator> owned_;  // none: pieces of a reservation
  VaAllocator* allocator_;
  Used used_;
  std::uint64_t used_pages_ = 0;
  std::deque<std::uint64_t> quarantine_;
  std::uint64_t quarantined_pages_ = 0;
  std::uint64_t steps_ = 0;
};

}  // namespace accelmm::test
