// SPDX-License-Identifier: Apache-2.0
//
// The 15 ways in which a requested mapping can meet an existing one, as drm_gpuvm counts and pictures
// them ("Split and Merge" in its documentation): what is left of the old one on either side.
#include "unit/mmu/tables_fixture.hpp"

#include <accelmm/mmu/address_space.hpp>
#include <accelmm/mmu/npu1.hpp>

#include <cstdint>
#include <memory>
#include <ostream>
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

constexpr std::uint64_t page = 0x1000;
constexpr std::uint64_t large = 0x20'0000;
constexpr std::uint64_t base = 1ULL << 40;

// Where the requested mapping's memory is: what the old one has at this address, the same buffer at
// another offset, or another buffer.
enum class Memory { same, moved, other };

struct Picture {
  int number;
  const char* name;
  std::uint64_t old_begin, old_end, begin, end;  // in units
  Memory memory;
};
std::ostream& operator<<(std::ostream& out, const Picture& picture) {
  return out << picture.number << ": " << picture.name;
}

constexpr Picture pictures[] = {
    {1, "identical", 1, 2, 1, 2, Memory::same},
    {2, "same range, other offset", 1, 2, 1, 2, Memory::moved},
    {3, "same range, other buffer", 1, 2, 1, 2, Memory::other},
    {4, "old is a left aligned part of new", 1, 2, 1, 3, Memory::same},
    {5, "new is a left aligned part of old, other buffer", 1, 3, 1, 2, Memory::other},
    {6, "new is a left aligned part of old, same buffer", 1, 3, 1, 2, Memory::same},
    {7, "new is a right aligned part of old, other buffer", 1, 3, 2, 3, Memory::other},
    {8, "new is a right aligned part of old, same buffer", 1, 3, 2, 3, Memory::same},
    {9, "new overlaps the end of old, other buffer", 1, 3, 2, 4, Memory::other},
    {10, "new overlaps the end of old, same buffer going on", 1, 3, 2, 4, Memory::same},
    {11, "new is a centred part of old, other buffer", 1, 4, 2, 3, Memory::other},
    {12, "new is a centred part of old, same buffer", 1, 4, 2, 3, Memory::same},
    {13, "old is a right aligned part of new", 2, 3, 1, 3, Memory::other},
    {14, "old is a centred part of new", 2, 3, 1, 4, Memory::other},
    {15, "new overlaps the begin of old, other buffer", 2, 4, 1, 3, Memory::other},
};

class GpuvmPictures : public ::testing::TestWithParam<Picture> {};

// Units of a page, of a quarter of a large leaf (so that cuts lie inside of one), of large leaves.
TEST_P(GpuvmPictures, NewMappingTakesItsPlaceAndTheRestStays) {
  const Picture& picture = GetParam();
  for (const std::uint64_t unit : {page, large / 4, large, 3 * large}) {
    SCOPED_TRACE(unit);
    Tables tables(64);
    auto space =
        std::move(*make_address_space<Npu1>(tables.pool(), range(base, base + 64 * large)));
    const auto at = [unit](std::uint64_t units) { return base + units * unit; };
    const std::uint64_t old_bus = 0x4000'0000;
    const std::uint64_t new_bus = picture.memory == Memory::same ? old_bus + picture.begin * unit
                                  : picture.memory == Memory::moved
                                      ? old_bus + (picture.begin + 8) * unit
                                      : 0x8000'0000;
    const Runs old_runs{
        run(old_bus + picture.old_begin * unit, (picture.old_end - picture.old_begin) * unit)};
    const Runs new_runs{run(new_bus, (picture.end - picture.begin) * unit)};
    ASSERT_TRUE(
        space->map(old_runs, {Placement::Kind::fixed, DeviceAddr(at(picture.old_begin))}, {}));

    auto replaced = space->replace(
        new_runs, {Placement::Kind::fixed, DeviceAddr(at(picture.begin))}, Access::read);
    ASSERT_TRUE(replaced.has_value());
    space->validate();
    EXPECT_EQ(replaced->mapped.range, range(at(picture.begin), at(picture.end)));

    // What is gone is what both have in common, in one piece.
    std::vector<Range<DeviceAddr>> gone;
    replaced->gone.for_each_range([&gone](Range<DeviceAddr> one) { gone.push_back(one); });
    EXPECT_EQ(gone, std::vector{range(at(std::max(picture.old_begin, picture.begin)),
                                      at(std::min(picture.old_end, picture.end)))});

    // At most two pieces remain, one on either side.
    const std::size_t left = picture.old_begin < picture.begin ? 1 : 0;
    const std::size_t right = picture.end < picture.old_end ? 1 : 0;
    EXPECT_EQ(space->mappings(), 1 + left + right);
    for (std::uint64_t va = at(0); va < at(5); va += page) {
      const auto found = space->translate(DeviceAddr(va));
      const std::uint64_t offset = va - base;
      if (at(picture.begin) <= va && va < at(picture.end)) {
        ASSERT_TRUE(found.has_value());
        EXPECT_EQ(found->address.value(), new_bus + (va - at(picture.begin)));
        EXPECT_EQ(found->attributes.access, Access::read);
      } else if (at(picture.old_begin) <= va && va < at(picture.old_end)) {
        ASSERT_TRUE(found.has_value());
        EXPECT_EQ(found->address.value(), old_bus + offset);
        EXPECT_EQ(found->attributes.access, Access::read_write);
      } else {
        EXPECT_FALSE(found.has_value());
      }
    }
    release(std::move(replaced->gone));
    space->validate();
    release(space->unmap_all());
    space.reset();
    EXPECT_EQ(tables.pool().tables_in_use(), 0u);
  }
}

