// SPDX-License-Identifier: Apache-2.0
//
// Work of which every step is written down before the clock starts: a script. It is played once with
// its places compared, and then for the time.
#pragma once

#include "rows.hpp"
#include "series.hpp"
#include "verify.hpp"
#include "workloads.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>

namespace accelmm::bench {

/// What a slot is filled with, or (size 0) that it is freed.
struct Act {
  std::uint32_t slot;
  std::uint32_t alignment;  // 0: wherever the allocator likes
  std::uint64_t size;
};

/// Acts that end with everything freed.
class Script {
 public:
  explicit Script(std::uint64_t region = 0) : region_(region) {}

  /// Takes a slot that is empty, and returns it.
  std::uint32_t take(std::uint64_t size, std::uint64_t alignment = 0) {
    std::uint32_t slot = 0;
    if (empty_.empty()) {
      slot = static_cast<std::uint32_t>(sizes_.size());
      sizes_.push_back(0);
    } else {
      slot = empty_.back();
      empty_.pop_back();
    }
    sizes_[slot] = size;
    live_ += size;
    peak_ = std::max(peak_, live_);
    acts_.push_back({slot, static_cast<std::uint32_t>(alignment), size});
    return slot;
  }
  void give(std::uint32_t slot) {
    live_ -= sizes_[slot];
    sizes_[slot] = 0;
    empty_.push_back(slot);
    acts_.push_back({slot, 0, 0});
  }
  /// Frees what is live, lowest slots first.
  void give_all() {
    for (std::uint32_t slot = 0; slot < sizes_.size(); ++slot)
      if (sizes_[slot] != 0) give(slot);
  }
  /// What follows is the work; what came before only fills.
  void begin() { first_ = acts_.size(); }
  /// What follows only empties.
  void end() { last_ = acts_.size(); }

  [[nodiscard]] std::uint64_t live() const { return live_; }
  [[nodiscard]] std::uint64_t peak() const { return peak_; }
  [[nodiscard]] std::uint64_t region() const { return region_; }
  [[nodiscard]] std::size_t slots() const { return sizes_.size(); }
  [[nodiscard]] const std::vector<Act>& acts() const { return acts_; }
  [[nodiscard]] std::size_t first() const { return first_; }
  [[nodiscard]] std::size_t last() const { return std::min(last_, acts_.size()); }

 private:
  std::uint64_t region_;
  std::uint64_t live_ = 0;
  std::uint64_t peak_ = 0;
  std::size_t first_ = 0;
  std::size_t last_ = SIZE_MAX;
  std::vector<Act> acts_;
  std::vector<std::uint64_t> sizes_;
  std::vector<std::uint32_t> empty_;
};

/// Plays a script into a subject.
template <class Subject>
class ScriptPlayer {
 public:
  ScriptPlayer(Subject& subject, const Script& script)
      : subject_(subject), script_(script), pieces_(script.slots()), sizes_(script.slots()) {}

  /// Plays acts [first, last). Nothing is noted but the pieces.
  [[nodiscard]] bool play(std::size_t first, std::size_t last) {
    for (std::size_t i = first; i < last; ++i) {
      const Act act = script_.acts()[i];
      if (act.size == 0 ? !subject_.give(pieces_[act.slot])
                        : !bench::take(subject_, {act.size, act.alignment}, pieces_[act.slot]))
        return refuse(i);
    }
    return true;
  }
  /// What the last play() was refused, in words.
  [[nodiscard]] std::string refusal() const {
    std::uint64_t live_bytes = 0;
    std::vector<std::uint64_t> sizes(sizes_.size());
    for (std::size_t i = 0; i < refused_; ++i) {
      const Act act = script_.acts()[i];
      live_bytes += act.size - std::exchange(sizes[act.slot], act.size);
    }
    const std::uint64_t size = script_.acts()[refused_].size;
    return (size == 0 ? std::string("a free was refused")
                      : "refused " + std::to_string(size) + " bytes") +
           " with " + std::to_string(live_bytes) + " live";
  }
  /// What is live after the first `count` acts.
  [[nodiscard]] std::vector<Interval> live(std::size_t count) {
    std::ranges::fill(sizes_, 0);
    for (std::size_t i = 0; i < count; ++i) sizes_[script_.acts()[i].slot] = script_.acts()[i].size;
    std::vector<Interval> live;
    for (std::size_t slot = 0; slot < sizes_.size(); ++slot) {
      if (sizes_[slot] == 0) continue;
      const std::uint64_t begin = subject_.address(pieces_[slot]);
      live.push_back({begin, begin + sizes_[slot]});
    }
    return live;
  }

