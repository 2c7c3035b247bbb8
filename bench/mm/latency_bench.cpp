// SPDX-License-Identifier: Apache-2.0
//
// How long the slowest operations take, each timed on its own.
#include "models/tlsf.hpp"
#include "rows.hpp"
#include "subjects.hpp"
#include "workloads.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>
#if defined(__x86_64__)
#include <x86intrin.h>
#endif

namespace accelmm::bench {
namespace {

using Clock = std::chrono::steady_clock;

std::uint64_t ticks() {
#if defined(__x86_64__)
  return __rdtsc();
#else
  return static_cast<std::uint64_t>(Clock::now().time_since_epoch().count());
#endif
}

constexpr std::uint64_t region = std::uint64_t{64} << 30;
constexpr std::uint64_t page = 4096;
constexpr std::size_t steps = 1'000'000;
constexpr std::chrono::seconds longest{3};  // for an allocator whose steps take long

// 4 KiB to 256 KiB, not only powers of two, each doubling as likely as any other.
std::uint64_t draw(Random& random) {
  const std::uint32_t order = random.below(7);
  return page * ((std::uint64_t{1} << order) + (order == 6 ? 0 : random.below(1u << order)));
}

template <class Subject>
class TimedSteps {
 public:
  /// Fills the region to 90 %. Returns false if something is refused.
  [[nodiscard]] bool fill() {
    while (used_ + size_ <= limit)
      if (!allocate()) return false;
    return true;
  }
  /// So many times, an allocation where 90 % allow it, else the free of a random piece; each timed.
  /// Stops early when the time is over. Returns false if a free is refused, or more than one
  /// request in a hundred.
  [[nodiscard]] bool run(std::size_t count, Clock::time_point end) {
    ticks_.reserve(count);
    for (std::size_t step = 0; ticks_.size() < count; ++step) {
      if (step % 1024 == 0 && Clock::now() > end) break;
      if (used_ + size_ > limit) {
        if (!free_one()) return false;
      } else if (!allocate() && ++refused_ > count / 100) {
        return false;
      }
    }
    return true;
  }
  /// What 999 of 1000 steps did not exceed.
  [[nodiscard]] std::uint64_t p999() {
    const auto at = ticks_.begin() + static_cast<std::ptrdiff_t>(ticks_.size() / 1000 * 999);
    std::ranges::nth_element(ticks_, at);
    return *at;
  }
  void forget_times() { ticks_.clear(); }

  /// Frees everything. Returns what is wrong, or null.
  [[nodiscard]] const char* finish() {
    std::vector<Interval> intervals;
    for (const Live& slot : live_) {
      const std::uint64_t begin = subject_.address(slot.piece);
      intervals.push_back({begin, begin + slot.size});
      if (!subject_.give(slot.piece)) return "refused to free at the end";
    }
    if (!disjoint(std::move(intervals))) return "gave the same place out twice";
    return subject_.whole() ? nullptr : "not whole at the end";
  }

 private:
  struct Live {
    PieceOf<Subject> piece{};
    std::uint64_t size = 0;
  };
  static constexpr std::uint64_t limit = region / 10 * 9;

  [[nodiscard]] bool allocate() {
    Live next{{}, size_};
    size_ = draw(random_);
    const std::uint64_t before = ticks();
    const bool taken = subject_.take(next.size, next.piece);
    const std::uint64_t after = ticks();
    if (!taken) return false;  // after a look everywhere, which is not counted
    ticks_.push_back(after - before);
    used_ += next.size;
    live_.push_back(next);
    return true;
  }
  [[nodiscard]] bool free_one() {
    std::swap(live_[random_.below(static_cast<std::uint32_t>(live_.size()))], live_.back());
    used_ -= live_.back().size;
    const std::uint64_t before = ticks();
    const bool freed = subject_.give(live_.back().piece);
    const std::uint64_t after = ticks();
    ticks_.push_back(after - before);
    live_.pop_back();
    return freed;
  }

  Subject subject_{region};
  Random random_{90};
  std::vector<Live> live_;
  std::vector<std::uint64_t> ticks_;
  std::uint64_t used_ = 0;
  std::uint64_t size_ = page;
  std::size_t refused_ = 0;
};

template <class Subject>
void latency(benchmark::State& state) {
  TimedSteps<Subject> work;
  double ns = 0;
  for (auto _ : state) {
    if (!work.fill()) return state.SkipWithError("refused to fill");
    work.forget_times();
    const auto start = Clock::now();
    const std::uint64_t start_ticks = ticks();
    if (!work.run(steps, start + longest)) return state.SkipWithError("refused too often");
    const std::uint64_t end_ticks = ticks();
    const std::chrono::duration<double, std::nano> elapsed = Clock::now() - start;
    ns = static_cast<double>(work.p999()) * elapsed.count() /
         static_cast<double>(end_ticks - start_ticks);
  }
  if (const char* flaw = work.finish()) state.SkipWithError(flaw);
  state.counters["ns"] = ns;
}

const bool registered = [] {
  add_row("latency-p999", "ours", latency<PageSubject>)->Iterations(1)->Repetitions(3);
  add_row("latency-p999-model-tlsf", "model-tlsf", latency<TlsfModel>)
      ->Iterations(1)
      ->Repetitions(3);
  return true;
}();

}  // namespace
}  // namespace accelmm::bench
