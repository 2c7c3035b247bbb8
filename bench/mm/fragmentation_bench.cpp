// SPDX-License-Identifier: Apache-2.0
//
// What is left for large requests after much small work: two experiments over 16 GiB, judged by a
// map of live pages that the benchmark keeps itself.
#include "models/tlsf.hpp"
#include "rows.hpp"
#include "subjects.hpp"
#include "verify.hpp"
#include "workloads.hpp"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>

namespace accelmm::bench {
namespace {

constexpr std::uint64_t region = std::uint64_t{16} << 30;
constexpr std::uint64_t page = 4096;

// The shape of LLFree's fragmentation benchmark: pages taken, a random half given back; then, time
// after time, a random tenth of the live ones is freed and as many are allocated. 63 of 64 pages are
// taken at first, so that 4 160 of 8 192 chunks could be whole in the end; of all pages, 4 096.
template <class Subject>
class HalfLive {
 public:
  using Piece = PieceOf<Subject>;
  explicit HalfLive(Subject& subject) : subject_(subject), map_(region) {}

  [[nodiscard]] bool fill() {
    live_.resize(region / page / 64 * 63);
    for (Piece& piece : live_)
      if (!subject_.take(page, piece)) return false;
    return free_random(live_.size() / 2);
  }
  [[nodiscard]] bool reallocate_a_tenth() {
    const std::size_t count = live_.size() / 10;
    if (!free_random(count)) return false;
    for (std::size_t i = 0; i < count; ++i)
      if (!subject_.take(page, live_.emplace_back())) return false;
    return true;
  }
  /// Draws the map anew. Returns false if a page is live twice.
  [[nodiscard]] bool draw() {
    map_.clear();
    for (const Piece& piece : live_) {
      const std::uint64_t begin = subject_.address(piece);
      if (!map_.add({begin, begin + page})) return false;
    }
    return true;
  }
  [[nodiscard]] const PageMap& map() const { return map_; }

 private:
  [[nodiscard]] bool free_random(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      std::swap(live_[random_.below(static_cast<std::uint32_t>(live_.size()))], live_.back());
      if (!subject_.give(live_.back())) return false;
      live_.pop_back();
    }
    return true;
  }
  Subject& subject_;
  PageMap map_;
  std::vector<Piece> live_;
  Random random_{100};
};

template <class Subject>
void half_live_100(benchmark::State& state, Subject& subject, const std::string& who) {
  HalfLive<Subject> work(subject);
  for (auto _ : state) {
    if (!work.fill()) return state.SkipWithError("refused");
    for (std::uint64_t step = 0; step <= 100; ++step) {
      if (step > 0 && !work.reallocate_a_tenth()) return state.SkipWithError("refused");
      if (step < 100 && !(series_recorded() && step % 2 == 0)) continue;
      if (!work.draw()) return state.SkipWithError("gave the same page out twice");
      add_look("frag-ll-100", who, step, work.map().look());
    }
  }
  state.counters["whole 2 MiB chunks"] = static_cast<double>(work.map().whole_free_chunks());
}

// Steady churn of one to eight pages at 80 % use. Which piece dies is random, and so is, without
// memory, how long each lives. It begins where nothing whole is free: all of the region was taken
// by the same mix, and a random fifth given back.
template <class Subject>
class Churn {
 public:
  using Piece = PieceOf<Subject>;
  explicit Churn(Subject& subject) : subject_(subject), map_(region) {}

  [[nodiscard]] bool fill() {
    while (used_ + next_ <= region)
      if (!allocate()) return false;
    while (used_ > limit)
      if (!free_one()) return false;
    allocated_ = 0;
    return true;
  }
  /// One allocation, or one free where the next allocation would exceed the limit.
  [[nodiscard]] bool step() { return used_ + next_ <= limit ? allocate() : free_one(); }
  /// Steps until so many bytes were allocated since fill().
  [[nodiscard]] bool run_to(std::uint64_t allocated) {
    while (allocated_ < allocated)
      if (!step()) return false;
    return true;
  }
  [[nodiscard]] bool draw() {
    map_.clear();
    for (const Live& live : live_) {
      const std::uint64_t begin = subject_.address(live.piece);
      if (!map_.add({begin, begin + live.size})) return false;
    }
    return true;
  }
  [[nodiscard]] const PageMap& map() const { return map_; }

