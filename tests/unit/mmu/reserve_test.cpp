// SPDX-License-Identifier: Apache-2.0
//
// Addresses without memory of their own: windows, reservations, null mappings, the cover of stray
// accesses.
#include "unit/mmu/tables_fixture.hpp"

#include <accelmm/mmu/address_space.hpp>
#include <accelmm/mmu/npu1.hpp>

#include <array>
#include <cstdint>
#include <memory>
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
constexpr std::uint64_t default_bus = 0x100'0000'0000;

class ReserveTest : public ::testing::Test {
 protected:
  ~ReserveTest() override {
    if (space == nullptr) return;
    space->validate();
    release(space->unmap_all());
    space.reset();
    EXPECT_EQ(tables.pool().tables_in_use(), 0u);
    tables.pool().validate();
  }
  // Three windows of 32 MiB.
  std::unique_ptr<AddressSpace> make(std::uint64_t default_bytes = large) {
    const std::array windows{
        VaWindow{VaUse::host, range(base, base + 16 * large)},
        VaWindow{VaUse::host_huge, range(base + 16 * large, base + 32 * large)},
        VaWindow{VaUse::device, range(base + 64 * large, base + 80 * large)}};
    SpaceOptions options;
    options.windows = windows;
    options.default_page = run(default_bus, default_bytes);
    options.prefetch = [this](Range<DeviceAddr> one) { prefetched.push_back(one); };
    return std::move(*make_address_space<Npu1>(tables.pool(), options));
  }
  Placement fixed(std::uint64_t offset) {
    return {Placement::Kind::fixed, DeviceAddr(base + offset)};
  }
  Placement for_use(VaUse use) { return {Placement::Kind::anywhere, {}, use}; }
  std::uint64_t bus_at(std::uint64_t offset) {
    const auto found = space->translate(DeviceAddr(base + offset));
    return found ? found->address.value() : ~0ULL;
  }

  Tables tables{64};
  std::vector<Range<DeviceAddr>> prefetched;
  std::unique_ptr<AddressSpace> space = make();
  const Runs one_page{run(0, page)};
};

TEST_F(ReserveTest, EachUseHasItsOwnWindow) {
  EXPECT_EQ(space->range(), range(base, base + 80 * large));
  const auto begin = [&](VaUse use) {
    return space->map(one_page, for_use(use), {})->range.begin.value();
  };
  EXPECT_LT(begin(VaUse::host), base + 16 * large);
  EXPECT_GE(begin(VaUse::host_huge), base + 16 * large);
  EXPECT_LT(begin(VaUse::host_huge), base + 32 * large);
  EXPECT_GE(begin(VaUse::device), base + 64 * large);
}

TEST_F(ReserveTest, FullWindowIsNoMemoryThoughAnotherHasRoom) {
  const Runs all{run(0, 16 * large)};
  ASSERT_TRUE(space->map(all, for_use(VaUse::device), {}).has_value());
  EXPECT_EQ(space->map(one_page, for_use(VaUse::device), {}).error().code, Errc::no_memory);
  EXPECT_TRUE(space->map(one_page, for_use(VaUse::any), {}).has_value());
}

TEST_F(ReserveTest, NoMappingCrossesFromOneWindowToTheNext) {
  const Runs two{run(0, 2 * page)};
  EXPECT_EQ(space->map(two, fixed(16 * large - page), {}).error().code, Errc::invalid_argument);
  EXPECT_EQ(space->map(one_page, fixed(40 * large), {}).error().code, Errc::invalid_argument);
}

TEST_F(ReserveTest, WindowsMustBeDisjointAscendingAndWholePages) {
  const auto code = [&](std::vector<VaWindow> windows) {
    SpaceOptions options;
    options.windows = windows;
    auto made = make_address_space<Npu1>(tables.pool(), options);
    if (!made) return made.error().code;
    release((*made)->unmap_all());
    return Errc{};
  };
  const VaWindow low{VaUse::any, range(page, 2 * page)};
  const VaWindow high{VaUse::any, range(2 * page, 3 * page)};
  EXPECT_EQ(code({low, high}), Errc{});
  EXPECT_EQ(code({high, low}), Errc::invalid_argument);
  EXPECT_EQ(code({low, low}), Errc::invalid_argument);
  EXPECT_EQ(code({}), Errc::invalid_argument);
  EXPECT_EQ(code({{VaUse::any, range(page, page + 1)}}), Errc::invalid_argument);
  EXPECT_EQ(code(std::vector<VaWindow>(9, low)), Errc::invalid_argument);
  SpaceOptions options;
  options.windows = std::span(&low, 1);
  options.default_page = run(0, page / 2);
  EXPECT_EQ(make_address_space<Npu1>(tables.pool(), options).error().code, Errc::invalid_argument);
}