 private:
  [[nodiscard]] bool refuse(std::size_t act) {
    refused_ = act;
    return false;
  }
  Subject& subject_;
  const Script& script_;
  std::vector<PieceOf<Subject>> pieces_;
  std::vector<std::uint64_t> sizes_;
  std::size_t refused_ = 0;
};

/// How the work of a script went, looked at so many times.
struct Course {
  std::string flaw{};
  double least_whole = 100;  ///< lowest share of the free memory in whole 2 MiB, in per cent
  double peak_live = 0;      ///< bytes
  double peak_reserved = 0;  ///< bytes of 2 MiB chunks that hold something
};

/// From so many looks on, they make a curve.
constexpr std::size_t looks_of_a_series = 120;

/// Plays all of it, and compares what is live at each look. Where the script names its region, and
/// there are enough of them, the looks go into the series too.
template <class Subject>
[[nodiscard]] Course check_script(Subject& subject, const Script& script, const std::string& work,
                                  const std::string& who, std::size_t looks) {
  constexpr double chunk = 2 << 20;
  Course course;
  ScriptPlayer<Subject> player(subject, script);
  PageMap map(script.region());
  const std::size_t step = std::max<std::size_t>(1, script.acts().size() / looks);
  for (std::size_t at = 0; at < script.acts().size(); at += step) {
    const std::size_t next = std::min(at + step, script.acts().size());
    if (!player.play(at, next)) {
      course.flaw = player.refusal();
      return course;
    }
    std::vector<Interval> live = player.live(next);
    if (script.region() != 0) {
      map.clear();
      for (const Interval& interval : live) static_cast<void>(map.add(interval));
      const Look look = map.look();
      const double pages = static_cast<double>(map.pages());
      course.peak_live = std::max(course.peak_live, look.occupancy / 100 * pages * 4096);
      course.peak_reserved =
          std::max(course.peak_reserved,
                   pages * 4096 - static_cast<double>(map.whole_free_chunks()) * chunk);
      if (next >= script.first() && next <= script.last())
        course.least_whole = std::min(course.least_whole, 100 - look.fragmentation);
      if (looks >= looks_of_a_series && next <= script.last()) add_look(work, who, next, look);
    }
    if (!disjoint(std::move(live))) course.flaw = "gave the same place out twice";
  }
  return course;
}

/// The time of one act of the script's work.
template <class Subject>
void time_script(benchmark::State& state, Subject& subject, const Script& script) {
  using Clock = std::chrono::steady_clock;
  ScriptPlayer<Subject> player(subject, script);
  for (auto _ : state) {
    if (!player.play(0, script.first())) return state.SkipWithError("refused to fill");
    const auto start = Clock::now();
    const bool played = player.play(script.first(), script.last());
    state.SetIterationTime(std::chrono::duration<double>(Clock::now() - start).count());
    if (!played || !player.play(script.last(), script.acts().size()))
      return state.SkipWithError("refused");
  }
  state.counters["items"] = static_cast<double>(script.last() - script.first());
}

/// A row of one subject that has a region to itself. `script` gives the work, made once.
template <class Subject>
benchmark::internal::Benchmark* add_script_row(const std::string& work, const std::string& who,
                                               const Script& (*script)(), std::size_t looks = 4) {
  auto* row = add_row(work, who, [=, checked = false](benchmark::State& state) mutable {
    Subject subject(script().region());
    if (!checked) {
      const Course course = check_script(subject, script(), work, who, looks);
      if (!course.flaw.empty()) return state.SkipWithError(course.flaw.c_str());
      if (!subject.whole()) return state.SkipWithError("not whole at the end");
      checked = true;
    }
    time_script(state, subject, script());
    if (!subject.whole()) state.SkipWithError("not whole at the end");
  });
  return row->UseManualTime();
}

/// The same for all mallocs, or those that have room for this much; a malloc knows no region.
enum class Room : std::uint8_t { any, over_256_mib };
inline void add_malloc_script_rows(const std::string& work, const Script& (*script)(),
                                   Room room = Room::any) {
  for (const PeerName& peer : malloc_peer_names) {
    if (room == Room::over_256_mib && std::string_view(peer.name) == "boost-interprocess") continue;
    auto* row = add_row(work, peer.name, [=, checked = false](benchmark::State& state) mutable {
      const Peer& found = malloc_peer(peer.name);
      if (const std::string flaw = start(found); !flaw.empty())
        return state.SkipWithError(flaw.c_str());
      MallocSubject subject(found);
      if (!checked) {
        const Course course = check_script(subject, script(), work, peer.name, 4);
        if (!course.flaw.empty()) return state.SkipWithError(course.flaw.c_str());
        checked = true;
      }
      time_script(state, subject, script());
    });
    row->UseManualTime();
    // Seconds each time: three suffice for a ratio of hundreds.
    if (std::string_view(peer.name) == "dpdk-malloc") row->Iterations(1)->Repetitions(3);
  }
}

}  // namespace accelmm::bench