  static constexpr std::uint64_t limit = region / 10 * 8;

 private:
  [[nodiscard]] bool allocate() {
    Live& live = live_.emplace_back();
    live.size = next_;
    if (!subject_.take(live.size, live.piece)) return false;
    used_ += next_;
    allocated_ += next_;
    next_ = page << random_.below(4);
    return true;
  }
  [[nodiscard]] bool free_one() {
    std::swap(live_[random_.below(static_cast<std::uint32_t>(live_.size()))], live_.back());
    used_ -= live_.back().size;
    const bool freed = subject_.give(live_.back().piece);
    live_.pop_back();
    return freed;
  }
  struct Live {
    Piece piece{};
    std::uint64_t size = 0;
  };
  Subject& subject_;
  PageMap map_;
  std::vector<Live> live_;
  Random random_{80};
  std::uint64_t used_ = 0;
  std::uint64_t allocated_ = 0;
  std::uint64_t next_ = page;
};

// After so many times the live memory was allocated anew, a policy that gathers has settled.
constexpr std::uint64_t turnovers = 12;

// The churn once it has settled, kept for all rows and repetitions.
template <class Subject>
class SettledChurn {
 public:
  [[nodiscard]] static SettledChurn& get(const std::string& who) {
    static SettledChurn churn(who);
    return churn;
  }
  [[nodiscard]] const std::string& flaw() const { return flaw_; }
  [[nodiscard]] Look look() const { return look_; }
  [[nodiscard]] Churn<Subject>& churn() { return churn_; }

 private:
  explicit SettledChurn(const std::string& who) : subject_(region), churn_(subject_) {
    constexpr std::uint64_t looks = 4;  // for each turnover
    if (!churn_.fill()) flaw_ = "refused to fill";
    for (std::uint64_t at = 0; at <= turnovers * looks && flaw_.empty(); ++at) {
      if (!churn_.run_to(churn_.limit / looks * at)) flaw_ = "refused";
      if (at < turnovers * looks && !series_recorded()) continue;
      if (!churn_.draw()) flaw_ = "gave the same page out twice";
      add_look("frag-churn-80", who, at, churn_.map().look());
    }
    look_ = churn_.map().look();
  }
  Subject subject_;
  Churn<Subject> churn_;
  Look look_{};
  std::string flaw_;
};

template <class Subject>
void churn_80(benchmark::State& state, const std::string& who) {
  const auto& settled = SettledChurn<Subject>::get(who);
  if (!settled.flaw().empty()) return state.SkipWithError(settled.flaw().c_str());
  for (auto _ : state) benchmark::ClobberMemory();
  state.counters["% of free memory in whole 2 MiB"] = 100.0 - settled.look().fragmentation;
}

template <class Subject>
void churn_cost(benchmark::State& state, const std::string& who) {
  auto& settled = SettledChurn<Subject>::get(who);
  if (!settled.flaw().empty()) return state.SkipWithError(settled.flaw().c_str());
  auto& churn = settled.churn();
  for (auto _ : state)
    if (!churn.step()) return state.SkipWithError("refused");
  if (!churn.draw()) state.SkipWithError("gave the same page out twice");
}

// A value row has no column for a peer: the model's have its name in theirs.
template <class Subject>
void add_rows_of(const std::string& who, const std::string& suffix) {
  using benchmark::State;
  add_row("frag-ll-100" + suffix, who,
          [=](State& state) {
            Subject subject(region);
            half_live_100(state, subject, who);
          })
      ->Iterations(1)
      ->Repetitions(1);
  add_row("frag-churn-80" + suffix, who, [=](State& state) { churn_80<Subject>(state, who); })
      ->Iterations(1)
      ->Repetitions(1);
  add_row("frag-churn-80-cost", who, [=](State& state) { churn_cost<Subject>(state, who); });
}

const bool registered = [] {
  add_rows_of<PageSubject>("ours", "");
  add_rows_of<TlsfModel>("model-tlsf", "-model-tlsf");
  return true;
}();

}  // namespace
}  // namespace accelmm::bench
