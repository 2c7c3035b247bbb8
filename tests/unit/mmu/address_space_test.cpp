// SPDX-License-Identifier: Apache-2.0
#include "unit/mmu/naive_npu1_walker.hpp"
#include "unit/mmu/tables_fixture.hpp"

#include <accelmm/mmu/address_space.hpp>
#include <accelmm/mmu/npu1.hpp>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::mmu {
namespace {

using test::invalidated;
using test::range;
using test::release;
using test::run;
using test::Runs;
using test::table_bytes;
using test::Tables;

constexpr std::uint64_t page = 0x1000;
constexpr std::uint64_t large = 0x20'0000;
constexpr std::uint64_t base = 1ULL << 40;

Placement anywhere() {
  return {};
}
Placement hint(std::uint64_t va) {
  return {Placement::Kind::hint, DeviceAddr(va)};
}
Placement fixed(std::uint64_t va) {
  return {Placement::Kind::fixed, DeviceAddr(va)};
}

class AddressSpaceTest : public ::testing::Test {
 protected:
  ~AddressSpaceTest() override {
    if (space == nullptr) return;
    space->validate();
    release(space->unmap_all());
    space.reset();
    EXPECT_EQ(tables.pool().tables_in_use(), 0u);
    tables.pool().validate();
  }

  Result<MappedRange> map(const Runs& runs, Placement placement,
                          Access access = Access::read_write) {
    auto mapped = space->map(runs, placement, access);
    space->validate();
    return mapped;
  }
  Errc refusal(const Runs& runs, Placement placement, Access access = Access::read_write) {
    const std::size_t mappings = space->mappings();
    const ByteCount bytes = space->mapped_bytes();
    const auto before = tables.snapshot();
    const std::uint32_t in_use = tables.pool().tables_in_use();
    const auto mapped = map(runs, placement, access);
    EXPECT_FALSE(mapped.has_value());
    EXPECT_EQ(space->mappings(), mappings);
    EXPECT_EQ(space->mapped_bytes(), bytes);
    EXPECT_EQ(tables.snapshot(), before);
    EXPECT_EQ(tables.pool().tables_in_use(), in_use);
    return mapped ? Errc{} : mapped.error().code;
  }
  void unmap(DeviceAddr start) {
    auto gone = space->unmap(start);
    ASSERT_TRUE(gone.has_value());
    release(std::move(*gone));
  }

