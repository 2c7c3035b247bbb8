// SPDX-License-Identifier: Apache-2.0
//
// Trees of every format against an interval model: map, prepare and commit, unmap, protect, split and
// merge at random, and validate() again and again.
#include "property/mm/steps.hpp"
#include "property/mmu/judged_tree.hpp"

#include <accelmm/mmu/aarch64.hpp>
#include <accelmm/mmu/amd_iommu.hpp>
#include <accelmm/mmu/gaudi.hpp>
#include <accelmm/mmu/hopper.hpp>
#include <accelmm/mmu/ivpu.hpp>
#include <accelmm/mmu/npu1.hpp>
#include <accelmm/mmu/riscv.hpp>
#include <accelmm/mmu/rockchip.hpp>
#include <accelmm/mmu/vtd.hpp>
#include <accelmm/mmu/x86_64.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::mmu {
namespace {

using accelmm::test::Dice;
using accelmm::test::number_from_environment;
using accelmm::test::Tally;
using test::JudgedTree;
using test::run;
using test::Runs;

template <PteFormat F>
class RandomTree {
  using G = Geometry<F>;
  static constexpr std::uint64_t page = G::page_size;

 public:
  // The window is around a place where tables of every hop change.
  static constexpr std::uint64_t window_pages = 16'384;
  static constexpr std::uint64_t middle = std::uint64_t{1} << (G::va_bits - 1);
  static constexpr std::uint64_t begin = middle - window_pages / 2 * page;

  RandomTree(const char* name, std::uint32_t tables)
      : name_(name),
        dice_(name),
        tree_(tables, {DeviceAddr(begin), DeviceAddr(begin + window_pages * page)}) {}
  RandomTree(const RandomTree&) = delete;
  RandomTree& operator=(const RandomTree&) = delete;
  ~RandomTree() {
    maps_.print((std::string(name_) + " map").c_str());
    others_.print((std::string(name_) + " unmap, protect").c_str());
    translations_.print((std::string(name_) + " translate").c_str());
  }

  [[nodiscard]] bool mostly_succeeded() const {
    return maps_.mostly_succeeded() && others_.mostly_succeeded() &&
           translations_.mostly_succeeded();
  }
  JudgedTree<F>& tree() { return tree_; }

  // The part of the window that is filled goes up and down.
  void step() {
    const std::uint64_t mapped = tree_.model().mapped(begin, begin + window_pages * page);
    const bool fills = mapped < target_ * page;
    if (dice_.roll(500) == 0) target_ = dice_.roll(window_pages);
    const std::uint64_t kind = dice_.roll(16);
    if (kind < 5)
      map_somewhere(fills);
    else if (kind < 9)
      others_.note(take_away());
    else if (kind < 10)
      others_.note(protect_something());
    else if (kind == 10)
      with_range([&](auto from, auto to) { tree_.split(from, to); });
    else if (kind == 11)
      with_range([&](auto from, auto to) { tree_.merge(from, to); });
    else
      translations_.note(tree_.translate(some_address()));
    if (tree_.pending() > 8) tree_.release_all();
  }

 private:
  void map_somewhere(bool fills) {
    const Runs runs = random_runs(fills ? 2048 : 8);
    std::uint64_t length = 0;
    for (const Run& r : runs) length += r.length.value();
    const std::uint64_t va = free_place(length, runs[0].address.value());
    if (va == 0) return;
    const Attributes attributes = random_attributes();
    if (dice_.roll(8) == 0) tree_.prepare_and_drop(va, length);
    maps_.note(dice_.roll(4) == 0 ? tree_.map_prepared(va, runs, attributes)
                                  : tree_.map(va, runs, attributes));
  }

  Runs random_runs(std::uint64_t most) {
    Runs runs;
    std::uint64_t bus = dice_.roll(1 << 14) * page;
    for (std::uint64_t left = 1 + dice_.roll(3); left > 0; --left) {
      const std::uint64_t length = (1 + dice_.roll(1 + dice_.roll(most))) * page;
      if (dice_.roll(2) == 0) bus = round_up(bus, random_leaf());
      if (bus + length > (F::bus_bits == 64 ? ~std::uint64_t{0} : std::uint64_t{1} << F::bus_bits))
        bus = 0;
      runs.push_back(run(bus, length));
      bus += length + (dice_.roll(2) == 0 ? 0 : (1 + dice_.roll(64)) * page);
    }
    return runs;
  }

  // Mostly free, mostly congruent to what is to be mapped; nothing if the window is full.
  std::uint64_t free_place(std::uint64_t length, std::uint64_t bus) {
    for (int tries = 0; tries < 12; ++tries) {
      std::uint64_t va = begin + dice_.roll(window_pages) * page;
      if (dice_.roll(4) != 0) {
        const std::uint64_t leaf = random_leaf();
        va = (va & ~(leaf - 1)) | (bus & (leaf - 1));
      }
      if (va < begin || va + length > begin + window_pages * page) continue;
      if (dice_.roll(100) == 0 || tree_.model().mapped(va, va + length) == 0) return va;
    }
    return 0;
  }

