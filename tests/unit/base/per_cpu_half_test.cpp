// SPDX-License-Identifier: Apache-2.0
#include "base/per_cpu_half.hpp"

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

using per_cpu::Halves;
using per_cpu::SlotLock;
using per_cpu::Word;

struct alignas(64) Halved {
  SlotLock lock;
  Word check = 1;
  Word word = 0;
};

TEST(PerCpuHalf, HalvesAndWordSayTheSame) {
  const Word word = 0x1234'5678'9abc'def0;
  const Halves halves = per_cpu::load_halves(word);
  EXPECT_EQ(0x9abc'def0U, halves.low);
  EXPECT_EQ(0x1234'5678U, halves.high);
  EXPECT_EQ(word, halves.word());
  EXPECT_EQ(word, Halves::of(word).word());
}

TEST(PerCpuHalf, NothingIsStoredWhenTheCheckAHalfOrTheSlotIsAnother) {
  static_cast<void>(per_cpu::slots());
  Halved halved;
  halved.word = Halves{.low = 5, .high = 7}.word();
  const auto store = [&](unsigned slot, std::uint64_t check, Halves expected) {
    return per_cpu::store_low_if(slot, halved.lock, halved.check, check, halved.word, expected, 6);
  };
  const unsigned slot = per_cpu::current();
  EXPECT_FALSE(store(slot, 2, {.low = 5, .high = 7}));
  EXPECT_FALSE(store(slot, 1, {.low = 4, .high = 7}));
  EXPECT_FALSE(store(slot, 1, {.low = 5, .high = 8}));
  if (per_cpu::restartable()) {
    EXPECT_FALSE(store(per_cpu::slots(), 1, {.low = 5, .high = 7}));
  }
  EXPECT_EQ((Halves{.low = 5, .high = 7}.word()), halved.word);
  while (!store(per_cpu::current(), 1, {.low = 5, .high = 7})) {
  }
  EXPECT_EQ((Halves{.low = 6, .high = 7}.word()), halved.word);
}

// Slots count in the lower halves of their own words while other threads count in the upper ones.
TEST(PerCpuHalf, StoresOfOneHalfLoseNoneOfTheOther) {
  const auto words = std::make_unique<Halved[]>(per_cpu::slots());
  constexpr unsigned threads = 2;
  constexpr std::uint32_t rounds = 20'000;
  {
    std::vector<std::jthread> all;
    for (unsigned t = 0; t < threads; ++t) {
      all.emplace_back([&] {
        for (std::uint32_t done = 0; done < rounds;) {
          const unsigned slot = per_cpu::current();
          Halved& mine = words[slot];
          const Halves seen = per_cpu::load_halves(mine.word);
          if (per_cpu::store_low_if(slot, mine.lock, mine.check, 1, mine.word, seen, seen.low + 1))
            ++done;
        }
      });
      all.emplace_back([&] {
        for (std::uint32_t i = 0; i < rounds; ++i)
          words[i % per_cpu::slots()].word.fetch_add(std::uint64_t{1} << 32);
      });
    }
  }
  std::uint64_t low = 0;
  std::uint64_t high = 0;
  for (unsigned slot = 0; slot < per_cpu::slots(); ++slot) {
    const Halves halves = Halves::of(words[slot].word);
    low += halves.low;
    high += halves.high;
  }
  EXPECT_EQ(std::uint64_t{threads} * rounds, low);
  EXPECT_EQ(std::uint64_t{threads} * rounds, high);
}

}  // namespace
}  // namespace accelmm::test
