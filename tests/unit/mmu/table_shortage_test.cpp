// SPDX-License-Identifier: Apache-2.0
//
// Each operation with 0, 1, 2, ... tables left until it succeeds: what is refused leaves everything
// that is mapped, and every table, where it was.
#include "unit/mmu/tables_fixture.hpp"

#include <accelmm/mmu/aarch64.hpp>
#include <accelmm/mmu/amd_iommu.hpp>
#include <accelmm/mmu/hopper.hpp>
#include <accelmm/mmu/npu1.hpp>
#include <accelmm/mmu/page_table.hpp>
#include <accelmm/mmu/riscv.hpp>
#include <accelmm/mmu/rockchip.hpp>
#include <accelmm/mmu/x86_64.hpp>

#include <bit>
#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::mmu {
namespace {

using test::release;
using test::run;
using test::Runs;
using test::Tables;

struct Forgets {
  void operator()(Range<DeviceAddr>) const {}
};

template <class F>
class TableShortageTest : public ::testing::Test {
 protected:
  using G = Geometry<F>;
  using Tree = PageTable<F, TablePool>;
  static constexpr std::uint64_t page = G::page_size;
  /// The largest leaf that takes at most as much as two tables of the last hop map.
  static constexpr std::uint64_t large =
      std::bit_floor(G::leaf_sizes() & ((page << (F::index_bits(G::last_hop) + 1)) - 1));
  static constexpr std::uint64_t middle = std::uint64_t{1} << (G::va_bits - 1);

  ~TableShortageTest() override {
    for (auto& one : gone) release(std::move(one));
    release(tree.detach_all());
    EXPECT_EQ(tables.pool().tables_in_use(), 0u);
    tables.pool().validate();
  }

  static Range<DeviceAddr> range(std::uint64_t begin, std::uint64_t end) {
    return {DeviceAddr(begin), DeviceAddr(end)};
  }
  [[nodiscard]] Result<void> map(std::uint64_t va, std::uint64_t bus, std::uint64_t length) {
    return tree.map(DeviceAddr(va), Runs{run(bus, length)}, Access::read_write);
  }
  /// What each page means, however large its leaf is.
  [[nodiscard]] std::map<std::uint64_t, std::pair<std::uint64_t, Attributes>> meaning() {
    std::map<std::uint64_t, std::pair<std::uint64_t, Attributes>> pages;
    tree.for_each_leaf([&](const Leaf& leaf) {
      for (std::uint64_t at = 0; at < leaf.size.value(); at += page)
        pages[leaf.va.value() + at] = {leaf.address.value() + at, leaf.attributes};
    });
    return pages;
  }

  /// Runs the operation with ever more tables. Returns how many it asked for.
  template <class Operation>
  std::uint32_t until_it_succeeds(Operation operation) {
    TablePool& pool = tables.pool();
    const auto before = meaning();
    for (std::uint32_t left = 0; left < 64; ++left) {
      auto held = pool.take(pool.capacity() - pool.tables_in_use() - left);
      EXPECT_TRUE(held.has_value());
      const std::uint32_t in_use = pool.tables_in_use();
      const Errc code = operation();
      if (code != Errc::no_memory) {
        EXPECT_EQ(code, Errc{}) << "with " << left << " tables";
        pool.give_back(std::move(*held));
        tree.validate();
        return left;
      }
      EXPECT_EQ(pool.tables_in_use(), in_use) << left;
      pool.give_back(std::move(*held));
      EXPECT_EQ(meaning(), before) << "with " << left << " tables";
      tree.validate();
      pool.validate();
    }
    ADD_FAILURE() << "64 tables are too few";
    return 64;
  }
  Errc keep(Result<Detached<TablePool>> removed) {
    if (!removed) return removed.error().code;
    gone.push_back(std::move(*removed));
    return Errc{};
  }
  static Errc code_of(const Result<void>& done) { return done ? Errc{} : done.error().code; }

