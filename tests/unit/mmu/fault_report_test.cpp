// SPDX-License-Identifier: Apache-2.0
#include "unit/mmu/tables_fixture.hpp"

#include <accelmm/mmu/address_space.hpp>
#include <accelmm/mmu/dump.hpp>
#include <accelmm/mmu/npu1.hpp>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::mmu {
namespace {

using test::range;
using test::release;
using test::run;
using test::Runs;
using test::Tables;
using Covered = FaultReport::Covered;

constexpr std::uint64_t page = 0x1000;
constexpr std::uint64_t large = 0x20'0000;
constexpr std::uint64_t base = 1ULL << 40;

class FaultReportTest : public ::testing::Test {
 protected:
  ~FaultReportTest() override {
    release(space->unmap_all());
    space.reset();
  }
  std::unique_ptr<AddressSpace> make() {
    const VaWindow window{VaUse::any, range(base, base + 64 * large)};
    SpaceOptions options;
    options.windows = std::span(&window, 1);
    options.default_page = run(0x5000'0000, page);
    return std::move(*make_address_space<Npu1>(tables.pool(), options));
  }
  Placement fixed(std::uint64_t offset) {
    return {Placement::Kind::fixed, DeviceAddr(base + offset)};
  }
  FaultReport explain(std::uint64_t va) {
    return space->explain({3, DeviceAddr(va), Access::write});
  }

  Tables tables{64};
  std::unique_ptr<AddressSpace> space = make();
};

TEST_F(FaultReportTest, SaysWhatCoversTheAddress) {
  const Runs runs{run(8 * page, 2 * page)};
  ASSERT_TRUE(space->map(runs, fixed(0), Access::read).has_value());
  ASSERT_TRUE(space->reserve(ByteCount(4 * page), fixed(8 * page)).has_value());
  ASSERT_TRUE(space->map_null(ByteCount(page), fixed(16 * page), Access::read).has_value());
  auto covered = space->cover(range(base + 20 * page, base + 21 * page), Access::read);
  release(std::move(covered->gone));
  ASSERT_TRUE(space->map(runs, fixed(24 * page), {}).has_value());
  auto gone = space->unmap(DeviceAddr(base + 24 * page));

  const FaultReport mapped = explain(base + page + 4);
  EXPECT_EQ(mapped.covered, Covered::mapping);
  EXPECT_EQ(mapped.range, range(base, base + 2 * page));
  EXPECT_EQ(mapped.attributes.access, Access::read);
  EXPECT_EQ(explain(base + 9 * page).covered, Covered::reservation);
  EXPECT_EQ(explain(base + 9 * page).range, range(base + 8 * page, base + 12 * page));
  EXPECT_EQ(explain(base + 12 * page).covered, Covered::nothing);
  EXPECT_EQ(explain(base + 12 * page).range, std::nullopt);
  EXPECT_EQ(explain(base + 16 * page).covered, Covered::null);
  EXPECT_EQ(explain(base + 20 * page).covered, Covered::cover);
  EXPECT_EQ(explain(base + 25 * page).covered, Covered::unmapped);
  EXPECT_EQ(explain(base - 1).covered, Covered::outside);
  EXPECT_EQ(explain(~0ULL).covered, Covered::outside);
  EXPECT_TRUE(explain(~0ULL).walk.steps().empty());
  release(std::move(*gone));
}

TEST_F(FaultReportTest, HasTheEntryOfEachHop) {
  const Runs runs{run(8 * page, page)};
  ASSERT_TRUE(space->map(runs, fixed(0), Access::read).has_value());
  const FaultReport found = explain(base);
  ASSERT_EQ(found.walk.steps().size(), 5u);
  EXPECT_EQ(found.walk.steps()[4].entry, 8 * page | 0x809) << "READ, LAST, PRESENT";
  EXPECT_EQ(explain(base + page).walk.steps().back().kind, EntryKind::empty);
}

TEST_F(FaultReportTest, TextNamesAllOfIt) {
  const Runs runs{run(8 * page, page)};
  ASSERT_TRUE(space->map(runs, fixed(0), Access::read).has_value());
  const std::string text = explain(base + 8).text();
  EXPECT_TRUE(text.starts_with(
      "fault: asid 3, write at 0x10000000008: mapped (0x10000000000..0x10000001000, read)\n"))
      << text;
  EXPECT_NE(text.find("  hop 0: table 0x765400000 [0] = 0x7654"), std::string::npos) << text;
  EXPECT_NE(text.find("[0] = 0x8809 leaf\n"), std::string::npos) << text;
  EXPECT_NE(explain(base + page).text().find("[1] = 0x0 empty\n"), std::string::npos);
}

using Memory = MappedStretch::Memory;

TEST_F(FaultReportTest, DumpJoinsNeighboursThatGoOnAlike) {
  Runs pages;
  for (std::uint64_t i = 0; i < 512; ++i) pages.push_back(run(large - page + i * page, page));
  ASSERT_TRUE(space->map(pages, fixed(large - page), {}).has_value());
  const Runs next{run(2 * large - page, page)};
  ASSERT_TRUE(space->map(next, fixed(2 * large - page), {}).has_value());
  const Runs read_only{run(2 * large, page)};
  ASSERT_TRUE(space->map(read_only, fixed(2 * large), Access::read).has_value());
  const auto found = stretches(*space, space->range());
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0],
            (MappedStretch{range(base + large - page, base + 2 * large), BusAddr(large - page),
                           Memory::continuous, Access::read_write, page}));
  EXPECT_EQ(found[1].attributes.access, Access::read);
}

TEST_F(FaultReportTest, DumpListsTheLeafSizesOfAStretch) {
  const Runs runs{run(8 * large - page, 2 * large + page)};
  ASSERT_TRUE(space->map(runs, fixed(large - page), {}).has_value());
  EXPECT_EQ(dump(*space, space->range()),
            "0x100001ff000..0x10000600000 -> 0xfff000..0x1400000 read-write write-back 4K 2M\n");
}

TEST_F(FaultReportTest, DumpTellsRepeatedMemoryFromMemoryThatGoesOn) {
  ASSERT_TRUE(space->map_null(ByteCount(4 * page), fixed(0), Access::read).has_value());
  EXPECT_EQ(dump(*space, space->range()),
            "0x10000000000..0x10000004000 -> 0x50000000..0x50001000 again and again "
            "read write-back 4K\n");
}

TEST_F(FaultReportTest, DumpOfARangeIsWhatMeetsIt) {
  const Runs runs{run(0, 4 * page)};
  ASSERT_TRUE(space->map(runs, fixed(0), {}).has_value());
  ASSERT_TRUE(space->map(runs, fixed(8 * page), {}).has_value());
  const auto found = stretches(*space, range(base + 3 * page, base + 8 * page));
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].range, range(base + 3 * page, base + 4 * page));
  EXPECT_TRUE(stretches(*space, range(base, base)).empty());
  EXPECT_EQ(dump(*space, range(base + 5 * page, base + 8 * page)), "");
}

}  // namespace
}  // namespace accelmm::mmu
