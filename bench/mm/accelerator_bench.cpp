// SPDX-License-Identifier: Apache-2.0
//
// What runs on accelerators: the steps of training a language model, the cache of keys and values of
// serving one, and the regime of small orders that come and go in tides.
#include "models/rmm_list.hpp"
#include "models/tlsf.hpp"
#include "rows.hpp"
#include "script.hpp"
#include "subjects.hpp"
#include "workloads.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>

namespace accelmm::bench {
namespace {

constexpr std::uint64_t page = 4096;
constexpr std::uint64_t mib = std::uint64_t{1} << 20;
constexpr std::uint64_t gib = std::uint64_t{1} << 30;

// --- llm-train ---

// A model of 32 layers, hidden size 4096, in two bytes a number, on 128 GiB. Weights and the state of
// the optimizer live for ever. A step goes forward through the layers, which each leave activations
// of five shapes and, with recompute, only the first; then backward, which frees them in reverse,
// makes gradients, and gathers weights in buckets of 25 to 500 MB. Every 50 steps the batch or the
// sequence is one longer or shorter, and no freed block fits as it is.
class Training {
 public:
  Training() : script_(128 * gib) {
    for (unsigned layer = 0; layer < layers; ++layer) {
      static_cast<void>(script_.take(weights / layers));
      static_cast<void>(script_.take(3 * weights / layers));  // moments and a copy
    }
    script_.begin();
    for (unsigned step = 0; step < 200; ++step) {
      if (step % 50 == 49) change_shape();
      recompute_ = step / 25 % 2 == 1;
      forward();
      backward();
    }
    script_.end();
    script_.give_all();
  }
  [[nodiscard]] Script& script() { return script_; }

 private:
  static constexpr unsigned layers = 32;
  static constexpr std::uint64_t hidden = 4096;
  static constexpr std::uint64_t weights = 10 * gib;

  void change_shape() {
    if (random_.below(2) == 0)
      batch_ += random_.below(2) == 0 ? 1 : -1;
    else
      sequence_ += random_.below(2) == 0 ? 1 : -1;
  }
  [[nodiscard]] std::uint64_t tokens() const {
    return static_cast<std::uint64_t>(batch_) * static_cast<std::uint64_t>(sequence_);
  }
  void forward() {
    const std::uint64_t base = tokens() * hidden * 2;
    // Of the input: the input, queries with keys and values, attention, and two of the feed-forward.
    const std::array<std::uint64_t, 5> shapes = {base, 3 * base, base, 11 * base / 4, base};
    for (unsigned layer = 0; layer < layers; ++layer) {
      const std::uint32_t bucket = gather();
      for (std::size_t i = 0; i < shapes.size(); ++i) {
        const std::uint32_t slot = script_.take(shapes[i]);
        if (recompute_ && i > 0)
          script_.give(slot);
        else
          activations_.push_back(slot);
      }
      const std::uint32_t scratch = script_.take(64 * 1024 + random_.below(1 << 20));
      script_.give(scratch);
      script_.give(bucket);
    }
  }
  void backward() {
    std::vector<std::uint32_t> gradients;
    const std::size_t each = activations_.size() / layers;
    while (!activations_.empty()) {
      const std::uint32_t bucket = gather();
      gradients.push_back(script_.take(weights / layers / 4));
      for (std::size_t i = 0; i < each; ++i) {
        const std::uint32_t gradient = script_.take(tokens() * hidden * 2);
        script_.give(activations_.back());
        activations_.pop_back();
        script_.give(gradient);
      }
      script_.give(bucket);
    }
    for (const std::uint32_t slot : gradients) script_.give(slot);
  }
  [[nodiscard]] std::uint32_t gather() {
    return script_.take((25 + std::uint64_t{random_.below(476)}) * 1'000'000);
  }