  Tables tables{160, G::largest_table(),
                F::bus_bits > 32 ? Tables::bus_begin : Tables::low_bus_begin};
  Tree tree{std::move(*Tree::create(tables.pool()))};
  std::vector<Detached<TablePool>> gone;
};

using Formats = ::testing::Types<Npu1, X86_64<4>, AArch64<12, 48>, AArch64<16, 42>,
                                 RiscV<39, Svnapot::no>, AmdIommuV1<3>, RockchipV2, Hopper>;
TYPED_TEST_SUITE(TableShortageTest, Formats);

TYPED_TEST(TableShortageTest, MapAsksForNoMoreTablesThanItNeeds) {
  using T = TableShortageTest<TypeParam>;
  const std::uint64_t va = T::middle - 2 * T::page;
  const std::uint32_t before = this->tree.tables();
  const std::uint32_t asked =
      this->until_it_succeeds([&] { return T::code_of(this->map(va, 5 * T::page, 4 * T::page)); });
  EXPECT_EQ(asked, this->tree.tables() - before);
  EXPECT_GT(asked, 0u);
}

TYPED_TEST(TableShortageTest, MapBesideOthersAsksForTheTablesThatMightDieToo) {
  using T = TableShortageTest<TypeParam>;
  ASSERT_TRUE(this->map(T::middle - T::page, 9 * T::page, 2 * T::page).has_value());
  const std::uint32_t asked = this->until_it_succeeds(
      [&] { return T::code_of(this->map(T::middle + T::page, T::page, T::large + T::page)); });
  EXPECT_LT(asked, 2 * TypeParam::hops);
}

TYPED_TEST(TableShortageTest, PreparedMapNeedsNothingFurther) {
  using T = TableShortageTest<TypeParam>;
  const std::uint64_t va = T::middle - T::page;
  std::optional<Prepared<TypeParam, TablePool>> prepared;
  this->until_it_succeeds([&] {
    auto done = this->tree.prepare(T::range(va, va + 3 * T::page), Access::read_write);
    if (!done) return done.error().code;
    prepared.emplace(std::move(*done));
    return Errc{};
  });
  auto all = this->tables.pool().take(this->tables.pool().capacity() -
                                      this->tables.pool().tables_in_use());
  this->tree.commit(std::move(*prepared), Runs{run(T::page, T::page), run(0, 2 * T::page)});
  prepared.reset();
  EXPECT_TRUE(this->tree.translate(DeviceAddr(T::middle)).has_value());
  this->tables.pool().give_back(std::move(*all));
}

TYPED_TEST(TableShortageTest, UnmapOfAPartOfALargeLeaf) {
  using T = TableShortageTest<TypeParam>;
  ASSERT_TRUE(this->map(T::middle, 0, 3 * T::large).has_value());
  this->until_it_succeeds([&] {
    return this->keep(
        this->tree.unmap(T::range(T::middle + T::page, T::middle + T::large + T::page),
                         {Edges::split, Gaps::refuse}, Forgets()));
  });
  EXPECT_TRUE(this->tree.translate(DeviceAddr(T::middle)).has_value());
  EXPECT_FALSE(this->tree.translate(DeviceAddr(T::middle + T::page)).has_value());
  EXPECT_FALSE(this->tree.translate(DeviceAddr(T::middle + T::large)).has_value());
  EXPECT_TRUE(this->tree.translate(DeviceAddr(T::middle + T::large + T::page)).has_value());
}

TYPED_TEST(TableShortageTest, ProtectOfAPartOfALargeLeaf) {
  using T = TableShortageTest<TypeParam>;
  if (!TypeParam::leaf_bits(Access::read)) GTEST_SKIP() << "format has no permissions";
  ASSERT_TRUE(this->map(T::middle, 0, 3 * T::large).has_value());
  this->until_it_succeeds([&] {
    return T::code_of(
        this->tree.protect(T::range(T::middle + T::page, T::middle + T::large + T::page),
                           Access::read, {Edges::split, Gaps::refuse}, Forgets()));
  });
  const auto access_at = [&](std::uint64_t va) {
    return this->tree.translate(DeviceAddr(va))->attributes.access;
  };
  EXPECT_EQ(access_at(T::middle), Access::read_write);
  EXPECT_EQ(access_at(T::middle + T::page), Access::read);
  EXPECT_EQ(access_at(T::middle + T::large + T::page), Access::read_write);
}

TYPED_TEST(TableShortageTest, UnmapOfWholeLeavesAndMergeNeedNoTable) {
  using T = TableShortageTest<TypeParam>;
  for (std::uint64_t at = 0; at < T::large; at += T::page)
    ASSERT_TRUE(this->map(T::middle + at, at, T::page).has_value());
  ASSERT_TRUE(this->map(T::middle + T::large, T::large, T::page).has_value());
  EXPECT_EQ(this->until_it_succeeds([&] {
    return this->keep(this->tree.merge(T::range(T::middle, T::middle + 2 * T::large), Forgets()));
  }),
            0u);
  EXPECT_EQ(this->until_it_succeeds([&] {
    return this->keep(
        this->tree.unmap(T::range(T::middle + T::large, T::middle + T::large + T::page)));
  }),
            0u);
}

}  // namespace
}  // namespace accelmm::mmu
