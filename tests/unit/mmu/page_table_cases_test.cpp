// SPDX-License-Identifier: Apache-2.0
//
// Cases that others test their page tables with: Linux's generic_pt (test_...) and the page trees of
// NVIDIA's UVM, named in comments; and every word of the tables beside those of a writer that goes
// page by page.
#include "property/mm/steps.hpp"
#include "property/mmu/interval_model.hpp"
#include "unit/mmu/tables_fixture.hpp"

#include <accelmm/mmu/aarch64.hpp>
#include <accelmm/mmu/amd_iommu.hpp>
#include <accelmm/mmu/npu1.hpp>
#include <accelmm/mmu/page_table.hpp>
#include <accelmm/mmu/riscv.hpp>
#include <accelmm/mmu/vtd.hpp>
#include <accelmm/mmu/x86_64.hpp>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::mmu {
namespace {

using accelmm::test::Dice;
using test::IntervalModel;
using test::range;
using test::release;
using test::run;
using test::Runs;
using test::Tables;

struct Forgets {
  void operator()(Range<DeviceAddr>) const {}
};

template <class F>
class CasesTest : public ::testing::Test {
 protected:
  using G = Geometry<F>;
  using Word = typename F::Word;
  static constexpr std::uint64_t page = G::page_size;

  ~CasesTest() override {
    tree.validate();
    release(tree.detach_all());
    EXPECT_EQ(tables.pool().tables_in_use(), 0u);
    tables.pool().validate();
  }

  Errc map(std::uint64_t va, std::uint64_t bus, std::uint64_t length) {
    const auto mapped = tree.map(DeviceAddr(va), Runs{run(bus, length)}, Access::read_write);
    return mapped ? Errc{} : mapped.error().code;
  }
  Errc unmap(std::uint64_t begin, std::uint64_t end, RangeRule rule = {}) {
    auto removed = tree.unmap(range(begin, end), rule, Forgets());
    if (!removed) return removed.error().code;
    removed_range = removed->range();
    release(std::move(*removed));
    return Errc{};
  }
  std::vector<std::uint64_t> sizes() {
    std::vector<std::uint64_t> all;
    tree.for_each_leaf([&](const Leaf& leaf) { all.push_back(leaf.size.value()); });
    return all;
  }
  /// The sizes of leaves up to `most`, ascending.
  static std::vector<std::uint64_t> leaf_sizes(std::uint64_t most) {
    std::vector<std::uint64_t> all;
    for (std::uint64_t left = G::leaf_sizes(); left != 0; left &= left - 1)
      if ((left & (~left + 1)) <= most) all.push_back(left & (~left + 1));
    return all;
  }
  void expect_bus(std::uint64_t va, std::uint64_t bus) {
    const auto found = tree.translate(DeviceAddr(va));
    ASSERT_TRUE(found.has_value()) << std::hex << va;
    EXPECT_EQ(found->address.value(), bus) << std::hex << va;
  }

