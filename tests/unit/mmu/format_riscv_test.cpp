// SPDX-License-Identifier: Apache-2.0
#include "unit/mmu/bit_flips.hpp"

#include <accelmm/access.hpp>
#include <accelmm/mmu/riscv.hpp>

#include <cstdint>

#include <gtest/gtest.h>

namespace accelmm::mmu {
namespace {

using Sv39 = RiscV<39, Svnapot::no>;
using Sv39n = RiscV<39, Svnapot::yes>;
using Sv57 = RiscV<57, Svnapot::yes>;

// Expected words: RISC-V privileged specification (figures of Sv39's entry, Svnapot, Svpbmt), with
// the bits that Linux's generic_pt/fmt/riscv.h sets: V 1, R 2, W 4, U 0x10, A 0x40, D 0x80.

TEST(RiscV, LeafHasThePageNumberFromBitTen) {
  EXPECT_EQ(Sv39::make_leaf(2, 12, BusAddr(0x12'3456'7000), *Sv39::leaf_bits(Access::read_write)),
            0x4'8D15'9CD7u);
  EXPECT_EQ(Sv39::make_leaf(2, 12, BusAddr(0xFF'FFFF'FFFF'F000), *Sv39::leaf_bits(Access::read)),
            0x003F'FFFF'FFFF'FC53u);
  EXPECT_EQ(Sv39::step(4096), 1024u);
  EXPECT_EQ(Sv39::make_leaf(0, 30, BusAddr(0xC000'0000), *Sv39::leaf_bits(Access::read)),
            0x3000'0053u);
}

TEST(RiscV, LinkHasOnlyValidAndThePageNumber) {
  EXPECT_EQ(Sv39::make_link(0, BusAddr(0x12'3456'7000)), 0x4'8D15'9C01u);
  EXPECT_EQ(Sv57::make_link(3, BusAddr(0x12'3456'7000)), 0x4'8D15'9C01u);
}

TEST(RiscV, NapotPageHasBitThirteenAndIsTheSameInAllEntries) {
  const auto bits = *Sv39n::leaf_bits(Access::read_write);
  EXPECT_EQ(Sv39n::make_leaf(2, 16, BusAddr(0x12'3456'0000), bits), 0x8000'0004'8D15'A0D7u);
  EXPECT_EQ(Sv39n::leaf_address(2, 0x8000'0004'8D15'A0D7), BusAddr(0x12'3456'0000));
  EXPECT_EQ(Sv39n::leaf_lg2(2, 0x8000'0004'8D15'A0D7), 16u);
  EXPECT_TRUE(Sv39n::repeats_group);
}

TEST(RiscV, NapotOfAnyOtherSizeOrWithoutTheExtensionIsMalformed) {
  EXPECT_EQ(Sv39n::classify(2, 0x8000'0004'8D15'A0D7), EntryKind::leaf);
  EXPECT_EQ(Sv39::classify(2, 0x8000'0004'8D15'A0D7), EntryKind::malformed);
  EXPECT_EQ(Sv39n::classify(2, 0x8000'0004'8D15'80D7), EntryKind::malformed) << "ppn[3:0] = 0";
  EXPECT_EQ(Sv39n::classify(2, 0x8000'0004'8D15'B0D7), EntryKind::malformed) << "ppn[3:0] = 12";
  EXPECT_EQ(Sv39n::classify(1, 0x8000'0004'8D00'20D7), EntryKind::malformed)
      << "above the last hop";
}

TEST(RiscV, MemoryTypesAreThoseOfSvpbmt) {
  EXPECT_EQ(*Sv39::leaf_bits({Access::read_write, MemoryType::write_back}), 0xD7u);
  EXPECT_EQ(*Sv39::leaf_bits({Access::read_write, MemoryType::write_combined}),
            0x2000'0000'0000'00D7u)
      << "NC";
  EXPECT_EQ(*Sv39::leaf_bits({Access::read, MemoryType::device}), 0x4000'0000'0000'0053u) << "IO";
  EXPECT_EQ(Sv39::classify(2, 0x6000'0004'8D15'9CD7), EntryKind::malformed) << "PBMT 3 is reserved";
}

TEST(RiscV, CannotForbidReading) {
  EXPECT_EQ(Sv39::leaf_bits(Access::write).error().code, Errc::not_supported);
  EXPECT_EQ(Sv39::classify(2, 0x4'8D15'9CD5), EntryKind::malformed) << "W without R is reserved";
}

TEST(RiscV, OnlyPageNumberWriteTypeAndDirtyAreFreeInALeaf) {
  EXPECT_EQ(flips_that_keep_the_kind<Sv39n>(2, 0x4'8D15'9CD7), 0x603F'FFFF'FFFF'FC84u);
  EXPECT_EQ(flips_that_keep_the_kind<Sv39n>(2, 0x4'8D15'9C53), 0x603F'FFFF'FFFF'FC84u);
  EXPECT_EQ(flips_that_keep_the_kind<Sv39n>(2, 0x8000'0004'8D15'A0D7), 0xE03F'FFFF'FFFF'C084u)
      << "without N it is the page in the middle";
  EXPECT_EQ(flips_that_keep_the_kind<Sv57>(0, 0x0000'4000'0000'00D7), 0x603F'C000'0000'0084u)
      << "256 TiB";
}

TEST(RiscV, OnlyThePageNumberIsFreeInALink) {
  EXPECT_EQ(flips_that_keep_the_kind<Sv39>(0, 0x4'8D15'9C01), 0x003F'FFFF'FFFF'FC00u);
  EXPECT_EQ(Sv39::classify(2, 0x4'8D15'9C01), EntryKind::malformed) << "nothing below the last hop";
  EXPECT_EQ(Sv39::classify(0, 0x4'8D15'9C41), EntryKind::malformed) << "A is reserved in a link";
}

TEST(RiscV, DirtyIsBitSeven) {
  EXPECT_TRUE(Sv39::dirty(0x4'8D15'9CD7));
  EXPECT_EQ(Sv39::clean(0x4'8D15'9CD7), 0x4'8D15'9C57u);
  EXPECT_FALSE(Sv39::dirty(0x4'8D15'9C57));
  EXPECT_EQ(Sv39::soil(0x4'8D15'9C53), 0x4'8D15'9CD3u);
}

}  // namespace
}  // namespace accelmm::mmu
