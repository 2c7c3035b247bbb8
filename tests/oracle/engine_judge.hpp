// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "oracle/compare.hpp"
#include "oracle/oracle.hpp"
#include "property/mm/steps.hpp"
#include "property/mmu/interval_model.hpp"
#include "unit/mmu/tables_fixture.hpp"

#include <accelmm/mmu/page_table.hpp>
#include <accelmm/mmu/table_pool.hpp>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <optional>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::test {

/// Has the engine write tables of the format F into an oracle's memory, at random, and asks the
/// oracle what they mean.
template <mmu::PteFormat F>
class EngineJudge {
  using G = mmu::Geometry<F>;
  using Tree = mmu::PageTable<F, mmu::TablePool>;

 public:
  /// Bits that a walker wants equal to the highest of the address, if it extends the sign.
  enum class Extension { zero, sign };

  EngineJudge(Oracle& oracle, Extension extension, Dice& dice)
      : oracle_(oracle), extension_(extension), dice_(dice), pool_(pool_over(oracle)) {
    tree_.emplace(std::move(*Tree::create(pool_)));
  }
  EngineJudge(const EngineJudge&) = delete;
  EngineJudge& operator=(const EngineJudge&) = delete;
  ~EngineJudge() { mmu::test::release(tree_->detach_all()); }

  /// Maps, unmaps, protects, splits and asks `count` times.
  void run(std::uint64_t count) {
    constexpr std::uint64_t rounds = 4;
    for (std::uint64_t round = 0; round < rounds; ++round) {
      for (int i = 0; i < 60; ++i) map_something();
      for (int i = 0; i < 20; ++i) change_something();
      tree_->validate();
      for (const Access wanted : {Access::read, Access::write}) {
        const auto questions = ask(count / rounds / 2, wanted);
        ASSERT_TRUE(compare(oracle_, tree_->root().value(), questions, wanted));
      }
    }
  }

  /// Flips a bit of the word that maps a random address: the oracle must notice.
  void plant_wrong_bit() {
    const auto questions = ask(1, Access::read, Ask::mapped);
    const auto walk = tree_->walk(DeviceAddr(questions[0].address & (G::va_end - 1)));
    const mmu::WalkStep& leaf = walk.steps().back();
    const auto wrong = static_cast<typename F::Word>(leaf.entry ^ wrong_bits(leaf));
    store(leaf, wrong);
    EXPECT_FALSE(compare(oracle_, tree_->root().value(), questions));
    store(leaf, static_cast<typename F::Word>(leaf.entry));
    EXPECT_TRUE(compare(oracle_, tree_->root().value(), questions));
  }

  [[nodiscard]] std::uint64_t asked() const { return asked_; }

 private:
  static mmu::TablePool pool_over(Oracle& oracle) {
    const auto memory = oracle.memory();
    std::memset(memory.data(), 0, memory.size());
    auto pool =
        mmu::TablePool::create({.begin = BusAddr(oracle.base()),
                                .size = ByteCount(std::min<std::size_t>(memory.size(), 8 << 20)),
                                .cpu_view = memory.data(),
                                .table_bytes = std::max<std::uint64_t>(4096, G::largest_table())});
    ACCELMM_CHECK(pool.has_value());
    return std::move(*pool);
  }

  // Anywhere in the address space, near some place where all hops change.
  std::uint64_t somewhere() {
    const std::uint64_t places = std::uint64_t{1} << std::min(G::va_bits, 8U);
    const std::uint64_t place = (G::va_end / places) * dice_.roll(places);
    return place + dice_.roll(1 << 14) * G::page_size;
  }

  void map_something() {
    const std::uint64_t leaf = random_leaf();
    std::uint64_t va = somewhere() & ~(leaf - 1);
    std::uint64_t length = leaf * (1 + dice_.roll(3));
    std::uint64_t bus = (std::uint64_t{1} << 32) + dice_.roll(1 << 12) * leaf;
    if (dice_.roll(2) == 0) {  // neighbours of small leaves before and after
      va += G::page_size * dice_.roll(4);
      bus += G::page_size * dice_.roll(4);
      length = std::min(length, leaf + (std::uint64_t{1} << 22)) + G::page_size * dice_.roll(8);
    }
    if ((va ^ bus) % leaf != 0) length = std::min(length, 700 * G::page_size);
    if (va + length > G::va_end ||
        (F::bus_bits < 64 && bus + length > std::uint64_t{1} << F::bus_bits))
      return;
    const mmu::Attributes attributes = random_attributes();
    const std::vector<Run> runs{{BusAddr(bus), ByteCount(length)}};
    if (tree_->map(DeviceAddr(va), runs, attributes)) model_.insert(va, length, bus, attributes);
  }

