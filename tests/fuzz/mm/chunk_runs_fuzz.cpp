// SPDX-License-Identifier: Apache-2.0
//
// Input: two bytes for the number of chunks, then (operation, argument) byte pairs.
#include "property/mm/chunk_runs_model.hpp"

#include <cstddef>
#include <cstdint>
#include <span>

namespace {

using accelmm::test::JudgedRuns;

void step(JudgedRuns& runs, std::uint8_t operation, std::uint8_t argument) {
  const std::uint64_t chunks = runs.chunks();
  const std::uint64_t at = std::uint64_t{argument} * chunks / 256;
  const std::uint64_t count = 1 + (std::uint64_t{operation} / 8) * (argument % 8 + 1U) / 2;
  switch (operation % 8) {
    case 0:
    case 1:
      runs.give(at, count);
      return;
    case 2:
      runs.take(count, 0);
      return;
    case 3:
      runs.take(count, argument % 13U);
      return;
    case 4:
      runs.take_exactly(at, count);
      return;
    case 5:
      runs.look_within(1 + argument % 16U, operation / 8U % 5, {at, chunks});
      return;
    case 6:
      runs.look_for(count, 0, 1 + argument % 3U);
      return;
    default:
      runs.judge_runs(at);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::uint8_t> input(data, size);
  if (input.size() < 4) return 0;
  JudgedRuns runs(1 + (std::uint64_t{input[0]} | std::uint64_t{input[1]} << 8) % 1500);
  for (std::size_t i = 2; i + 1 < input.size(); i += 2) step(runs, input[i], input[i + 1]);
  return 0;
}
