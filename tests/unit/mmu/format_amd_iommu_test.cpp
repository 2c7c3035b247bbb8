// SPDX-License-Identifier: Apache-2.0
#include "unit/mmu/bit_flips.hpp"

#include <accelmm/access.hpp>
#include <accelmm/mmu/amd_iommu.hpp>

#include <cstdint>

#include <gtest/gtest.h>

namespace accelmm::mmu {
namespace {

using Three = AmdIommuV1<3>;
using Four = AmdIommuV1<4>;

// Expected words: AMD I/O Virtualization Technology specification section 2.2.3, with its table of
// page size encodings (an 8 KiB page has 0 in address bit 12, a 16 KiB page 01 in 13..12 and so on);
// Linux's generic_pt/fmt/amdv1.h has the same bits: PR 0x1, D 0x40, NextLevel 0xE00, FC IR IW 60..62.

TEST(AmdIommu, LeafOfAFullEntryHasNextLevelZero) {
  const auto bits = *Four::leaf_bits(Access::read_write);
  EXPECT_EQ(Four::make_leaf(3, 12, BusAddr(0x12'3456'7000), bits), 0x7000'0012'3456'7001u);
  EXPECT_EQ(Four::make_leaf(2, 21, BusAddr(0x4060'0000), bits), 0x7000'0000'4060'0001u);
  EXPECT_EQ(Four::make_leaf(1, 30, BusAddr(0xC000'0000), bits), 0x7000'0000'C000'0001u);
  EXPECT_EQ(*Four::leaf_bits(Access::read), 0x3000'0000'0000'0001u);
  EXPECT_EQ(*Four::leaf_bits(Access::write), 0x5000'0000'0000'0001u);
}

TEST(AmdIommu, OtherSizesAreOnesBelowAZeroInTheAddress) {
  const auto bits = *Four::leaf_bits(Access::read_write);
  EXPECT_EQ(Four::make_leaf(3, 13, BusAddr(0x12'3456'6000), bits), 0x7000'0012'3456'6E01u);
  EXPECT_EQ(Four::make_leaf(3, 14, BusAddr(0x12'3456'4000), bits), 0x7000'0012'3456'5E01u);
  EXPECT_EQ(Four::make_leaf(3, 16, BusAddr(0x12'3456'0000), bits), 0x7000'0012'3456'7E01u);
  EXPECT_EQ(Four::make_leaf(3, 20, BusAddr(0x12'3450'0000), bits), 0x7000'0012'3457'FE01u);
  EXPECT_EQ(Four::make_leaf(2, 22, BusAddr(0x4040'0000), bits), 0x7000'0000'405F'FE01u);
  EXPECT_EQ(Four::make_leaf(1, 38, BusAddr(0x40'0000'0000), bits), 0x7000'005F'FFFF'FE01u);
}

TEST(AmdIommu, SizeAndAddressAreReadBackFromTheOnes) {
  EXPECT_EQ(Four::leaf_lg2(3, 0x7000'0012'3456'7E01), 16u);
  EXPECT_EQ(Four::leaf_address(3, 0x7000'0012'3456'7E01), BusAddr(0x12'3456'0000));
  EXPECT_EQ(Four::leaf_lg2(1, 0x7000'005F'FFFF'FE01), 38u);
  EXPECT_EQ(Four::leaf_address(1, 0x7000'005F'FFFF'FE01), BusAddr(0x40'0000'0000));
  EXPECT_EQ(Four::leaf_lg2(2, 0x7000'0000'4060'0001), 21u);
}

TEST(AmdIommu, LinkTellsTheLevelOfItsTable) {
  EXPECT_EQ(Four::make_link(0, BusAddr(0x12'3456'7000)), 0x6000'0012'3456'7601u) << "level 3";
  EXPECT_EQ(Four::make_link(2, BusAddr(0x12'3456'7000)), 0x6000'0012'3456'7201u) << "level 1";
  EXPECT_EQ(Four::classify(0, 0x6000'0012'3456'7601), EntryKind::table);
  EXPECT_EQ(Four::classify(1, 0x6000'0012'3456'7601), EntryKind::malformed) << "level 3 under 3";
  EXPECT_EQ(Four::classify(0, 0x6000'0012'3456'7201), EntryKind::malformed) << "levels skipped";
}

TEST(AmdIommu, LeavesEndBelow512Gibibytes) {
  EXPECT_EQ(Four::leaf_sizes(0), 0u);
  EXPECT_EQ(Four::classify(0, 0x7000'0080'0000'0001), EntryKind::malformed) << "512 GiB";
  EXPECT_EQ(Four::classify(0, 0x7000'007F'FFFF'FE01), EntryKind::malformed) << "1 TiB";
  EXPECT_EQ(Three::leaf_sizes(0), 0x7F'C000'0000u) << "1 GiB to 256 GiB";
}

TEST(AmdIommu, SizesOfOtherHopsAreMalformed) {
  EXPECT_EQ(Four::classify(3, 0x7000'0012'344F'FE01), EntryKind::malformed) << "2 MiB at hop 3";
  EXPECT_EQ(Four::classify(2, 0x7000'0012'344F'FE01), EntryKind::malformed)
      << "2 MiB encoded, where NextLevel 0 says it";
  EXPECT_EQ(Four::classify(2, 0x7000'0012'3456'7E01), EntryKind::malformed) << "64 KiB at hop 2";
  EXPECT_EQ(Four::classify(2, 0x700F'FFFF'FFFF'FE01), EntryKind::malformed) << "all ones";
}

TEST(AmdIommu, OnlyAddressPermissionsAndWhatTheDeviceWritesAreFree) {
  EXPECT_EQ(flips_that_keep_the_kind<Four>(3, 0x7000'0012'3456'7001), 0x600F'FFFF'FFFF'F060u);
  EXPECT_EQ(flips_that_keep_the_kind<Four>(3, 0x7000'0012'3456'7E01), 0x600F'FFFF'FFFF'F060u)
      << "any lower bit changes the size";
  EXPECT_EQ(flips_that_keep_the_kind<Four>(2, 0x7000'0000'4060'0001), 0x600F'FFFF'FFE0'0060u);
  EXPECT_EQ(flips_that_keep_the_kind<Four>(0, 0x6000'0012'3456'7601), 0x000F'FFFF'FFFF'F020u)
      << "link";
  EXPECT_EQ(Four::classify(3, 0x1000'0012'3456'7001), EntryKind::malformed) << "no permission";
}

TEST(AmdIommu, DirtyIsBitSix) {
  EXPECT_TRUE(Four::dirty(0x7000'0012'3456'7041));
  EXPECT_EQ(Four::clean(0x7000'0012'3456'7061), 0x7000'0012'3456'7021u) << "accessed stays";
  EXPECT_FALSE(Four::dirty(0x7000'0012'3456'7001)) << "a fresh leaf is clean";
  EXPECT_EQ(Four::soil(0x7000'0012'3456'7001), 0x7000'0012'3456'7041u);
}

}  // namespace
}  // namespace accelmm::mmu
