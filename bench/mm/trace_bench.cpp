// SPDX-License-Identifier: Apache-2.0
//
// Work of which every step is known beforehand: RMM's random allocations, and two shapes of the
// Linux kernel's tests of its buddy allocator.
#include "models/rmm_list.hpp"
#include "models/tlsf.hpp"
#include "rows.hpp"
#include "subjects.hpp"
#include "verify.hpp"
#include "workloads.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>

namespace accelmm::bench {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// The allocation with this number is made, or (size 0) freed.
struct Event {
  std::uint32_t id;
  std::uint32_t size;
};

struct Trace {
  std::vector<Event> events;
  std::uint32_t ids = 0;
};

// RMM's random_allocations with 100 000 as its number and 1 MiB as its largest size: at each of
// 200 000 steps an allocation with probability 0.73, where that keeps the live bytes below
// 16 000 MiB; else a free of a random live one.
const Trace& rmm_random_100k() {
  static const Trace trace = [] {
    constexpr std::size_t steps = 200'000;
    constexpr std::uint32_t largest = 1u << 20;
    constexpr std::uint64_t limit = std::uint64_t{16'000} << 20;
    Trace made;
    Random random(73);
    std::vector<Event> live;
    std::uint64_t bytes = 0;
    while (made.events.size() < steps) {
      const std::uint32_t size = 1 + random.below(largest);
      if (live.empty() || (random.below(100) < 73 && bytes + size < limit)) {
        live.push_back({made.ids++, size});
        made.events.push_back(live.back());
        bytes += size;
        continue;
      }
      std::swap(live[random.below(static_cast<std::uint32_t>(live.size()))], live.back());
      made.events.push_back({live.back().id, 0});
      bytes -= live.back().size;
      live.pop_back();
    }
    return made;
  }();
  return trace;
}

// Large enough that no model fails for want of one free block.
constexpr std::uint64_t rmm_region = std::uint64_t{32} << 30;

template <class Subject>
class Replay {
 public:
  explicit Replay(const Trace& trace)
      : trace_(trace), subject_(rmm_region), pieces_(trace.ids), sizes_(trace.ids) {}

  /// Plays events [first, last). Nothing is noted here but the pieces.
  [[nodiscard]] bool play(std::size_t first, std::size_t last) {
    for (std::size_t i = first; i < last; ++i) {
      const Event event = trace_.events[i];
      if (event.size == 0 ? !subject_.give(pieces_[event.id])
                          : !subject_.take(event.size, pieces_[event.id]))
        return false;
    }
    return true;
  }
  /// The map after the first `count` events. Returns false if something is live twice.
  [[nodiscard]] bool draw(std::size_t count, PageMap& map) {
    for (const Event& event : std::span(trace_.events).first(count)) sizes_[event.id] = event.size;
    map.clear();
    std::vector<Interval> live;
    for (std::size_t id = 0; id < sizes_.size(); ++id) {
      if (sizes_[id] == 0) continue;
      const std::uint64_t begin = subject_.address(pieces_[id]);
      live.push_back({begin, begin + sizes_[id]});
      static_cast<void>(map.add(live.back()));  // the list's pieces share pages
    }
    return disjoint(std::move(live));
  }
  /// Frees what is live after the whole trace. Returns whether all is whole again.
  [[nodiscard]] bool finish() {
    for (std::size_t id = 0; id < sizes_.size(); ++id)
      if (sizes_[id] != 0 && !subject_.give(pieces_[id])) return false;
    return subject_.whole();
  }

 private:
  const Trace& trace_;
  Subject subject_;
  std::vector<PieceOf<Subject>> pieces_;
  std::vector<std::uint64_t> sizes_;
};

template <class Subject>
void rmm_random(benchmark::State& state) {
  const Trace& trace = rmm_random_100k();
  for (auto _ : state) {
    Replay<Subject> replay(trace);
    const auto start = Clock::now();
    const bool played = replay.play(0, trace.events.size());
    state.SetIterationTime(seconds_since(start));
    if (!played) return state.SkipWithError("refused");
    PageMap map(rmm_region);
    if (!replay.draw(trace.events.size(), map))
      return state.SkipWithError("gave the same place out twice");
    if (!replay.finish()) return state.SkipWithError("not whole at the end");
  }
  state.counters["items"] = static_cast<double>(trace.events.size());
}

// The same once more, untimed, for the pictures.
template <class Subject>
void record_rmm_random(const std::string& who) {
  const Trace& trace = rmm_random_100k();
  Replay<Subject> replay(trace);
  PageMap map(rmm_region);
  constexpr std::size_t interval = 5000;
  for (std::size_t at = 0; at < trace.events.size(); at += interval) {
    if (!replay.play(at, at + interval) || !replay.draw(at + interval, map)) return;
    add_look("rmm-random-100k", who, at + interval, map.look());
  }
}

template <class Subject>
void add_rmm_row(const std::string& who, int repetitions) {
  auto* row =
      add_row("rmm-random-100k", who, [who, recorded = false](benchmark::State& state) mutable {
        if (series_recorded() && !recorded) record_rmm_random<Subject>(who);
        recorded = true;
        rmm_random<Subject>(state);
      });
  row->UseManualTime();
  if (repetitions > 0) row->Iterations(1)->Repetitions(repetitions);
}

// Both shapes of the kernel's tests begin so: 4 GiB is filled with 8 KiB at every 64 KiB.
class KunitFill {
 public:
  static constexpr std::uint64_t region = std::uint64_t{4} << 30;
  static constexpr std::uint64_t stride = std::uint64_t{64} << 10;
  static constexpr std::size_t count = region / stride;

  [[nodiscard]] bool fill() {
    for (Extent& extent : blocks_)
      if (!subject_.take(8192, stride, extent)) return false;
    return true;
  }
  /// Frees those whose number says so, forwards or backwards.
  template <class Chosen>
  [[nodiscard]] bool free_forwards(Chosen chosen) {
    for (std::size_t i = 0; i < count; ++i)
      if (chosen(i) && !subject_.give(blocks_[i])) return false;
    return true;
  }
  template <class Chosen>
  [[nodiscard]] bool free_backwards(Chosen chosen) {
    for (std::size_t i = count; i-- > 0;)
      if (chosen(i) && !subject_.give(blocks_[i])) return false;
    return true;
  }
  /// Takes the whole region in blocks of 64 KiB.
  [[nodiscard]] bool fill_wholly() {
    for (Extent& extent : blocks_)
      if (!subject_.take(stride, stride, extent)) return false;
    return true;
  }
  [[nodiscard]] bool whole() const { return subject_.whole(); }

 private:
  PageSubject subject_{region};
  std::vector<Extent> blocks_{count};
};

// The kernel's fragmented allocation: freed in two lists, of which one is the cleared blocks', then
// everything in 64 KiB.
[[nodiscard]] bool fragmented(KunitFill& work) {
  const auto all = [](std::size_t) { return true; };
  const auto cleared = [](std::size_t i) { return i % 4 == 0 || i % 4 == 3; };
  return work.fill() && work.free_forwards(cleared) &&
         work.free_forwards([=](std::size_t i) { return !cleared(i); }) && work.fill_wholly() &&
         work.free_forwards(all);
}

// The kernel's reverse free: every other one, then the rest from the end.
[[nodiscard]] bool reverse(KunitFill& work) {
  return work.fill() && work.free_forwards([](std::size_t i) { return i % 2 == 0; }) &&
         work.free_backwards([](std::size_t i) { return i % 2 == 1; });
}

void add_kunit_row(const std::string& work, bool (*shape)(KunitFill&)) {
  add_row(work, "ours", [=](benchmark::State& state) {
    KunitFill fill;
    double seconds = 0;
    for (auto _ : state) {
      const auto start = Clock::now();
      const bool done = shape(fill);
      seconds += seconds_since(start);
      if (!done) return state.SkipWithError("refused");
    }
    if (!fill.whole()) state.SkipWithError("not whole at the end");
    state.counters["ms"] = seconds * 1e3 / static_cast<double>(state.iterations());
  });
}

const bool registered = [] {
  add_rmm_row<PageSubject>("ours", 0);
  // Seconds each time: three suffice for a ratio of hundreds.
  add_rmm_row<RmmListModel>("model-rmm-list", 3);
  add_rmm_row<TlsfModel>("model-tlsf", 0);
  add_kunit_row("kunit-fragmented", fragmented);
  add_kunit_row("kunit-reverse", reverse);
  return true;
}();

}  // namespace
}  // namespace accelmm::bench