  Tables tables{64};
  std::unique_ptr<AddressSpace> space =
      std::move(*make_address_space<Npu1>(tables.pool(), range(base, base + 64 * large)));
};

TEST_F(AddressSpaceTest, NewSpaceHasARootAndNothingElse) {
  EXPECT_EQ(space->mappings(), 0u);
  EXPECT_EQ(space->mapped_bytes(), ByteCount(0));
  EXPECT_EQ(space->table_bytes(), ByteCount(4096));
  EXPECT_EQ(space->root(), BusAddr(Tables::bus_begin));
  EXPECT_FALSE(space->translate(DeviceAddr(base)).has_value());
}

TEST_F(AddressSpaceTest, MappingIsWhatTheTablesSay) {
  const auto mapped = map({run(5 * page, 2 * page), run(page, page)}, anywhere(), Access::read);
  ASSERT_TRUE(mapped.has_value());
  EXPECT_EQ(mapped->range.size(), ByteCount(3 * page));
  const naive_npu1::TableBytes bytes{tables.bytes(), Tables::bus_begin, tables.size()};
  const std::uint64_t expected[] = {5 * page, 6 * page, page};
  for (std::uint64_t i = 0; i < 3; ++i) {
    const DeviceAddr va = mapped->range.begin + ByteCount(i * page + 7);
    const auto answer = naive_npu1::walk(bytes, space->root().value(), va.value());
    EXPECT_EQ(answer.bus, expected[i] + 7);
    EXPECT_FALSE(answer.writable);
    EXPECT_EQ(space->translate(va)->address.value(), expected[i] + 7);
  }
  EXPECT_EQ(space->walk(mapped->range.begin).steps().size(), 5u);
  EXPECT_EQ(space->mappings(), 1u);
  EXPECT_EQ(space->mapped_bytes(), ByteCount(3 * page));
  EXPECT_EQ(space->table_bytes(), ByteCount(5 * 4096));
}

TEST_F(AddressSpaceTest, ChoosesAnAddressThatLetsLargeLeavesFit) {
  const auto other = map({run(0, page)}, anywhere());  // moves the next free address off a boundary
  ASSERT_TRUE(other.has_value());
  const std::uint64_t bus = 9 * large - 3 * page;
  const auto mapped = map({run(page, 5 * page), run(bus, 3 * large)}, anywhere());
  ASSERT_TRUE(mapped.has_value());
  const DeviceAddr in_body = mapped->range.begin + ByteCount(8 * page);
  EXPECT_EQ(in_body.value() % large, 0u);
  EXPECT_EQ(space->translate(in_body)->leaf_size, ByteCount(large));
  EXPECT_EQ(space->translate(in_body)->address, BusAddr(9 * large));
}

TEST_F(AddressSpaceTest, NeighbouringRunsCountAsOneForTheChoice) {
  Runs pages;
  for (std::uint64_t i = 0; i < 512; ++i) pages.push_back(run(4 * large + i * page, page));
  const auto mapped = map(pages, anywhere());
  ASSERT_TRUE(mapped.has_value());
  EXPECT_EQ(space->translate(mapped->range.begin)->leaf_size, ByteCount(large));
}

TEST_F(AddressSpaceTest, UsesSmallLeavesWhereNoCongruentAddressIsFree) {
  // The whole space but a hole of 2 MiB and a page, off the boundary by half.
  ASSERT_TRUE(map({run(0, 10 * large + 3 * page)}, fixed(base)).has_value());
  const std::uint64_t hole_end = base + 11 * large + 4 * page;
  ASSERT_TRUE(map({run(4 * page, base + 64 * large - hole_end)}, fixed(hole_end)).has_value());
  const auto mapped = map({run(8 * large, large)}, anywhere());
  ASSERT_TRUE(mapped.has_value());
  EXPECT_EQ(space->translate(mapped->range.begin)->leaf_size, ByteCount(page));
}

TEST_F(AddressSpaceTest, HintIsTakenWhereItIsFree) {
  EXPECT_EQ(map({run(0, page)}, hint(base + 7 * page))->range.begin, DeviceAddr(base + 7 * page));
}

TEST_F(AddressSpaceTest, HintThatIsTakenUnalignedOrOutsideGoesElsewhere) {
  ASSERT_TRUE(map({run(0, 2 * page)}, fixed(base + 7 * page)).has_value());
  for (const std::uint64_t va :
       {base + 7 * page, base + 6 * page, base + 8 * page, base + 0x10, base - page,
        base + 64 * large - page, base + 64 * large, std::uint64_t{0}, ~std::uint64_t{0xFFF}}) {
    const auto mapped = map({run(0, 2 * page)}, hint(va));
    ASSERT_TRUE(mapped.has_value()) << std::hex << va;
    EXPECT_NE(mapped->range.begin, DeviceAddr(va));
    EXPECT_TRUE(space->range().contains(mapped->range));
  }
}

TEST_F(AddressSpaceTest, FixedIsTakenExactlyOrRefused) {
  EXPECT_EQ(map({run(0, 2 * page)}, fixed(base + page))->range,
            range(base + page, base + 3 * page));
  EXPECT_EQ(refusal({run(0, page)}, fixed(base + page)), Errc::address_in_use);
  EXPECT_EQ(refusal({run(0, page)}, fixed(base + 2 * page)), Errc::address_in_use);
  EXPECT_EQ(refusal({run(0, 2 * page)}, fixed(base)), Errc::address_in_use);
  EXPECT_EQ(refusal({run(0, page)}, fixed(base + 0x800)), Errc::invalid_argument);
  EXPECT_EQ(refusal({run(0, page)}, fixed(base - page)), Errc::invalid_argument);
  EXPECT_EQ(refusal({run(0, 2 * page)}, fixed(base + 64 * large - page)), Errc::invalid_argument);
  EXPECT_EQ(refusal({run(0, page)}, fixed(~std::uint64_t{0xFFF})), Errc::invalid_argument);
  EXPECT_TRUE(map({run(0, page)}, fixed(base + 64 * large - page)).has_value());
}

TEST_F(AddressSpaceTest, RefusesMalformedRunsAndAccesses) {
  EXPECT_EQ(refusal({}, anywhere()), Errc::invalid_argument);
  EXPECT_EQ(refusal({run(0, 0)}, anywhere()), Errc::invalid_argument);
  EXPECT_EQ(refusal({run(0x10, page)}, anywhere()), Errc::invalid_argument);
  EXPECT_EQ(refusal({run(0, page), run(0, 0x10)}, anywhere()), Errc::invalid_argument);
  EXPECT_EQ(refusal({run(0, 1ULL << 63), run(0, 1ULL << 63)}, anywhere()), Errc::invalid_argument);
  EXPECT_EQ(refusal({run(0, page)}, anywhere(), Access{0}), Errc::invalid_argument);
  EXPECT_EQ(refusal({run(0, page)}, fixed(base), Access{9}), Errc::invalid_argument);
}

TEST_F(AddressSpaceTest, TooLargeForTheSpaceIsNoMemory) {
  EXPECT_EQ(refusal({run(0, 65 * large)}, anywhere()), Errc::no_memory);
  EXPECT_TRUE(map({run(0, 64 * large)}, anywhere()).has_value());
  EXPECT_EQ(refusal({run(0, page)}, anywhere()), Errc::no_memory);
}

TEST_F(AddressSpaceTest, ShortageOfTablesIsNoMemoryAndGivesTheAddressBack) {
  // Root and three hops, and one table for each 2 MiB of small leaves: 60 of them are left for 64
  // needed.
  EXPECT_EQ(refusal({run(page, 64 * large)}, fixed(base)), Errc::no_memory);
  EXPECT_TRUE(map({run(page, 60 * large)}, fixed(base)).has_value());
}

TEST_F(AddressSpaceTest, UnmapTakesTheExactStartOfAMapping) {
  const auto mapped = map({run(0, 3 * page)}, fixed(base + 4 * page));
  ASSERT_TRUE(mapped.has_value());
  for (const std::uint64_t va : {base + 5 * page, base + 3 * page, base, base + 4 * page + 1})
    EXPECT_EQ(space->unmap(DeviceAddr(va)).error().code, Errc::invalid_argument);
  EXPECT_EQ(space->mappings(), 1u);
  unmap(mapped->range.begin);
  EXPECT_EQ(space->mappings(), 0u);
  EXPECT_EQ(space->mapped_bytes(), ByteCount(0));
  EXPECT_EQ(space->unmap(mapped->range.begin).error().code, Errc::invalid_argument);
  EXPECT_FALSE(space->translate(mapped->range.begin).has_value());
}

TEST_F(AddressSpaceTest, UnmappedAddressesAndTablesAreReusableOnlyAfterTheInvalidation) {
  ASSERT_TRUE(map({run(0, page)}, fixed(base)).has_value());
  auto gone = space->unmap(DeviceAddr(base));
  ASSERT_TRUE(gone.has_value());
  EXPECT_EQ(gone->range(), range(base, base + page));
  EXPECT_EQ(gone->tables(), 4u);
  space->validate();
  EXPECT_FALSE(space->translate(DeviceAddr(base)).has_value()) << "gone from the tables at once";
  EXPECT_EQ(refusal({run(0, page)}, fixed(base)), Errc::address_in_use);
  EXPECT_EQ(tables.pool().tables_in_use(), 5u);
  EXPECT_EQ(space->table_bytes(), ByteCount(4096));
  release(std::move(*gone));
  EXPECT_EQ(tables.pool().tables_in_use(), 1u);
  EXPECT_TRUE(map({run(0, page)}, fixed(base)).has_value());
}

TEST_F(AddressSpaceTest, UnmapLeavesOtherMappingsInTheSameTableAlone) {
  ASSERT_TRUE(map({run(page, page)}, fixed(base)).has_value());
  ASSERT_TRUE(map({run(2 * page, page)}, fixed(base + page)).has_value());
  unmap(DeviceAddr(base));
  EXPECT_EQ(space->translate(DeviceAddr(base + page))->address, BusAddr(2 * page));
  EXPECT_EQ(space->table_bytes(), ByteCount(5 * 4096));
}

TEST_F(AddressSpaceTest, UnmapAllTakesTheRootToo) {
  ASSERT_TRUE(map({run(page, page)}, anywhere()).has_value());
  ASSERT_TRUE(map({run(8 * large, 2 * large)}, anywhere()).has_value());
  auto pending = space->unmap(map({run(0, page)}, anywhere())->range.begin);
  EXPECT_EQ(space->spare_tables(), 2u) << "for the mapping with large leaves";
  const std::uint32_t in_use = tables.pool().tables_in_use() - space->spare_tables();
  auto gone = space->unmap_all();
  EXPECT_EQ(space->mappings(), 0u);
  EXPECT_EQ(space->mapped_bytes(), ByteCount(0));
  EXPECT_EQ(gone.tables() + pending->tables(), in_use);
  EXPECT_TRUE(gone.range().contains(space->range()));
  const Runs runs{run(0, page)};
  EXPECT_EQ(space->map(runs, anywhere(), Access::read).error().code, Errc::invalid_argument);
  EXPECT_EQ(space->unmap(DeviceAddr(base)).error().code, Errc::invalid_argument);
  EXPECT_EQ(tables.pool().tables_in_use(), in_use);
  release(std::move(gone));
  release(std::move(*pending));
  EXPECT_EQ(tables.pool().tables_in_use(), 0u);
  space.reset();
}

TEST_F(AddressSpaceTest, TwoSpacesMapTheSameAddressDifferently) {
  auto other = make_address_space<Npu1>(tables.pool(), range(base, base + large));
  ASSERT_TRUE(other.has_value());
  ASSERT_TRUE(map({run(page, page)}, fixed(base)).has_value());
  const Runs runs{run(2 * page, page)};
  ASSERT_TRUE((*other)->map(runs, fixed(base), Access::read).has_value());
  EXPECT_NE(space->root(), (*other)->root());
  EXPECT_EQ(space->translate(DeviceAddr(base))->address, BusAddr(page));
  EXPECT_EQ((*other)->translate(DeviceAddr(base))->address, BusAddr(2 * page));
  release((*other)->unmap_all());
}

TEST(MakeAddressSpace, RefusesRangesOutsideTheFormat) {
  Tables tables(4);
  const auto code = [&tables](std::uint64_t begin, std::uint64_t end) {
    auto made = make_address_space<Npu1>(tables.pool(), range(begin, end));
    if (!made) return made.error().code;
    release((*made)->unmap_all());
    return Errc{};
  };
  EXPECT_EQ(code(0, 1ULL << 50), Errc{});
  EXPECT_EQ(code(0, (1ULL << 50) + page), Errc::invalid_argument);
  EXPECT_EQ(code(page, page), Errc::invalid_argument);
  EXPECT_EQ(code(2 * page, page), Errc::invalid_argument);
  EXPECT_EQ(code(0x800, 2 * page), Errc::invalid_argument);
  EXPECT_EQ(code(0, page + 0x800), Errc::invalid_argument);
  EXPECT_EQ(tables.pool().tables_in_use(), 0u);
}

TEST(MakeAddressSpace, NoTableForTheRootIsNoMemory) {
  Tables tables(1);
  auto first = make_address_space<Npu1>(tables.pool(), range(0, large));
  ASSERT_TRUE(first.has_value());
  EXPECT_EQ(make_address_space<Npu1>(tables.pool(), range(0, large)).error().code, Errc::no_memory);
  release((*first)->unmap_all());
}

// As a driver out of tree would write one: three hops of nine bits, leaves of 4 KiB, 2 MiB and 1
// GiB, addresses shifted right by two, no permission bits.
struct ThreeHops : FormatDefaults {
  static constexpr unsigned hops = 3;
  static constexpr unsigned bus_bits = 56;
  static constexpr unsigned shift(unsigned hop) { return 30 - 9 * hop; }
  static constexpr unsigned index_bits(unsigned) { return 9; }
  static constexpr std::uint64_t leaf_sizes(unsigned hop) { return std::uint64_t{1} << shift(hop); }
  static constexpr std::uint64_t step(std::uint64_t bytes) { return bytes >> 2; }
  static constexpr EntryKind classify(unsigned hop, std::uint64_t entry) {
    if (entry == 0) return EntryKind::empty;
    if ((entry & 3) == 3) return EntryKind::leaf;
    return (entry & 3) == 1 && hop < 2 ? EntryKind::table : EntryKind::malformed;
  }
  static constexpr Result<std::uint64_t> leaf_bits(Attributes wanted) {
    if (wanted != Attributes()) return fail(Errc::not_supported, "no permission bits");
    return 3;
  }
  static constexpr std::uint64_t make_leaf(unsigned, unsigned, BusAddr target, std::uint64_t bits) {
    return target.value() >> 2 | bits;
  }
  static constexpr std::uint64_t make_link(unsigned, BusAddr table) {
    return table.value() >> 2 | 1;
  }
  static constexpr unsigned leaf_lg2(unsigned hop, std::uint64_t) { return shift(hop); }
  static constexpr BusAddr leaf_address(unsigned, std::uint64_t entry) {
    return BusAddr((entry & ~std::uint64_t{3}) << 2);
  }
  static constexpr BusAddr link_address(unsigned hop, std::uint64_t entry) {
    return leaf_address(hop, entry);
  }
  static constexpr Attributes attributes(unsigned, std::uint64_t) { return {}; }
};

TEST(MakeAddressSpace, TakesAFormatFromOutOfTree) {
  Tables tables(16);
  const AddressSpaceFactory factory = make_address_space<ThreeHops>;
  constexpr std::uint64_t giant = 1ULL << 30;
  auto made = factory(tables.pool(), range(0, 1ULL << 39));
  ASSERT_TRUE(made.has_value());
  AddressSpace& space = **made;
  const Runs runs{run(7 * giant - page, 2 * giant + large + 2 * page)};
  EXPECT_EQ(space.map(runs, anywhere(), Access::read).error().code, Errc::not_supported);
  const auto mapped = space.map(runs, anywhere(), Access::read_write);
  ASSERT_TRUE(mapped.has_value());
  space.validate();
  const auto leaf_at = [&](std::uint64_t offset) {
    return space.translate(mapped->range.begin + ByteCount(offset)).value();
  };
  EXPECT_EQ(leaf_at(0).leaf_size.value(), page);
  EXPECT_EQ(leaf_at(page).leaf_size.value(), giant);
  EXPECT_EQ(leaf_at(page + giant).address.value(), 8 * giant);
  EXPECT_EQ(leaf_at(page + 2 * giant).leaf_size.value(), large);
  EXPECT_EQ(leaf_at(page + 2 * giant + large).leaf_size.value(), page);
  const Runs beyond{run((1ULL << 56) - page, 2 * page)};
  EXPECT_EQ(space.map(beyond, anywhere(), Access::read_write).error().code, Errc::invalid_argument);
  auto gone = space.unmap(mapped->range.begin);
  ASSERT_TRUE(gone.has_value());
  release(std::move(*gone));
  EXPECT_EQ(space.table_bytes(), ByteCount(4096));
  release(space.unmap_all());
}

using AddressSpaceDeathTest = AddressSpaceTest;

TEST_F(AddressSpaceDeathTest, AbortsWhenAnUnmappedIsDropped) {
  ASSERT_TRUE(map({run(0, page)}, fixed(base)).has_value());
  EXPECT_DEATH((void)space->unmap(DeviceAddr(base)), "check failed: space_ == nullptr");
}

TEST_F(AddressSpaceDeathTest, AbortsWhenTheInvalidationDoesNotCoverTheRange) {
  ASSERT_TRUE(map({run(0, 2 * page)}, fixed(base)).has_value());
  EXPECT_DEATH(
      std::move(*space->unmap(DeviceAddr(base))).release(invalidated(range(base, base + page))),
      "check failed: done.covers");
}

TEST_F(AddressSpaceDeathTest, AbortsWhenDestroyedBeforeItEnded) {
  EXPECT_DEATH(space.reset(), "check failed: ");
}

TEST_F(AddressSpaceDeathTest, AbortsWhenEndedTwice) {
  EXPECT_DEATH(
      {
        release(space->unmap_all());
        release(space->unmap_all());
      },
      "check failed: !books_->has_ended");
}

TEST_F(AddressSpaceDeathTest, AbortsWhenDestroyedBeforeEveryUnmappedIsReleased) {
  ASSERT_TRUE(map({run(0, page)}, fixed(base)).has_value());
  EXPECT_DEATH(
      {
        auto gone = space->unmap(DeviceAddr(base));
        release(space->unmap_all());
        space.reset();
      },
      "check failed: books_->unreleased == 0");
}

TEST_F(AddressSpaceDeathTest, ValidateFindsALeafThatNoMappingExplains) {
  ASSERT_TRUE(map({run(0, page)}, fixed(base)).has_value());
  const WalkStep leaf = space->walk(DeviceAddr(base)).steps()[4];
  tables.plant(leaf.table, leaf.index, 0);
  tables.plant(leaf.table, leaf.index + 1, leaf.entry);
  EXPECT_DEATH(space->validate(), "check failed: leaf.has_value");
  tables.plant(leaf.table, leaf.index, leaf.entry);
  tables.plant(leaf.table, leaf.index + 1, 0);
}

TEST_F(AddressSpaceTest, ARemappedMappingLeadsElsewhereAtTheSameAddress) {
  const auto mapped = map({run(0x10'0000'0000, large)}, fixed(base + large), Access::read);
  ASSERT_TRUE(mapped);
  const DeviceAddr start = mapped->range.begin;
  EXPECT_EQ(space->table_bytes().value(), 4 * table_bytes);  // one large leaf
  auto prepared = space->prepare_remap(start, Runs{run(0x20'0000'1000, large)});
  ASSERT_TRUE(prepared);
  EXPECT_EQ(0x10'0000'0000U, space->translate(start)->address.value());
  auto stale = std::move(*prepared).apply();
  EXPECT_EQ(mapped->range, stale.range());
  EXPECT_EQ(0x20'0000'1000U, space->translate(start)->address.value());
  EXPECT_EQ(0x20'0000'1000U + large - 1,
            space->translate(start + ByteCount(large - 1))->address.value());
  EXPECT_EQ(Access::read, space->translate(start)->attributes.access);
  EXPECT_EQ(space->table_bytes().value(), 5 * table_bytes);  // pages, for want of alignment
  release(std::move(stale));
  space->validate();
  // The address is still taken, and free after the unmap.
  EXPECT_EQ(Errc::address_in_use, refusal({run(0, page)}, fixed(base + large)));
  unmap(start);
  EXPECT_TRUE(map({run(0, page)}, fixed(base + large)));
}

TEST_F(AddressSpaceTest, TablesThatAReplacedMappingNeedsNoMoreWaitForTheInvalidation) {
  const auto mapped = map({run(0x1000, large)}, fixed(base));
  ASSERT_TRUE(mapped);
  const std::uint32_t before = tables.pool().tables_in_use();
  auto prepared = space->prepare_remap(mapped->range.begin, Runs{run(0x20'0000'0000, large)});
  ASSERT_TRUE(prepared);
  auto stale = std::move(*prepared).apply();
  // The device may hold links to all that served nothing else, and they were made anew.
  EXPECT_EQ(before - 1, stale.tables());
  EXPECT_EQ(2 * (before - 1), tables.pool().tables_in_use());
  release(std::move(stale));
  EXPECT_EQ(before - 1, tables.pool().tables_in_use());
}

TEST_F(AddressSpaceTest, ARemapThatIsDroppedChangesNothing) {
  const auto mapped = map({run(0x10'0000'0000, large)}, fixed(base));
  ASSERT_TRUE(mapped);
  const auto before = tables.snapshot();
  const std::uint32_t in_use = tables.pool().tables_in_use();
  {
    const auto prepared = space->prepare_remap(mapped->range.begin, Runs{run(0x1000, large)});
    ASSERT_TRUE(prepared);
    EXPECT_LT(in_use, tables.pool().tables_in_use());
  }
  EXPECT_EQ(in_use, tables.pool().tables_in_use());
  EXPECT_EQ(before, tables.snapshot());
}

TEST_F(AddressSpaceTest, ARemapIsOfAMappingAndAsLongAsIt) {
  const auto mapped = map({run(0x10'0000'0000, 4 * page)}, fixed(base));
  ASSERT_TRUE(mapped);
  const auto code_of = [&](std::uint64_t start, const Runs& runs) {
    const auto prepared = space->prepare_remap(DeviceAddr(start), runs);
    return prepared ? Errc{} : prepared.error().code;
  };
  EXPECT_EQ(Errc::invalid_argument, code_of(base + page, {run(0x1000, 4 * page)}));
  EXPECT_EQ(Errc::invalid_argument, code_of(base, {run(0x1000, 3 * page)}));
  EXPECT_EQ(Errc::invalid_argument, code_of(base, {run(0x1000, 5 * page)}));
  EXPECT_EQ(Errc::invalid_argument, code_of(base, {}));
  EXPECT_EQ(Errc::invalid_argument, code_of(base, {run(0x1010, 4 * page)}));
  EXPECT_EQ(Errc{}, code_of(base, {run(0x1000, page), run(0x9000, 3 * page)}));
}

TEST_F(AddressSpaceTest, ARemapWithoutTablesIsRefused) {
  const auto mapped = map({run(0x10'0000'0000, large)}, fixed(base));
  ASSERT_TRUE(mapped);
  auto rest = tables.pool().take(tables.pool().capacity() - tables.pool().tables_in_use());
  ASSERT_TRUE(rest);
  const auto prepared = space->prepare_remap(mapped->range.begin, Runs{run(0x1000, large)});
  ASSERT_FALSE(prepared);
  EXPECT_EQ(Errc::no_memory, prepared.error().code);
  tables.pool().give_back(std::move(*rest));
  space->validate();
}

}  // namespace
}  // namespace accelmm::mmu