TEST_F(ReserveTest, PiecesOfAReservationAreMappedAndUnmappedByAddress) {
  const auto reserved = space->reserve(ByteCount(8 * page), fixed(0));
  ASSERT_TRUE(reserved.has_value());
  space->validate();
  EXPECT_FALSE(space->translate(reserved->begin).has_value());
  ASSERT_TRUE(space->map(one_page, fixed(2 * page), {}).has_value());
  space->validate();
  auto gone = space->unmap(range(base + 2 * page, base + 3 * page));
  ASSERT_TRUE(gone.has_value());
  release(std::move(*gone));
  EXPECT_TRUE(space->map(one_page, fixed(2 * page), {}).has_value())
      << "still reserved, free again";
}

TEST_F(ReserveTest, NobodyElseGetsReservedAddresses) {
  ASSERT_TRUE(space->reserve(ByteCount(15 * large), fixed(0)).has_value());
  for (int i = 0; i < 4; ++i) {
    const auto mapped = space->map(one_page, for_use(VaUse::host), {});
    ASSERT_TRUE(mapped.has_value());
    EXPECT_GE(mapped->range.begin.value(), base + 15 * large);
  }
  const Runs across{run(0, 2 * page)};
  EXPECT_EQ(space->map(across, fixed(15 * large - page), {}).error().code, Errc::address_in_use);
  EXPECT_EQ(space->replace(across, fixed(15 * large - page), {}).error().code,
            Errc::address_in_use);
  EXPECT_EQ(space->reserve(ByteCount(page), fixed(page)).error().code, Errc::address_in_use);
}

TEST_F(ReserveTest, ReservationEndsOnlyWhenNothingIsMappedInIt) {
  const auto reserved = space->reserve(ByteCount(4 * page), for_use(VaUse::device));
  ASSERT_TRUE(reserved.has_value());
  ASSERT_TRUE(space->map(one_page, {Placement::Kind::fixed, reserved->begin}, {}).has_value());
  EXPECT_EQ(space->end_reservation(reserved->begin).error().code, Errc::busy);
  auto gone = space->unmap(reserved->begin);
  EXPECT_TRUE(space->end_reservation(reserved->begin).has_value());
  EXPECT_EQ(space->end_reservation(reserved->begin).error().code, Errc::invalid_argument);
  release(std::move(*gone));
  space->validate();
  const Runs all{run(0, 16 * large)};
  EXPECT_TRUE(space->map(all, for_use(VaUse::device), {}).has_value()) << "all of it came back";
}

TEST_F(ReserveTest, ReservationIsAlignedAsAsked) {
  ASSERT_TRUE(space->map(one_page, for_use(VaUse::host), {}).has_value());
  const auto reserved = space->reserve(ByteCount(page), for_use(VaUse::host), Alignment(large));
  ASSERT_TRUE(reserved.has_value());
  EXPECT_EQ(reserved->begin.value() % large, 0u);
  EXPECT_EQ(space->reserve(ByteCount(page + 1), {}).error().code, Errc::invalid_argument);
  EXPECT_EQ(space->reserve(ByteCount(page), fixed(5 * page), Alignment(large)).error().code,
            Errc::invalid_argument);
}

TEST_F(ReserveTest, NullMappingIsTheDefaultPageAllOverWithLargeLeaves) {
  const auto mapped = space->map_null(ByteCount(4 * large), fixed(0), Access::read);
  ASSERT_TRUE(mapped.has_value());
  space->validate();
  for (std::uint64_t i = 0; i < 4; ++i) {
    const auto found = space->translate(DeviceAddr(base + i * large + page));
    ASSERT_TRUE(found.has_value());
    EXPECT_EQ(found->address, BusAddr(default_bus + page));
    EXPECT_EQ(found->leaf_size, ByteCount(large));
    EXPECT_EQ(found->attributes.access, Access::read);
  }
  EXPECT_EQ(space->mapped_bytes(), ByteCount(4 * large));
  auto gone = space->unmap(mapped->range.begin);
  release(std::move(*gone));
}

