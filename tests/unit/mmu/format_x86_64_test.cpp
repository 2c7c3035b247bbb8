// SPDX-License-Identifier: Apache-2.0
#include "unit/mmu/bit_flips.hpp"

#include <accelmm/access.hpp>
#include <accelmm/mmu/x86_64.hpp>

#include <cstdint>

#include <gtest/gtest.h>

namespace accelmm::mmu {
namespace {

using Four = X86_64<4>;
using Five = X86_64<5>;

// Expected words: Intel SDM volume 3 tables 4-15 to 4-20; the same low bits as Linux writes through
// generic_pt/fmt/x86_64.h: a link P|RW|U|A, a leaf P|U|A and RW|D where writable.

constexpr BusAddr page(0x000F'1234'5678'9000);

TEST(X86, SmallLeafHasNoSizeBit) {
  EXPECT_EQ(Four::make_leaf(3, 12, page, *Four::leaf_bits(Access::read_write)),
            0x000F'1234'5678'9067u);
  EXPECT_EQ(Four::make_leaf(3, 12, page, *Four::leaf_bits(Access::read)), 0x000F'1234'5678'9025u);
  EXPECT_EQ(Five::make_leaf(4, 12, page, *Five::leaf_bits(Access::read)), 0x000F'1234'5678'9025u);
}

TEST(X86, LargeLeafHasTheSizeBit) {
  EXPECT_EQ(Four::make_leaf(2, 21, BusAddr(0x4060'0000), *Four::leaf_bits(Access::read_write)),
            0x4060'00E7u);
  EXPECT_EQ(Five::make_leaf(2, 30, BusAddr(0xC000'0000), *Five::leaf_bits(Access::read)),
            0xC000'00A5u);
}

TEST(X86, LinkGrantsEverything) {
  EXPECT_EQ(Four::make_link(0, page), 0x000F'1234'5678'9027u);
  EXPECT_EQ(Five::make_link(3, page), 0x000F'1234'5678'9027u);
}

TEST(X86, MemoryTypesAreEntriesOfThePat) {
  // PAT entry 1 (PWT) is write combining, entry 3 (PCD, PWT) uncacheable, entry 0 write back.
  EXPECT_EQ(*Four::leaf_bits({Access::read_write, MemoryType::write_back}), 0x67u);
  EXPECT_EQ(*Four::leaf_bits({Access::read_write, MemoryType::write_combined}), 0x6Fu);
  EXPECT_EQ(*Four::leaf_bits({Access::read_write, MemoryType::device}), 0x7Fu);
  EXPECT_EQ(*Four::leaf_bits({Access::read, MemoryType::device}), 0x3Du);
  // Linux's order: write back 6, write combining 1, uncached minus 7, uncacheable 0; then 6, 5, 7, 4.
  EXPECT_EQ(Four::pat, 0x0407'0506'0007'0106u);
}

TEST(X86, CannotForbidReading) {
  EXPECT_EQ(Four::leaf_bits(Access::write).error().code, Errc::not_supported);
}

TEST(X86, OnlyAddressTypeAndDirtyAreFreeInALeaf) {
  EXPECT_EQ(flips_that_keep_the_kind<Four>(3, 0x1234'5678'9067), 0x000F'FFFF'FFFF'F04Au)
      << "RW, PWT, D; PCD never stands alone";
  EXPECT_EQ(flips_that_keep_the_kind<Four>(3, 0x1234'5678'9025), 0x000F'FFFF'FFFF'F04Au)
      << "RW, PWT, D";
  EXPECT_EQ(flips_that_keep_the_kind<Four>(2, 0x4060'00E7), 0x000F'FFFF'FFE0'004Au);
  EXPECT_EQ(flips_that_keep_the_kind<Four>(1, 0x40'0000'00BD), 0x000F'FFFF'C000'0052u)
      << "RW, PCD, D of a device's registers";
}

TEST(X86, OnlyTheAddressIsFreeInALink) {
  EXPECT_EQ(flips_that_keep_the_kind<Four>(0, 0x1234'5678'9027), 0x000F'FFFF'FFFF'F000u);
  EXPECT_EQ(flips_that_keep_the_kind<Five>(3, 0x1234'5678'9027), 0x000F'FFFF'FFFF'F000u);
}

TEST(X86, ThePatBitIsNeverOurs) {
  EXPECT_EQ(Four::classify(3, 0x1234'5678'90E7), EntryKind::malformed) << "bit 7 of 4 KiB";
  EXPECT_EQ(Four::classify(2, 0x4060'10E7), EntryKind::malformed) << "bit 12 of 2 MiB";
  EXPECT_EQ(Four::classify(0, 0x80'0000'00E7), EntryKind::malformed) << "no leaf of 512 GiB";
}

TEST(X86, DirtyIsBitSix) {
  EXPECT_TRUE(Four::dirty(0x1234'5678'9067));
  EXPECT_FALSE(Four::dirty(0x1234'5678'9027));
  EXPECT_EQ(Four::clean(0x1234'5678'9067), 0x1234'5678'9027u);
  EXPECT_EQ(Four::soil(0x1234'5678'9025), 0x1234'5678'9065u);
}

}  // namespace
}  // namespace accelmm::mmu
