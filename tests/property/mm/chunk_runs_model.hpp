// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "mm/chunk_runs.hpp"

#include <accelmm/check.hpp>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace accelmm::test {

/// Runs of free chunks beside a naive model of them, one byte a chunk, that judges each answer.
///
/// Each operation returns whether it found something; what the model does not allow aborts.
/// validate() runs after every operation that changes anything.
class JudgedRuns {
 public:
  using Run = mm::PageRun;
  static constexpr std::uint64_t none = mm::ChunkRuns::none;

  explicit JudgedRuns(std::uint64_t chunks) : runs_(chunks), free_(chunks, 0) {}

  [[nodiscard]] std::uint64_t chunks() const { return free_.size(); }
  [[nodiscard]] std::uint64_t free_chunks() const {
    return static_cast<std::uint64_t>(std::count(free_.begin(), free_.end(), 1));
  }

  /// Gives what is not free of [begin, begin + count), up to the first chunk that is.
  bool give(std::uint64_t begin, std::uint64_t count) {
    Run run{begin, begin};
    while (run.end < chunks() && run.size() < count && !is_free(run.end)) ++run.end;
    if (run.empty()) return false;
    runs_.give(run);
    set(run, 1);
    return true;
  }
  /// Takes what is free of [begin, begin + count), up to the first chunk that is not.
  bool take_exactly(std::uint64_t begin, std::uint64_t count) {
    const Run run = run_with(begin);
    if (run.begin == none) return false;
    const Run part{begin, std::min(run.end, begin + count)};
    runs_.take_exactly(part);
    set(part, 0);
    return true;
  }
  /// Up to 31 chunks a run of each length has its own bin: there the shortest that fits must be found.
  bool take(std::uint64_t count, unsigned align_order) {
    const std::uint64_t shortest = shortest_from(count);
    const Run place = runs_.take(count, align_order);
    if (align_order == 0 && (count <= 31 || shortest == none))
      ACCELMM_CHECK((place.begin == none) == (shortest == none));
    if (place.begin == none) {
      ACCELMM_CHECK(runs_.validate() == free_chunks());
      return false;
    }
    judge(place, count, align_order);
    if (align_order == 0 && shortest <= 31) ACCELMM_CHECK(run_with(place.begin).size() == shortest);
    set(place, 0);
    return true;
  }
  /// Both ends of a range.
  bool look_within(std::uint64_t count, unsigned align_order, Run within) const {
    const Run low = runs_.lowest_within(count, align_order, within);
    const Run high = runs_.highest_within(count, align_order, within);
    for (const Run& place : {low, high}) {
      if (place.begin == none) continue;
      judge(place, count, align_order);
      ACCELMM_CHECK(within.begin <= place.begin && place.end <= within.end);
    }
    if (low.begin != none && high.begin != none) ACCELMM_CHECK(low.begin <= high.begin);
    if (count == 1 && align_order == 0) {
      // Any chunk serves: both must be the very first and last.
      const auto first = std::find(at(within.begin), at(within.end), 1);
      ACCELMM_CHECK((first == at(within.end)) == (low.begin == none));
      ACCELMM_CHECK((low.begin == none) == (high.begin == none));
      if (low.begin != none) ACCELMM_CHECK(at(low.begin) == first);
      if (high.begin != none)
        ACCELMM_CHECK(std::find(at(high.end), at(within.end), 1) == at(within.end));
    }
    return low.begin != none;
  }
  /// A place whose number `wanted` divides.
  bool look_for(std::uint64_t count, unsigned align_order, std::uint64_t wanted) const {
    const Run place =
        runs_.first_of(count, align_order, 8, [=](Run run) { return run.begin % wanted == 0; });
    if (place.begin == none) return false;
    judge(place, count, align_order);
    ACCELMM_CHECK(place.begin % wanted == 0);
    return true;
  }
  /// Which run has a chunk, and which runs there are.
  void judge_runs(std::uint64_t chunk) const {
    const Run expected = run_with(chunk);
    const Run found = runs_.run_with(chunk);
    ACCELMM_CHECK(expected.begin == found.begin && expected.end == found.end);
    std::uint64_t sum = 0;
    runs_.each([&](Run run) {
      ACCELMM_CHECK(run_with(run.begin).end == run.end);
      sum += run.size();
    });
    ACCELMM_CHECK(sum == free_chunks());
  }

 private:
  [[nodiscard]] std::vector<char>::const_iterator at(std::uint64_t c) const {
    return free_.begin() + static_cast<std::ptrdiff_t>(c);
  }
  [[nodiscard]] bool is_free(std::uint64_t c) const { return free_[c] != 0; }
  void set(Run run, char free) {
    std::fill_n(free_.begin() + static_cast<std::ptrdiff_t>(run.begin), run.size(), free);
    ACCELMM_CHECK(runs_.validate() == free_chunks());
  }
  void judge(Run place, std::uint64_t count, unsigned align_order) const {
    ACCELMM_CHECK(place.size() == count && place.end <= chunks());
    ACCELMM_CHECK(align_order >= 64 || place.begin % (std::uint64_t{1} << align_order) == 0);
    ACCELMM_CHECK(std::count(at(place.begin), at(place.end), 0) == 0);
  }
  [[nodiscard]] Run run_with(std::uint64_t c) const {
    if (!is_free(c)) return mm::ChunkRuns::no_run;
    Run run{c, c + 1};
    while (run.begin > 0 && is_free(run.begin - 1)) --run.begin;
    while (run.end < chunks() && is_free(run.end)) ++run.end;
    return run;
  }
  [[nodiscard]] std::uint64_t shortest_from(std::uint64_t count) const {
    std::uint64_t found = none;
    for (std::uint64_t c = 0; c < chunks(); ++c)
      if (const Run run = run_with(c); run.begin != none) {
        if (run.size() >= count) found = std::min(found, run.size());
        c = run.end;
      }
    return found;
  }

  mm::ChunkRuns runs_;
  std::vector<char> free_;  // 1: free
};

}  // namespace accelmm::test