INSTANTIATE_TEST_SUITE_P(Pictures, GpuvmPictures, ::testing::ValuesIn(pictures));

class ReplaceTest : public ::testing::Test {
 protected:
  ~ReplaceTest() override {
    space->validate();
    release(space->unmap_all());
    space.reset();
    EXPECT_EQ(tables.pool().tables_in_use(), 0u);
  }
  Placement fixed(std::uint64_t offset) {
    return {Placement::Kind::fixed, DeviceAddr(base + offset)};
  }

  Tables tables{24};
  std::unique_ptr<AddressSpace> space =
      std::move(*make_address_space<Npu1>(tables.pool(), range(base, base + 64 * large)));
};

TEST_F(ReplaceTest, SpansManyMappingsAndTheHolesBetween) {
  for (std::uint64_t i = 0; i < 4; ++i) {
    const Runs runs{run(i * large, 2 * page)};
    ASSERT_TRUE(space->map(runs, fixed(4 * i * page), {}).has_value());
  }
  const Runs runs{run(16 * large, 12 * page)};
  auto replaced = space->replace(runs, fixed(page), {});
  ASSERT_TRUE(replaced.has_value());
  space->validate();
  EXPECT_EQ(space->mappings(), 3u) << "what is left of the first and of the last, and the new one";
  EXPECT_EQ(space->mapped_bytes(), ByteCount(14 * page));
  release(std::move(replaced->gone));
}

TEST_F(ReplaceTest, ShortageOfTablesChangesNothing) {
  const Runs old{run(8 * large, 4 * large)};
  ASSERT_TRUE(space->map(old, fixed(0), {}).has_value());
  const std::uint32_t spare = space->spare_tables();
  const std::uint32_t in_use = tables.pool().tables_in_use();
  // Small leaves need a table for each 2 MiB: more than there are.
  const Runs runs{run(16 * large + page, 30 * large)};
  EXPECT_EQ(space->replace(runs, fixed(large), {}).error().code, Errc::no_memory);
  space->validate();
  EXPECT_EQ(space->mappings(), 1u);
  EXPECT_EQ(space->spare_tables(), spare);
  EXPECT_EQ(tables.pool().tables_in_use(), in_use);
  EXPECT_EQ(space->translate(DeviceAddr(base + 2 * large))->address, BusAddr(10 * large));
  const Runs rest{run(0, 59 * large)};
  EXPECT_TRUE(space->map(rest, fixed(4 * large), {}).has_value()) << "no address was lost";
}

TEST_F(ReplaceTest, MapsAnywhereWhereNothingIsReplaced) {
  const Runs runs{run(0, page)};
  auto replaced = space->replace(runs, {}, {});
  ASSERT_TRUE(replaced.has_value());
  EXPECT_TRUE(replaced->gone.is_empty());
  release(std::move(replaced->gone));
}

TEST_F(ReplaceTest, TakesAddressesThatWaitForTheirInvalidation) {
  const Runs runs{run(0, page)};
  ASSERT_TRUE(space->map(runs, fixed(0), {}).has_value());
  auto first = space->unmap(DeviceAddr(base));
  ASSERT_TRUE(first.has_value());
  EXPECT_EQ(space->map(runs, fixed(0), {}).error().code, Errc::address_in_use);
  auto replaced = space->replace(runs, fixed(0), {});
  ASSERT_TRUE(replaced.has_value());
  release(std::move(replaced->gone));
  auto second = space->unmap(DeviceAddr(base));
  ASSERT_TRUE(second.has_value());
  release(std::move(*second));
  EXPECT_EQ(space->map(runs, fixed(0), {}).error().code, Errc::address_in_use)
      << "the first one waits still";
  release(std::move(*first));
  EXPECT_TRUE(space->map(runs, fixed(0), {}).has_value());
}

}  // namespace
}  // namespace accelmm::mmu
