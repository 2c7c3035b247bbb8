// SPDX-License-Identifier: Apache-2.0
#include "sample.hpp"

#include <accelmm/page_allocator.hpp>
#include <accelmm/trace_recorder.hpp>

#include <random>
#include <utility>
#include <vector>

namespace accelmm::replay {

namespace {

constexpr std::uint64_t page = 4096;

class Work {
 public:
  Work(TraceRecorder<PageAllocator>& recorder, const SampleWork& work)
      : recorder_(recorder), random_(work.seed), limit_(work.pool.value() / 10 * 9) {}

  [[nodiscard]] Result<void> step() {
    if (live_.empty() || (used_ < limit_ && below(100) < 60)) {
      allocate();
      return {};
    }
    std::swap(live_[below(live_.size())], live_.back());
    Extent& last = live_.back();
    Extent part = last;
    if (last.length > ByteCount(page) && below(8) == 0) part.length = ByteCount(page);
    const auto freed = recorder_.free(part);
    used_ -= part.length.value();
    if (part == last)
      live_.pop_back();
    else
      last = {part.end(), last.length - part.length};
    return freed;
  }

 private:
  [[nodiscard]] std::uint64_t below(std::uint64_t bound) { return random_() % bound; }
  void keep(Extent extent) {
    used_ += extent.length.value();
    live_.push_back(extent);
  }
  // A pool may refuse: the trace says so.
  void allocate() {
    const ByteCount size((std::uint64_t{page} << below(11)) - below(page));
    const auto lifetime = below(10) == 0 ? Lifetime::long_lived : Lifetime::short_lived;
    if (below(16) == 0) {
      if (const auto extents = recorder_.allocate_scattered(size, lifetime))
        for (const Extent& extent : *extents) keep(extent);
    } else if (lifetime == Lifetime::long_lived) {
      if (const auto extent = recorder_.allocate({.size = size, .lifetime = lifetime}))
        keep(*extent);
    } else if (const auto extent = recorder_.allocate(size)) {
      keep(*extent);
    }
  }

  TraceRecorder<PageAllocator>& recorder_;
  std::mt19937_64 random_;
  std::uint64_t limit_;
  std::uint64_t used_ = 0;
  std::vector<Extent> live_;
};

}  // namespace

// [recording]
Result<void> record_sample(TraceSink& sink, const SampleWork& work) {
  auto pages = PageAllocator::create({.size = work.pool, .page = ByteCount(page)});
  if (!pages) return fail(pages.error());
  auto log = TraceLog::create(sink, {.unit = Alignment(page)});
  if (!log) return fail(log.error());
  log->set_pool_size(0, work.pool);
  TraceRecorder recorder(*log, 0, *pages);  // in place of *pages from here on

  Work doing(recorder, work);
  for (std::uint64_t i = 0; i < work.steps; ++i)
    if (const auto done = doing.step(); !done) return done;
  return log->finish();
}
// [/recording]

}  // namespace accelmm::replay