  std::uint64_t random_leaf() {
    const std::uint64_t sizes = G::leaf_sizes() & (window_pages * page - 1);
    std::uint64_t left = sizes;
    for (std::uint64_t skip = dice_.roll(static_cast<std::uint64_t>(std::popcount(sizes)));
         skip > 0; --skip)
      left &= left - 1;
    return left & (~left + 1);
  }

  Attributes random_attributes() {
    constexpr std::array all{Access::read, Access::write, Access::read_write};
    std::vector<Attributes> possible;
    for (const Access access : all)
      for (const MemoryType type :
           {MemoryType::write_back, MemoryType::write_combined, MemoryType::device})
        if (F::leaf_bits({access, type})) possible.emplace_back(access, type);
    return possible[dice_.roll(possible.size())];
  }

  RangeRule random_rule() {
    constexpr std::array edges{Edges::refuse, Edges::split, Edges::whole, Edges::split};
    return {edges[dice_.roll(edges.size())], dice_.roll(2) == 0 ? Gaps::refuse : Gaps::skip};
  }

  // A range inside what is mapped, mostly; whole mappings often.
  template <class Use>
  bool with_range(Use use) {
    const auto& intervals = tree_.model().intervals();
    if (intervals.empty() || dice_.roll(16) == 0) {
      const std::uint64_t from = begin + dice_.roll(window_pages - 1) * page;
      return use(from, from + (1 + dice_.roll((begin + window_pages * page - from) / page)) * page),
             true;
    }
    const auto& [from, interval] =
        *std::next(intervals.begin(), static_cast<std::ptrdiff_t>(dice_.roll(intervals.size())));
    const std::uint64_t pages = (interval.end - from) / page;
    if (dice_.roll(2) == 0) return use(from, interval.end), true;
    const std::uint64_t first = dice_.roll(pages);
    return use(from + first * page, from + (first + 1 + dice_.roll(pages - first)) * page), true;
  }
  bool take_away() {
    bool taken = false;
    with_range([&](std::uint64_t from, std::uint64_t to) {
      taken = tree_.unmap(from, to, random_rule());
    });
    return taken;
  }
  bool protect_something() {
    bool done = false;
    with_range([&](std::uint64_t from, std::uint64_t to) {
      done = tree_.protect(from, to, random_attributes(), random_rule());
    });
    return done;
  }

  std::uint64_t some_address() {
    const auto& intervals = tree_.model().intervals();
    if (intervals.empty() || dice_.roll(8) == 0) return begin + dice_.roll(window_pages * page);
    const auto& [from, interval] =
        *std::next(intervals.begin(), static_cast<std::ptrdiff_t>(dice_.roll(intervals.size())));
    return from + dice_.roll(interval.end - from);
  }

  static std::uint64_t round_up(std::uint64_t value, std::uint64_t to) {
    return (value + to - 1) & ~(to - 1);
  }

  const char* name_;
  Dice dice_;
  JudgedTree<F> tree_;
  Tally maps_;
  Tally others_;
  Tally translations_;
  std::uint64_t target_ = window_pages / 4;
};

template <class F>
class PageTableProperty : public ::testing::Test {};

using Formats =
    ::testing::Types<Npu1, Gaudi1, Gaudi2Host4k, Gaudi2Host64k, Gaudi2Dram, X86_64<4>, X86_64<5>,
                     AArch64<12, 48>, AArch64<14, 47>, AArch64<16, 42>, RiscV<39, Svnapot::no>,
                     RiscV<48, Svnapot::yes>, RiscV<57, Svnapot::yes>, VtdSecondStage<3>,
                     VtdSecondStage<4>, AmdIommuV1<3>, AmdIommuV1<5>, RockchipV1, RockchipV2, Ivpu,
                     Hopper>;
TYPED_TEST_SUITE(PageTableProperty, Formats);

TYPED_TEST(PageTableProperty, AgreesWithTheIntervalModel) {
  using G = Geometry<TypeParam>;
  RandomTree<TypeParam> random("page_table", 256 + 2 * 16'384 / G::entries(G::last_hop));
  // The format that the model device has gets the most; the others share the engine with it.
  const std::uint64_t share = std::is_same_v<TypeParam, Npu1> ? 1 : 10;
  const std::uint64_t steps = number_from_environment("ACCELMM_STEPS", 100'000) / share;
  for (std::uint64_t i = 0; i < steps; ++i) {
    random.step();
    if (i % 2000 == 1999) random.tree().judge_everything();
  }
  random.tree().judge_everything();
  EXPECT_TRUE(random.mostly_succeeded());
}

// Few tables, so that every operation runs out of them now and then.
TYPED_TEST(PageTableProperty, IsValidAfterEachStep) {
  RandomTree<TypeParam> random("page_table_small", 40);
  const std::uint64_t steps = number_from_environment("ACCELMM_STEPS", 100'000) / 1000;
  for (std::uint64_t i = 0; i < steps; ++i) {
    random.step();
    random.tree().judge_everything();
  }
}

}  // namespace
}  // namespace accelmm::mmu