TEST_F(ReserveTest, NullMappingNeedsADefaultPage) {
  auto plain = std::move(*make_address_space<Npu1>(tables.pool(), range(base, base + large)));
  EXPECT_EQ(plain->map_null(ByteCount(page), {}, Access::read).error().code, Errc::not_supported);
  release(plain->unmap_all());
  EXPECT_EQ(space->map_null(ByteCount(0), {}, Access::read).error().code, Errc::invalid_argument);
  EXPECT_EQ(space->map_null(ByteCount(page / 2), {}, Access::read).error().code,
            Errc::invalid_argument);
}

TEST_F(ReserveTest, NullMappingIsAMultipleOfPagesNotOfTheDefaultPage) {
  ASSERT_TRUE(space->map_null(ByteCount(large + 3 * page), fixed(0), Access::read).has_value());
  EXPECT_EQ(bus_at(large + 2 * page), default_bus + 2 * page);
  EXPECT_EQ(bus_at(large + 3 * page), ~0ULL);
}

TEST_F(ReserveTest, StrayAccessesGoToTheDefaultPageAndTheAddressesStayFree) {
  const Range<DeviceAddr> window = range(base + 64 * large, base + 80 * large);
  auto covered = space->cover(window, Access::read);
  ASSERT_TRUE(covered.has_value());
  EXPECT_TRUE(covered->gone.is_empty());
  release(std::move(covered->gone));
  space->validate();
  EXPECT_EQ(space->mappings(), 0u);
  EXPECT_EQ(space->mapped_bytes(), ByteCount(0));
  EXPECT_EQ(bus_at(70 * large), default_bus);

  EXPECT_EQ(space->map(one_page, for_use(VaUse::device), {}).error().code, Errc::address_in_use)
      << "a map would have to replace, and say so";
  space->validate();
  const Runs runs{run(0x4000'0000 + page, 3 * page)};
  auto mapped = space->replace(runs, for_use(VaUse::device), {});
  ASSERT_TRUE(mapped.has_value());
  space->validate();
  EXPECT_FALSE(mapped->gone.is_empty()) << "the device may know the default page there";
  release(std::move(mapped->gone));
  const DeviceAddr at = mapped->mapped.range.begin;
  EXPECT_EQ(space->translate(at)->address, BusAddr(0x4000'0000 + page));
  EXPECT_EQ(space->mappings(), 1u);

  auto again = space->cover(mapped->mapped.range, Access::read);
  ASSERT_TRUE(again.has_value());
  space->validate();
  EXPECT_EQ(space->mappings(), 0u);
  EXPECT_EQ(space->translate(at)->attributes.access, Access::read);
  EXPECT_GE(space->translate(at)->address, BusAddr(default_bus));
  release(std::move(again->gone));
  EXPECT_EQ(space->unmap(at).error().code, Errc::invalid_argument) << "it is no mapping";
}

TEST_F(ReserveTest, PrefetchGoesToTheDevice) {
  EXPECT_TRUE(space->prefetch(range(base, base + page)).has_value());
  ASSERT_EQ(prefetched.size(), 1u);
  EXPECT_EQ(prefetched[0], range(base, base + page));
  EXPECT_EQ(space->prefetch(range(base, base)).error().code, Errc::invalid_argument);
  EXPECT_EQ(space->prefetch(range(0, page)).error().code, Errc::invalid_argument);
  EXPECT_EQ(prefetched.size(), 1u);
}

TEST_F(ReserveTest, RefusalsLeaveTheBooksAsTheyWere) {
  const Runs many{run(page, 60 * large)};
  EXPECT_FALSE(space->map_null(ByteCount(17 * large), for_use(VaUse::host), Access::read));
  EXPECT_FALSE(space->replace(many, fixed(0), {}));
  EXPECT_FALSE(space->cover(range(base, base), Access::read));
  EXPECT_FALSE(space->cover(range(base - page, base), Access::read));
  EXPECT_FALSE(space->reserve(ByteCount(17 * large), {}));
  space->validate();
  EXPECT_EQ(space->mappings(), 0u);
  EXPECT_TRUE(space->reserve(ByteCount(16 * large), fixed(0)).has_value());
}

}  // namespace
}  // namespace accelmm::mmu