  Script script_;
  Random random_{32};
  int batch_ = 6;
  int sequence_ = 2048;
  bool recompute_ = false;
  std::vector<std::uint32_t> activations_;
};

const Script& llm_train() {
  static Training training;
  return training.script();
}

// --- kv-cache ---

// Requests come at random times (exponential gaps) with a prompt and an answer whose lengths follow
// Zipf's law, and are served together, a token each at every step. 16 tokens share a block; blocks of
// 64 KiB are a small model's, of 2 MiB a large one's; 3 and 32 GiB, at most 85 % of it in use.
Script kv_cache(std::uint64_t block) {
  struct Served {
    std::vector<std::uint32_t> blocks;
    std::uint64_t tokens;
    std::uint64_t left;
  };
  Script script(block == 2 * mib ? 32 * gib : 3 * gib);
  Random random(16);
  std::vector<double> zipf(4096);
  double sum = 0;
  for (std::size_t i = 0; i < zipf.size(); ++i) zipf[i] = sum += 1.0 / static_cast<double>(i + 1);
  const auto unit = [&] { return static_cast<double>(random() >> 11) * 0x1p-53; };
  const auto length = [&] {
    const auto at = std::ranges::lower_bound(zipf, unit() * sum) - zipf.begin();
    return 16 + static_cast<std::uint64_t>(at);
  };
  const std::uint64_t limit = script.region() / 100 * 85;
  const double gap = block == 2 * mib ? 4.0 : 0.5;  // steps between requests
  std::vector<Served> served;
  double next = 0;
  const auto grow = [&](Served& one) {
    while (one.blocks.size() * 16 < one.tokens) one.blocks.push_back(script.take(block));
  };
  for (double step = 0; script.acts().size() < 150'000; step += 1) {
    while (next <= step) {
      next += -std::log(1.0 - unit()) * gap;
      const std::uint64_t tokens = length();
      if (script.live() + (tokens / 16 + 1) * block > limit) continue;  // turned away
      Served& one = served.emplace_back(Served{{}, tokens, length()});
      grow(one);
    }
    for (std::size_t i = 0; i < served.size();) {
      Served& one = served[i];
      if (one.left-- == 0 || script.live() + block > limit) {
        for (const std::uint32_t slot : one.blocks) script.give(slot);
        std::swap(one, served.back());
        served.pop_back();
        continue;
      }
      ++one.tokens;
      grow(one);
      ++i;
    }
  }
  script.end();
  script.give_all();
  return script;
}
template <std::uint64_t Block>
const Script& kv_cache() {
  static const Script script = kv_cache(Block);
  return script;
}

// --- osc08 ---

// 4 GiB in blocks of orders 0 to 8. The use goes up to 80 % and down to 40 %, over and over; which
// block dies is random.
const Script& osc08() {
  static const Script script = [] {
    Script made(4 * gib);
    Random random(8);
    std::vector<std::uint32_t> live;
    std::vector<std::uint64_t> sizes;
    for (unsigned tide = 0; tide < 12; ++tide) {
      while (made.live() < made.region() / 100 * 80) {
        const std::uint64_t size = page << random.below(9);
        live.push_back(made.take(size));
        if (random.below(3) != 0) continue;
        std::swap(live[random.below(static_cast<std::uint32_t>(live.size()))], live.back());
        made.give(live.back());
        live.pop_back();
      }
      while (made.live() > made.region() / 100 * 40) {
        std::swap(live[random.below(static_cast<std::uint32_t>(live.size()))], live.back());
        made.give(live.back());
        live.pop_back();
      }
    }
    made.end();
    made.give_all();
    return made;
  }();
  return script;
}

// --- the rows ---

template <class Subject>
const Course& course_of(const std::string& work, const std::string& who,
                        const Script& (*script)()) {
  static std::vector<std::pair<std::string, Course>> courses;
  for (const auto& [name, course] : courses)
    if (name == work) return course;
  Subject subject(script().region());
  Course course = check_script(subject, script(), work, who, looks_of_a_series);
  if (course.flaw.empty() && !subject.whole()) course.flaw = "not whole at the end";
  return courses.emplace_back(work, std::move(course)).second;
}

// By how many per cent the smallest region in which nothing is refused exceeds what is live at most, to
// a quarter of a per cent. Larger regions are taken to serve what smaller ones do.
template <class Subject>
double room_needed(const Script& script) {
  const auto bytes = [&](double per_cent) {
    const double size = static_cast<double>(script.peak()) * (1 + per_cent / 100);
    return static_cast<std::uint64_t>(size) / (2 * mib) * (2 * mib) + 2 * mib;
  };
  double refused = -0.25;
  double served =
      100 * (static_cast<double>(script.region()) / static_cast<double>(script.peak()) - 1);
  while (served - refused > 0.25) {
    const double middle = (served + refused) / 2;
    Subject subject(bytes(middle));
    ScriptPlayer<Subject> player(subject, script);
    (player.play(0, script.acts().size()) ? served : refused) = middle;
  }
  return std::max(served, 0.0);
}

template <class Subject>
void add_rows(const std::string& work, const std::string& who, const Script& (*script)()) {
  add_row(work, who, [=](benchmark::State& state) {
    const Course& course = course_of<Subject>(work, who, script);
    if (!course.flaw.empty()) return state.SkipWithError(course.flaw.c_str());
    Subject subject(script().region());
    time_script(state, subject, script());
    if (!subject.whole()) state.SkipWithError("not whole at the end");
  })->UseManualTime();
  const std::string suffix = who == "ours" ? "" : "-" + who;
  const auto value = [=](const std::string& name, const char* unit, auto of) {
    add_row(work + name + suffix, who,
            [=](benchmark::State& state) {
              const Course& course = course_of<Subject>(work, who, script);
              if (!course.flaw.empty()) return state.SkipWithError(course.flaw.c_str());
              for (auto _ : state) benchmark::ClobberMemory();
              state.counters[unit] = of(course);
            })
        ->Iterations(1)
        ->Repetitions(1);
  };
  value("-whole", "% of free in whole 2 MiB, at least",
        [](const Course& course) { return course.least_whole; });
  value("-waste", "% of peak reserved not live", [](const Course& course) {
    return std::max(0.0, 100 * (1 - course.peak_live / course.peak_reserved));
  });
  add_row(work + "-room" + suffix, who,
          [=](benchmark::State& state) {
            const Course& course = course_of<Subject>(work, who, script);
            if (!course.flaw.empty()) return state.SkipWithError(course.flaw.c_str());
            double room = 0;
            for (auto _ : state) room = room_needed<Subject>(script());
            state.counters["% above peak live, least region"] = room;
          })
      ->Iterations(1)
      ->Repetitions(1);
}

void add_all(const std::string& work, const Script& (*script)()) {
  add_rows<PageSubject>(work, "ours", script);
  add_rows<TlsfModel>(work, "model-tlsf", script);
}

const bool registered = [] {
  add_all("llm-train", llm_train);
  add_rows<RmmListModel>("llm-train", "model-rmm-list", llm_train);
  add_all("kv-cache-64k", kv_cache<64 * 1024>);
  add_all("kv-cache-2m", kv_cache<2 * mib>);
  add_rows<RmmListModel>("kv-cache-2m", "model-rmm-list", kv_cache<2 * mib>);
  add_all("osc08", osc08);
  return true;
}();

}  // namespace
}  // namespace accelmm::bench