  void change_something() {
    if (model_.intervals().empty()) return;
    const auto& [begin, interval] =
        *std::next(model_.intervals().begin(),
                   static_cast<std::ptrdiff_t>(dice_.roll(model_.intervals().size())));
    const std::uint64_t pages = (interval.end - begin) / G::page_size;
    const std::uint64_t first = begin + dice_.roll(pages) * G::page_size;
    const std::uint64_t end =
        first + (1 + dice_.roll((interval.end - first) / G::page_size)) * G::page_size;
    const Range<DeviceAddr> range{DeviceAddr(first), DeviceAddr(end)};
    const auto no_device = [](Range<DeviceAddr>) {};
    if (dice_.roll(2) == 0) {
      auto gone = tree_->unmap(range, {mmu::Edges::split, mmu::Gaps::refuse}, no_device);
      if (!gone) return;
      mmu::test::release(std::move(*gone));
      model_.erase(first, end);
    } else {
      const mmu::Attributes attributes = random_attributes();
      if (tree_->protect(range, attributes, {mmu::Edges::split, mmu::Gaps::refuse}, no_device))
        model_.protect(first, end, attributes);
    }
  }

  enum class Ask { anything, mapped };
  std::vector<Expectation> ask(std::uint64_t count, Access wanted, Ask what = Ask::anything) {
    std::vector<Expectation> questions;
    while (questions.size() < count) {
      std::uint64_t va = somewhere();
      if (what == Ask::mapped || dice_.roll(4) != 0) {
        const auto& [begin, interval] =
            *std::next(model_.intervals().begin(),
                       static_cast<std::ptrdiff_t>(dice_.roll(model_.intervals().size())));
        va = begin + dice_.roll(interval.end - begin);
        if (what == Ask::anything && dice_.roll(4) == 0)
          va = dice_.roll(2) == 0 ? begin : interval.end - 1;
      }
      const auto meaning = model_.at(va);
      std::optional<OracleAnswer> answer;
      if (meaning && allows(meaning->attributes.access, wanted))
        answer = OracleAnswer{meaning->bus, tree_->translate(DeviceAddr(va))->leaf_size.value()};
      if (what == Ask::mapped && !answer) continue;
      questions.push_back({extended(va), answer});
    }
    asked_ += count;
    return questions;
  }

  [[nodiscard]] std::uint64_t extended(std::uint64_t va) const {
    const bool negative = (va >> (G::va_bits - 1) & 1) != 0;
    return extension_ == Extension::sign && negative ? va | ~(G::va_end - 1) : va;
  }

  std::uint64_t random_leaf() {
    std::uint64_t sizes = G::leaf_sizes() & ((std::uint64_t{1} << 31) - 1);
    for (auto skip = dice_.roll(static_cast<std::uint64_t>(std::popcount(sizes))); skip > 0; --skip)
      sizes &= sizes - 1;
    return sizes & (~sizes + 1);
  }

  mmu::Attributes random_attributes() {
    for (;;) {
      const mmu::Attributes attributes(static_cast<Access>(1 + dice_.roll(3)));
      if (F::leaf_bits(attributes)) return attributes;
    }
  }

  // The lowest bit of the address field that the leaf's size leaves.
  [[nodiscard]] static std::uint64_t wrong_bits(const mmu::WalkStep& leaf) {
    const auto word = static_cast<typename F::Word>(leaf.entry);
    const unsigned lg2 = F::leaf_lg2(leaf.hop, word);
    const std::uint64_t there = F::leaf_address(leaf.hop, word).value();
    const auto bits = F::leaf_bits(F::attributes(leaf.hop, word));
    return F::make_leaf(leaf.hop, lg2, BusAddr(there & ~((std::uint64_t{1} << lg2) - 1)), *bits) ^
           F::make_leaf(
               leaf.hop, lg2,
               BusAddr((there & ~((std::uint64_t{1} << lg2) - 1)) ^ (std::uint64_t{1} << lg2)),
               *bits);
  }
  void store(const mmu::WalkStep& step, typename F::Word word) {
    std::memcpy(
        oracle_.memory().data() + (step.table.value() - oracle_.base()) + step.index * sizeof word,
        &word, sizeof word);
  }

  Oracle& oracle_;
  Extension extension_;
  Dice& dice_;
  mmu::TablePool pool_;
  std::optional<Tree> tree_;
  mmu::test::IntervalModel model_;
  std::uint64_t asked_ = 0;
};

}  // namespace accelmm::test
