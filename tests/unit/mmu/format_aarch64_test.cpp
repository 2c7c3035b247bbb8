// SPDX-License-Identifier: Apache-2.0
#include "unit/mmu/bit_flips.hpp"

#include <accelmm/access.hpp>
#include <accelmm/mmu/aarch64.hpp>

#include <cstdint>

#include <gtest/gtest.h>

namespace accelmm::mmu {
namespace {

using Small = AArch64<12, 48>;
using Medium = AArch64<14, 48>;
using Big = AArch64<16, 48>;

// Expected words: Arm ARM D8.3 (descriptor formats); the low half is what Linux's io-pgtable-arm.c
// writes for stage 1: AP_UNPRIV 0x40, AP_RDONLY 0x80, SH_OS 0x200, SH_IS 0x300, AF 0x400, nG 0x800,
// AttrIndx << 2, XN 3 << 53. DBM is bit 51 and CONT bit 52 of arm64's pgtable-hwdef.h.

constexpr BusAddr page(0x1234'5678'9000);

TEST(AArch64, PageOfTheLastHopHasTypeThree) {
  EXPECT_EQ(Small::make_leaf(3, 12, page, *Small::leaf_bits(Access::read_write)),
            0x0068'1234'5678'9F43u);
  EXPECT_EQ(Small::make_leaf(3, 12, page, *Small::leaf_bits(Access::read)), 0x0060'1234'5678'9FC3u);
}

TEST(AArch64, BlockHasTypeOne) {
  EXPECT_EQ(Small::make_leaf(2, 21, BusAddr(0x4060'0000), *Small::leaf_bits(Access::read_write)),
            0x0068'0000'4060'0F41u);
  EXPECT_EQ(Big::make_leaf(1, 29, BusAddr(0x6000'0000), *Big::leaf_bits(Access::read)),
            0x0060'0000'6000'0FC1u);
}

TEST(AArch64, GroupHasTheContiguousBitInEachEntry) {
  const auto bits = *Small::leaf_bits(Access::read_write);
  EXPECT_EQ(Small::make_leaf(3, 16, BusAddr(0x12'3456'0000), bits), 0x0078'0012'3456'0F43u);
  EXPECT_EQ(Small::leaf_address(3, 0x0078'0012'3456'0F43 + 5 * Small::step(4096)),
            BusAddr(0x12'3456'5000));
  EXPECT_EQ(Small::leaf_lg2(3, 0x0078'0012'3456'5F43), 16u);
  EXPECT_EQ(Small::leaf_lg2(2, 0x0078'0000'4060'0F41), 25u) << "16 * 2 MiB";
  EXPECT_EQ(Small::leaf_lg2(1, 0x0078'0000'4000'0F41), 34u) << "16 * 1 GiB";
  EXPECT_EQ(Medium::leaf_lg2(3, 0x0078'0000'0000'4F43), 21u) << "128 * 16 KiB";
  EXPECT_EQ(Medium::leaf_lg2(2, 0x0078'0000'0200'0F41), 30u) << "32 * 32 MiB";
  EXPECT_EQ(Big::leaf_lg2(2, 0x0078'0000'0001'0F43), 21u) << "32 * 64 KiB";
  EXPECT_EQ(Big::leaf_lg2(1, 0x0078'0000'2000'0F41), 34u) << "32 * 512 MiB";
}

TEST(AArch64, LinkIsAddressAndTypeThree) {
  EXPECT_EQ(Small::make_link(0, page), 0x1234'5678'9003u);
  EXPECT_EQ(Big::make_link(0, BusAddr(0x1234'5678'0000)), 0x1234'5678'0003u);
}

TEST(AArch64, MemoryTypesAreBytesOfMair) {
  EXPECT_EQ(*Small::leaf_bits({Access::read_write, MemoryType::write_combined}),
            0x0068'0000'0000'0E44u);
  EXPECT_EQ(*Small::leaf_bits({Access::read_write, MemoryType::device}), 0x0068'0000'0000'0E48u);
  // Arm ARM, MAIR_EL1: 0xFF write back, 0x44 normal non-cacheable, 0x04 Device-nGnRE.
  EXPECT_EQ(Small::mair, 0x04'44'FFu);
}

TEST(AArch64, HopsFollowFromGranuleAndAddressBits) {
  EXPECT_EQ(Medium::index_bits(0), 1u) << "48 bits leave two entries at level 0";
  EXPECT_EQ((AArch64<14, 47>::hops), 3u);
  EXPECT_EQ((AArch64<16, 42>::hops), 2u);
  EXPECT_EQ((AArch64<12, 39>::hops), 3u);
  EXPECT_EQ((AArch64<12, 32>::index_bits(0)), 2u);
  EXPECT_EQ((AArch64<12, 32>::leaf_sizes(0)), 1u << 30) << "4 entries are no group of 16";
  EXPECT_EQ((AArch64<12, 34>::leaf_sizes(0)), 1u << 30) << "nor are 16, which are the whole table";
  EXPECT_EQ(Small::leaf_sizes(0), 0u);
  EXPECT_EQ(Medium::leaf_sizes(1), 0u) << "blocks of 64 GiB need LPA2";
  EXPECT_EQ(Big::leaf_sizes(0), 0u) << "blocks of 4 TiB need LPA";
}

TEST(AArch64, OnlyAddressGroupAndDirtyAreFreeInALeaf) {
  EXPECT_EQ(flips_that_keep_the_kind<Small>(3, 0x0068'1234'5678'9F43), 0x0010'FFFF'FFFF'F080u);
  EXPECT_EQ(flips_that_keep_the_kind<Small>(3, 0x0060'1234'5678'9FC3), 0x0098'FFFF'FFFF'F000u)
      << "DBM would make it writable and clean, SD dirty";
  EXPECT_EQ(flips_that_keep_the_kind<Small>(2, 0x0068'0000'4060'0F41), 0x0010'FFFF'FFE0'0080u);
  EXPECT_EQ(flips_that_keep_the_kind<Big>(2, 0x0068'1234'5678'0F43), 0x0010'FFFF'FFFF'0080u)
      << "bits 15..12 are address with LPA only";
  EXPECT_EQ(flips_that_keep_the_kind<Small>(3, 0x0068'1234'5678'9E47), 0x0010'FFFF'FFFF'F080u);
}

TEST(AArch64, OnlyTheAddressIsFreeInALink) {
  EXPECT_EQ(flips_that_keep_the_kind<Small>(0, 0x1234'5678'9003), 0x0000'FFFF'FFFF'F000u);
  EXPECT_EQ(flips_that_keep_the_kind<Medium>(0, 0x1234'5678'4003), 0x0000'FFFF'FFFF'C000u);
}

TEST(AArch64, WhatTheWalkerFaultsOnIsMalformed) {
  EXPECT_EQ(Small::classify(3, 0x0068'1234'5678'9F41), EntryKind::malformed)
      << "type 01 at level 3";
  EXPECT_EQ(Small::classify(3, 0x0068'1234'5678'9F42), EntryKind::malformed) << "not valid";
  EXPECT_EQ(Small::classify(0, 0x0068'0000'0000'0F41), EntryKind::malformed) << "block at level 0";
  EXPECT_EQ(Small::classify(3, 0x0068'1234'5678'9B43), EntryKind::malformed) << "AF is zero";
  EXPECT_EQ(Small::classify(3, 0x0068'1234'5678'9F4F), EntryKind::malformed) << "MAIR byte 3";
}

TEST(AArch64, CleanLeafIsReadOnlyUntilTheWalkerWrites) {
  EXPECT_TRUE(Small::dirty(0x0068'1234'5678'9F43));
  EXPECT_EQ(Small::clean(0x0068'1234'5678'9F43), 0x0068'1234'5678'9FC3u);
  EXPECT_FALSE(Small::dirty(0x0068'1234'5678'9FC3));
  EXPECT_EQ(Small::attributes(3, 0x0068'1234'5678'9FC3).access, Access::read_write);
  EXPECT_FALSE(Small::dirty(0x0060'1234'5678'9FC3)) << "read only";
  EXPECT_EQ(Small::clean(0x0060'1234'5678'9FC3), 0x0060'1234'5678'9FC3u);
  EXPECT_EQ(Small::soil(0x0068'1234'5678'9FC3), 0x0068'1234'5678'9F43u) << "as the walker does";
  EXPECT_EQ(Small::soil(0x0060'1234'5678'9FC3), 0x00E0'1234'5678'9FC3u) << "read only: bit 55";
  EXPECT_EQ(Small::clean(0x00E0'1234'5678'9FC3), 0x0060'1234'5678'9FC3u);
  EXPECT_EQ(Small::attributes(3, 0x0060'1234'5678'9FC3).access, Access::read);
}

}  // namespace
}  // namespace accelmm::mmu
