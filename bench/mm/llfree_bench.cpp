// SPDX-License-Identifier: Apache-2.0
//
// The shapes of LLFree's benchmarks (Wrenger et al., USENIX ATC 2023), over 4 GiB: frames taken and
// freed in bulk, freed at random, one over and over, and at several levels of filling.
#include "models/tlsf.hpp"
#include "rows.hpp"
#include "script.hpp"
#include "subjects.hpp"
#include "workloads.hpp"

#include <cstdint>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>

namespace accelmm::bench {
namespace {

constexpr std::uint64_t region = std::uint64_t{4} << 30;
constexpr std::uint64_t page = 4096;

void shuffle(std::vector<std::uint32_t>& slots, Random& random) {
  for (std::size_t i = slots.size(); i > 1; --i)
    std::swap(slots[i - 1], slots[random.below(static_cast<std::uint32_t>(i))]);
}

enum class Freed { in_order, at_random };

// Half of the region in frames of one order, then all of them freed.
Script frames(unsigned order, Freed freed) {
  Script script(region);
  std::vector<std::uint32_t> slots(region / 2 / (page << order));
  for (std::uint32_t& slot : slots) slot = script.take(page << order);
  Random random(1);
  if (freed == Freed::at_random) shuffle(slots, random);
  for (const std::uint32_t slot : slots) script.give(slot);
  return script;
}
template <unsigned Order, Freed How>
const Script& frames() {
  static const Script script = frames(Order, How);
  return script;
}

// All frames taken, and so many of 100 freed at random; then the same number taken and freed again.
Script filled(unsigned free_per_cent) {
  Script script(region);
  std::vector<std::uint32_t> slots(region / page);
  for (std::uint32_t& slot : slots) slot = script.take(page);
  Random random(2);
  shuffle(slots, random);
  const std::size_t count = slots.size() * free_per_cent / 100;
  for (std::size_t i = 0; i < count; ++i) script.give(slots[i]);
  script.begin();
  for (std::size_t i = 0; i < count; ++i) slots[i] = script.take(page);
  for (std::size_t i = 0; i < count; ++i) script.give(slots[i]);
  script.end();
  script.give_all();
  return script;
}
template <unsigned FreePerCent>
const Script& filled() {
  static const Script script = filled(FreePerCent);
  return script;
}

void add_rows(const std::string& work, const Script& (*script)()) {
  add_script_row<PageSubject>(work, "ours", script);
  add_script_row<TlsfModel>(work, "model-tlsf", script);
}

template <class Subject>
void repeat(benchmark::State& state, std::uint64_t size) {
  Subject subject(region);
  hot_pair(state, subject, {.size = size});
  if (!subject.whole()) state.SkipWithError("not whole at the end");
}

const bool registered = [] {
  add_rows("ll-bulk-o0", frames<0, Freed::in_order>);
  add_rows("ll-bulk-o9", frames<9, Freed::in_order>);
  add_rows("ll-rand-o0", frames<0, Freed::at_random>);
  add_rows("ll-rand-o3", frames<3, Freed::at_random>);
  add_rows("ll-rand-o9", frames<9, Freed::at_random>);
  // Order 0 is page-hot-4k, order 9 page-hot-2m.
  for (const unsigned order : {1U, 3U, 6U, 10U}) {
    const std::string work = "ll-repeat-o" + std::to_string(order);
    const std::uint64_t size = page << order;
    add_row(work, "ours", [=](auto& state) { repeat<PageSubject>(state, size); });
    add_row(work, "model-tlsf", [=](auto& state) { repeat<TlsfModel>(state, size); });
  }
  add_rows("ll-fill-50", filled<50>);
  add_rows("ll-fill-90", filled<10>);
  add_rows("ll-fill-99", filled<1>);
  return true;
}();

}  // namespace
}  // namespace accelmm::bench
