// SPDX-License-Identifier: Apache-2.0
#include "unit/mmu/tables_fixture.hpp"

#include <accelmm/mmu/hopper.hpp>
#include <accelmm/mmu/page_table.hpp>

#include <cstdint>
#include <utility>

#include <gtest/gtest.h>

namespace accelmm::mmu {
namespace {

using test::release;
using test::run;
using test::Runs;
using test::Tables;

constexpr std::uint64_t page = 0x1000;
constexpr std::uint64_t big = 0x1'0000;
constexpr std::uint64_t base = 0x20'0000;

// The leaves of 4 KiB come in two stretches, the second of which is where a leaf of 64 KiB is.
TEST(DualEntry, ASecondStretchOfSmallLeavesIsRefusedWhereTheOtherTableMaps) {
  Tables tables{16};
  auto tree = std::move(*PageTable<Hopper, TablePool>::create(tables.pool()));
  const Runs in_big_leaf{run(1ULL << 32, big)};
  ASSERT_TRUE(tree.map(DeviceAddr(base + big), in_big_leaf, Access::read_write).has_value());
  const Runs two_runs{run((1ULL << 33) + big - page, page), run((1ULL << 34) + page, 2 * page)};
  const auto mapped = tree.map(DeviceAddr(base + big - page), two_runs, Access::read_write);
  ASSERT_FALSE(mapped.has_value());
  EXPECT_EQ(Errc::address_in_use, mapped.error().code);
  EXPECT_FALSE(tree.translate(DeviceAddr(base + big - page)).has_value());
  EXPECT_EQ(BusAddr(1ULL << 32), tree.translate(DeviceAddr(base + big))->address);
  release(tree.detach_all());
}

}  // namespace
}  // namespace accelmm::mmu