  Tables tables{2600, G::largest_table()};
  PageTable<F, TablePool> tree{std::move(*PageTable<F, TablePool>::create(tables.pool()))};
  Range<DeviceAddr> removed_range{};
};

using Formats = ::testing::Types<Npu1, X86_64<4>, AArch64<12, 48>, RiscV<48, Svnapot::yes>,
                                 VtdSecondStage<4>, AmdIommuV1<4>>;
TYPED_TEST_SUITE(CasesTest, Formats);

// test_map_simple
TYPED_TEST(CasesTest, OneLeafOfEverySizeIsMappedAndUnmapped) {
  constexpr std::uint64_t most = 1ULL << 34;
  std::uint64_t va = 0;
  std::vector<std::uint64_t> expected;
  for (const std::uint64_t size : this->leaf_sizes(most)) {
    va = (va + 2 * size - 1) & ~(size - 1);
    ASSERT_EQ(this->map(va, 4 * most + va, size), Errc{}) << std::hex << size;
    expected.push_back(size);
    this->expect_bus(va, 4 * most + va);
    this->expect_bus(va + size - 1, 4 * most + va + size - 1);
    EXPECT_FALSE(this->tree.translate(DeviceAddr(va + size)).has_value());
  }
  EXPECT_EQ(this->sizes(), expected);
  ASSERT_EQ(this->unmap(0, va + 2 * most, {Edges::refuse, Gaps::skip}), Errc{});
  EXPECT_TRUE(this->sizes().empty());
  EXPECT_EQ(this->tree.tables(), 1u);
}

// test_map_table_to_oa
TYPED_TEST(CasesTest, ALeafTakesThePlaceOfATableThatBecameEmpty) {
  const auto all = this->leaf_sizes(1ULL << 34);
  for (std::size_t i = 1; i < all.size(); ++i) {
    const std::uint64_t large = all[i];
    ASSERT_EQ(this->map(large, large, all[0]), Errc{});
    EXPECT_EQ(this->map(large, large, large), Errc::address_in_use);
    ASSERT_EQ(this->unmap(large, large + all[0]), Errc{});
    ASSERT_EQ(this->map(large, large, large), Errc{}) << std::hex << large;
    EXPECT_EQ(this->sizes(), std::vector{large});
    ASSERT_EQ(this->unmap(large, 2 * large), Errc{});
  }
}

// test_unmap_split
TYPED_TEST(CasesTest, UnmapOfTheStartOfALargeLeafTakesItWholeAndDoesNotRunOn) {
  const auto all = this->leaf_sizes(1ULL << 31);
  for (std::size_t i = 1; i < all.size(); ++i) {
    const std::uint64_t large = all[i];
    // Not one run: the second leaf must not join the first.
    ASSERT_EQ(this->map(large, 0, large), Errc{});
    ASSERT_EQ(this->map(2 * large, 4 * large, large), Errc{});
    ASSERT_EQ(this->unmap(large, large + all[0], {Edges::whole, Gaps::refuse}), Errc{});
    EXPECT_EQ(this->removed_range, range(large, 2 * large));
    EXPECT_FALSE(this->tree.translate(DeviceAddr(2 * large - 1)).has_value());
    this->expect_bus(2 * large, 4 * large);
    ASSERT_EQ(this->unmap(2 * large, 3 * large), Errc{});
  }
}

// test_pgsize_boundary
TYPED_TEST(CasesTest, ARunThatReachesASizeBoundaryOnOneSideOnly) {
  constexpr std::uint64_t va = 0xfef80000;
  constexpr std::uint64_t bus = 0x208b95d000;
  constexpr std::uint64_t length = 0xfeffffff - va + 1;
  ASSERT_EQ(this->map(va, bus, length), Errc{});
  for (std::uint64_t at = 0; at < length; at += 0x1000) this->expect_bus(va + at, bus + at);
  EXPECT_FALSE(this->tree.translate(DeviceAddr(va + length)).has_value());
  ASSERT_EQ(this->unmap(va, va + length), Errc{});
}

// test_random_map
TYPED_TEST(CasesTest, RandomRangesThatCollideAreRefusedAndFitOnceTheOthersAreGone) {
  Dice dice("page_table_cases");
  IntervalModel model;
  constexpr std::uint64_t begin = (1ULL << 32) - (1ULL << 29);
  constexpr std::uint64_t window = 1ULL << 30;
  std::uint64_t collisions = 0;
  for (int i = 0; i < 1000; ++i) {
    const std::uint64_t va = begin + dice.roll(window / this->page) * this->page;
    const std::uint64_t most = (begin + window - va) / this->page;
    const std::uint64_t length =
        (1 + dice.roll(std::min<std::uint64_t>(most, 20'000))) * this->page;
    const std::uint64_t bus = dice.roll(1ULL << 20) * this->page;
    const bool collides = model.mapped(va, va + length) != 0;
    const Errc code = this->map(va, bus, length);
    ASSERT_EQ(code, collides ? Errc::address_in_use : Errc{});
    if (collides) {
      ++collisions;
      ASSERT_EQ(this->unmap(va, va + length, {Edges::split, Gaps::skip}), Errc{});
      model.erase(va, va + length);
      ASSERT_EQ(this->map(va, bus, length), Errc{});
    }
    model.insert(va, length, bus, Access::read_write);
    this->expect_bus(va, bus);
    this->expect_bus(va + length - 1, bus + length - 1);
  }
  EXPECT_GT(collisions, 300u);
  std::uint64_t in_leaves = 0;
  this->tree.for_each_leaf([&](const Leaf& leaf) {
    in_leaves += leaf.size.value();
    EXPECT_EQ(model.at(leaf.va.value())->bus, leaf.address.value());
  });
  EXPECT_EQ(in_leaves, model.mapped(0, ~0ULL));
  ASSERT_EQ(this->unmap(begin, begin + window, {Edges::refuse, Gaps::skip}), Errc{});
  EXPECT_EQ(this->tree.tables(), 1u) << "no table leaks";
}

// Formats with leaves of 1 GiB and no groups between.
template <class F>
class GiantLeavesTest : public CasesTest<F> {};
using FormatsWithGiants =
    ::testing::Types<X86_64<4>, X86_64<5>, RiscV<39, Svnapot::no>, VtdSecondStage<4>>;
TYPED_TEST_SUITE(GiantLeavesTest, FormatsWithGiants);

// test_mixed
TYPED_TEST(GiantLeavesTest, AMixedRangeIsExactlyTwentyLeaves) {
  constexpr std::uint64_t begin = 0x3fe400000;
  constexpr std::uint64_t end = 0x4c0600000;
  ASSERT_EQ(this->map(begin, begin, end - begin), Errc{});
  std::vector<std::uint64_t> expected(14, 2ULL << 20);
  expected.insert(expected.end(), 3, 1ULL << 30);
  expected.insert(expected.end(), 3, 2ULL << 20);
  EXPECT_EQ(this->sizes(), expected);
}

// split_4k_from_2m, split_2m_from_512m, fast_split_normal: of each size, its last page.
TYPED_TEST(CasesTest, TheLastPageOfALargeLeafIsSplitOffAndMergedAgain) {
  const auto all = this->leaf_sizes(1ULL << 31);
  for (std::size_t i = 1; i < all.size(); ++i) {
    const std::uint64_t large = all[i];
    ASSERT_EQ(this->map(large, 0, large), Errc{});
    ASSERT_TRUE(this->tree.split(range(2 * large - all[0], 2 * large), Forgets()).has_value());
    for (std::uint64_t at = 0; at < large; at += large / 64 < all[0] ? all[0] : large / 64)
      this->expect_bus(large + at, at);
    const auto last = this->tree.translate(DeviceAddr(2 * large - 1));
    EXPECT_EQ(last->leaf_size.value(), all[0]);
    release(std::move(*this->tree.merge(range(large, 2 * large), Forgets())));
    EXPECT_EQ(this->sizes(), std::vector{large}) << std::hex << large;
    ASSERT_EQ(this->unmap(large, 2 * large), Errc{});
  }
}

// split_and_free
TYPED_TEST(CasesTest, ASplitLeafIsFreedPieceByPiece) {
  const auto all = this->leaf_sizes(1ULL << 22);
  const std::uint64_t large = all.back();
  ASSERT_EQ(this->map(large, 0, large), Errc{});
  for (std::uint64_t at = large; at < 2 * large; at += this->page)
    ASSERT_EQ(this->unmap(at, at + this->page, {Edges::split, Gaps::refuse}), Errc{});
  EXPECT_EQ(this->tree.tables(), 1u);
}

// get_entire_table_4k, get_two_free_apart
TYPED_TEST(CasesTest, AWholeTableOfSmallLeavesAndTwoFarApart) {
  constexpr std::uint64_t end = Geometry<TypeParam>::va_end;
  const std::uint64_t whole = this->page << TypeParam::index_bits(Geometry<TypeParam>::last_hop);
  ASSERT_EQ(this->map(4 * whole, this->page, whole), Errc{});
  EXPECT_EQ(this->tree.tables(), TypeParam::hops);
  ASSERT_EQ(this->unmap(4 * whole, 5 * whole), Errc{});
  ASSERT_EQ(this->map(4 * whole, 0, this->page), Errc{});
  ASSERT_EQ(this->map(end - this->page, 0, this->page), Errc{});
  EXPECT_EQ(this->tree.tables(), 2 * TypeParam::hops - 1);
  ASSERT_EQ(this->unmap(4 * whole, 4 * whole + this->page), Errc{});
  EXPECT_EQ(this->tree.tables(), TypeParam::hops);
  this->expect_bus(end - 1, this->page - 1);
  ASSERT_EQ(this->unmap(end - this->page, end), Errc{});
  EXPECT_EQ(this->tree.tables(), 1u);
}

/// What each table holds, written leaf by leaf and page by page: by hop and first address of the
/// table, by index.
template <class F>
class NaiveWriter {
  using G = Geometry<F>;

 public:
  struct Entry {
    bool link = false;
    std::uint64_t word = 0;  // of a leaf
  };
  using Entries = std::map<std::uint32_t, Entry>;

  void map(std::uint64_t va, std::uint64_t bus, std::uint64_t length) {
    const std::uint64_t bits = *F::leaf_bits(Access::read_write);
    while (length > 0) {
      unsigned lg2 = 63;
      while ((G::leaf_sizes() >> lg2 & 1) == 0 || (1ULL << lg2) > length ||
             ((va | bus) & ((1ULL << lg2) - 1)) != 0)
        --lg2;
      unsigned hop = 0;
      while ((F::leaf_sizes(hop) >> lg2 & 1) == 0) ++hop;
      for (std::uint64_t at = 0; at < 1ULL << lg2; at += 1ULL << F::shift(hop)) {
        for (unsigned above = 0; above < hop; ++above) entry(above, va + at).link = true;
        const std::uint64_t first =
            F::make_leaf(hop, lg2, BusAddr(bus), static_cast<typename F::Word>(bits));
        entry(hop, va + at).word =
            F::repeats_group
                ? first
                : F::make_leaf(hop, lg2, BusAddr(bus + at), static_cast<typename F::Word>(bits));
      }
      va += 1ULL << lg2;
      bus += 1ULL << lg2;
      length -= 1ULL << lg2;
    }
  }
  void unmap(std::uint64_t va, std::uint64_t length) {
    for (unsigned hop = F::hops; hop-- > 0;)
      for (auto& [where, entries] : tables_[hop])
        std::erase_if(entries, [&, from = where, hop](const auto& one) {
          const std::uint64_t at = from + (std::uint64_t{one.first} << F::shift(hop));
          return one.second.link ? tables_[hop + 1][at].empty() : at >= va && at < va + length;
        });
  }
  [[nodiscard]] const Entries& table(unsigned hop, std::uint64_t va) { return tables_[hop][va]; }

 private:
  Entry& entry(unsigned hop, std::uint64_t va) {
    const std::uint64_t span = 1ULL << (F::shift(hop) + F::index_bits(hop));
    return tables_[hop][va & ~(span - 1)]
                  [static_cast<std::uint32_t>((va & (span - 1)) >> F::shift(hop))];
  }

  std::map<unsigned, std::map<std::uint64_t, Entries>> tables_;
};

template <class F>
void expect_same_words(Tables& tables, NaiveWriter<F>& naive, BusAddr table, unsigned hop,
                       std::uint64_t va) {
  using Word = typename F::Word;
  const auto& expected = naive.table(hop, va);
  const Table ours = tables.pool().at(table);
  for (std::uint32_t i = 0; i < Geometry<F>::entries(hop); ++i) {
    const Word word = tables.pool().template load<Word>(ours, i);
    const auto found = expected.find(i);
    const auto here = found == expected.end() ? typename NaiveWriter<F>::Entry{} : found->second;
    if (!here.link) {
      ASSERT_EQ(std::uint64_t{word}, here.word) << "hop " << hop << " entry " << i;
      continue;
    }
    ASSERT_EQ(F::classify(hop, word), EntryKind::table) << "hop " << hop << " entry " << i;
    const BusAddr below = F::link_address(hop, word);
    ASSERT_EQ(word, F::make_link(hop, below));
    ASSERT_NO_FATAL_FAILURE(expect_same_words<F>(tables, naive, below, hop + 1,
                                                 va + (std::uint64_t{i} << F::shift(hop))));
  }
}

// The A/B comparison of kunit_iommu_cmp.
TYPED_TEST(CasesTest, EveryWordIsThatOfAWriterThatGoesPageByPage) {
  Dice dice("page_table_words");
  NaiveWriter<TypeParam> naive;
  IntervalModel model;
  constexpr std::uint64_t middle = 1ULL << (Geometry<TypeParam>::va_bits - 1);
  std::vector<std::pair<std::uint64_t, std::uint64_t>> mapped;
  for (int i = 0; i < 60; ++i) {
    const std::uint64_t va = middle + dice.roll(4096) * this->page - 2048 * this->page;
    const std::uint64_t length = (1 + dice.roll(1 + dice.roll(1500))) * this->page;
    const std::uint64_t bus =
        dice.roll(2) == 0 ? (1ULL << 36) + (va - middle) : dice.roll(1 << 16) * this->page;
    if (model.mapped(va, va + length) != 0) {
      if (mapped.empty() || dice.roll(2) == 0) continue;
      const auto [from, size] = mapped.back();
      mapped.pop_back();
      ASSERT_EQ(this->unmap(from, from + size), Errc{});
      naive.unmap(from, size);
      model.erase(from, from + size);
    } else {
      ASSERT_EQ(this->map(va, bus, length), Errc{});
      naive.map(va, bus, length);
      model.insert(va, length, bus, {});
      mapped.emplace_back(va, length);
    }
    ASSERT_NO_FATAL_FAILURE(
        expect_same_words<TypeParam>(this->tables, naive, this->tree.root(), 0, 0));
  }
}

}  // namespace
}  // namespace accelmm::mmu
