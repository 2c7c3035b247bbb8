// SPDX-License-Identifier: Apache-2.0
//
// Device addresses: replaced at random among 100 000 live ones, and taken from a million holes.
#include "models/habanalabs_list.hpp"
#include "rows.hpp"
#include "workloads.hpp"

#include <accelmm/va_allocator.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>

namespace accelmm::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::uint64_t page = 4096;
constexpr std::uint64_t large = std::uint64_t{2} << 20;
constexpr std::uint64_t range_begin = large;
constexpr std::uint64_t range_end = std::uint64_t{1} << 48;

class VaSubject {
 public:
  struct Piece {
    Range<DeviceAddr> range;
  };
  VaSubject() : addresses_(make()) {}
  [[nodiscard]] bool take(std::uint64_t size, Piece& piece) { return take(size, page, piece); }
  [[nodiscard]] bool take(std::uint64_t size, std::uint64_t alignment, Piece& piece) {
    const auto got = addresses_.allocate(ByteCount(size), Alignment(alignment));
    if (got) piece.range = *got;
    return got.has_value();
  }
  [[nodiscard]] bool give(const Piece& piece) {
    return addresses_.free(piece.range.begin).has_value();
  }
  [[nodiscard]] std::uint64_t address(const Piece& piece) const {
    return piece.range.begin.value();
  }
  [[nodiscard]] bool whole() const {
    addresses_.validate();
    return addresses_.holes() == 1;
  }
  [[nodiscard]] VaAllocator& addresses() { return addresses_; }

 private:
  static VaAllocator make() {
    auto made =
        VaAllocator::create({DeviceAddr(range_begin), DeviceAddr(range_end)}, Alignment(page));
    if (!made) std::abort();
    return std::move(*made);
  }
  VaAllocator addresses_;
};

class ListSubject : public HabanalabsListModel {
 public:
  ListSubject() : HabanalabsListModel(range_begin, range_end, page) {}
};

// 4 KiB to 64 MiB, whole pages, each doubling as likely as any other.
std::uint64_t draw(Random& random) {
  const std::uint32_t order = random.below(14);
  return page * ((std::uint64_t{1} << order) + random.below(std::uint32_t{1} << order));
}

constexpr std::size_t live_pieces = 100'000;
constexpr std::size_t drawn = std::size_t{1} << 16;

/// Pieces that live in a subject, and what replaces them.
template <class Subject>
class Population {
 public:
  Population(std::size_t pieces, std::uint64_t alignment) : alignment_(alignment) {
    Random random(20260102);
    live_.resize(pieces);
    for (Live& live : live_) {
      live.size = draw(random);
      ok_ = ok_ && take(live);
    }
    steps_.resize(drawn);
    for (Step& step : steps_)
      step = {random.below(static_cast<std::uint32_t>(pieces)), draw(random)};
  }
  [[nodiscard]] bool ok() const { return ok_; }
  /// Frees a random piece and allocates another.
  [[nodiscard]] bool replace() {
    const Step step = steps_[at_++ & (drawn - 1)];
    Live& live = live_[step.slot];
    if (!subject_.give(live.piece)) return false;
    live.size = step.size;
    return take(live);
  }
  /// What is wrong with what the subject gave out, or nullptr; frees it all.
  [[nodiscard]] const char* flaw() {
    std::vector<Interval> intervals;
    for (const Live& live : live_) {
      const std::uint64_t begin = subject_.address(live.piece);
      if (begin % alignment_ != 0) return "not aligned";
      if (begin < range_begin || begin + live.size > range_end) return "out of range";
      intervals.push_back({begin, begin + live.size});
      if (!subject_.give(live.piece)) return "refused to free at the end";
    }
    if (!disjoint(std::move(intervals))) return "gave the same place out twice";
    return subject_.whole() ? nullptr : "not whole at the end";
  }

 private:
  struct Live {
    typename Subject::Piece piece{};
    std::uint64_t size = 0;
  };
  struct Step {
    std::uint32_t slot;
    std::uint64_t size;
  };
  [[nodiscard]] bool take(Live& live) { return subject_.take(live.size, alignment_, live.piece); }

  std::uint64_t alignment_;
  Subject subject_;
  std::vector<Live> live_;
  std::vector<Step> steps_;
  std::size_t at_ = 0;
  bool ok_ = true;
};

// Its time is a free and an allocation together.
template <class Subject>
void random_100k(benchmark::State& state, std::uint64_t alignment) {
  Population<Subject> population(live_pieces, alignment);
  if (!population.ok()) return state.SkipWithError("refused to fill");
  for (auto _ : state)
    if (!population.replace()) return state.SkipWithError("refused");
  if (const char* flaw = population.flaw()) state.SkipWithError(flaw);
}

/// The 99th percentile of one operation, of batches of so many.
constexpr std::size_t batch = 8;
constexpr std::size_t batches = 100'000;
constexpr std::size_t many_holes = 1'000'000;

// Every other one of two million intervals is free: a million holes of 4 KiB to 64 MiB, no two of
// them neighbours. A random interval is freed and another taken, over and over; the clock is read
// once for 8 of these 16 operations each.
void million_holes(benchmark::State& state) {
  VaSubject subject;
  Random random(20260103);
  std::vector<VaSubject::Piece> live;
  for (auto _ : state) {
    std::vector<VaSubject::Piece> gone;
    for (std::size_t i = 0; i < 2 * many_holes; ++i) {
      VaSubject::Piece piece{};
      if (!subject.take(draw(random), piece)) return state.SkipWithError("refused to fill");
      (i % 2 == 0 ? gone : live).push_back(piece);
    }
    for (const auto& piece : gone)
      if (!subject.give(piece)) return state.SkipWithError("refused to free");
    if (subject.addresses().holes() < many_holes) return state.SkipWithError("too few holes");
    std::vector<double> times;
    times.reserve(batches);
    std::uint32_t slots[batch];
    std::uint64_t sizes[batch];
    for (std::size_t i = 0; i < batches; ++i) {
      for (std::size_t k = 0; k < batch; ++k) {
        slots[k] = random.below(static_cast<std::uint32_t>(live.size()));
        sizes[k] = draw(random);
      }
      bool done = true;
      const auto start = Clock::now();
      for (std::size_t k = 0; k < batch; ++k)
        done = subject.give(live[slots[k]]) && subject.take(sizes[k], live[slots[k]]) && done;
      const std::chrono::duration<double, std::nano> took = Clock::now() - start;
      if (!done) return state.SkipWithError("refused");
      times.push_back(took.count() / (2 * batch));
    }
    const auto at = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 100 * 99);
    std::ranges::nth_element(times, at);
    state.counters["ns"] = *at;
  }
  for (const auto& piece : live)
    if (!subject.give(piece)) state.SkipWithError("refused to free at the end");
  if (!subject.whole()) state.SkipWithError("not whole at the end");
}

const bool registered = [] {
  const std::string random = "va-random-100k";
  add_row(random, "ours", [](auto& state) { random_100k<VaSubject>(state, page); });
  add_row(random, "model-habanalabs-list", [](auto& state) {
    random_100k<ListSubject>(state, page);
  })->Iterations(2000);
  const std::string aligned = "va-aligned-2m";
  add_row(aligned, "ours", [](auto& state) { random_100k<VaSubject>(state, large); });
  add_row(aligned, "ours-unaligned", [](auto& state) { random_100k<VaSubject>(state, page); });
  add_row(aligned, "model-habanalabs-list", [](auto& state) {
    random_100k<ListSubject>(state, large);
  })->Iterations(2000);
  add_row("va-million-holes", "ours", million_holes)->Iterations(1);
  return true;
}();

}  // namespace
}  // namespace accelmm::bench
