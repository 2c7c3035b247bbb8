// SPDX-License-Identifier: Apache-2.0
#include "unit/mmu/bit_flips.hpp"

#include <accelmm/access.hpp>
#include <accelmm/mmu/vtd.hpp>

#include <cstdint>

#include <gtest/gtest.h>

namespace accelmm::mmu {
namespace {

using Three = VtdSecondStage<3>;
using Five = VtdSecondStage<5>;

// Expected words: VT-d specification section 9.8 (second-stage paging entries): R 0x1, W 0x2, PS
// 0x80, A 0x100, D 0x200, address 51..12; Linux's generic_pt/fmt/vtdss.h sets the same in links.

TEST(Vtd, LeafIsAddressAndPermissions) {
  const BusAddr page(0x000F'1234'5678'9000);
  EXPECT_EQ(Three::make_leaf(2, 12, page, *Three::leaf_bits(Access::read_write)),
            0x000F'1234'5678'9003u);
  EXPECT_EQ(Three::make_leaf(2, 12, page, *Three::leaf_bits(Access::read)), 0x000F'1234'5678'9001u);
  EXPECT_EQ(Three::make_leaf(2, 12, page, *Three::leaf_bits(Access::write)),
            0x000F'1234'5678'9002u);
  EXPECT_EQ(Three::make_leaf(1, 21, BusAddr(0x4060'0000), *Three::leaf_bits(Access::read_write)),
            0x4060'0083u);
  EXPECT_EQ(Five::make_leaf(2, 30, BusAddr(0xC000'0000), *Five::leaf_bits(Access::read)),
            0xC000'0081u);
}

TEST(Vtd, LinkGrantsReadingAndWriting) {
  EXPECT_EQ(Three::make_link(0, BusAddr(0x12'3456'7000)), 0x12'3456'7003u);
}

TEST(Vtd, LeafOfPageZeroIsNotEmpty) {
  EXPECT_EQ(
      Three::classify(2, Three::make_leaf(2, 12, BusAddr(0), *Three::leaf_bits(Access::read))),
      EntryKind::leaf);
  EXPECT_EQ(Three::classify(2, 0), EntryKind::empty);
}

TEST(Vtd, OnlyAddressPermissionsAndWhatTheDeviceWritesAreFree) {
  EXPECT_EQ(flips_that_keep_the_kind<Three>(2, 0x12'3456'7003), 0x000F'FFFF'FFFF'F303u);
  EXPECT_EQ(flips_that_keep_the_kind<Three>(2, 0x12'3456'7001), 0x000F'FFFF'FFFF'F302u);
  EXPECT_EQ(flips_that_keep_the_kind<Three>(1, 0x4060'0083), 0x000F'FFFF'FFE0'0303u);
  EXPECT_EQ(flips_that_keep_the_kind<Three>(0, 0x12'3456'7003), 0x000F'FFFF'FFFF'F100u) << "link";
  EXPECT_EQ(Five::classify(1, 0x80'0000'0083), EntryKind::malformed) << "no leaf of 512 GiB";
  EXPECT_EQ(Three::classify(2, 0x12'3456'7803), EntryKind::malformed) << "SNP";
  EXPECT_EQ(Three::classify(2, 0x12'3456'7000), EntryKind::malformed) << "no permission";
}

TEST(Vtd, DirtyIsBitNine) {
  EXPECT_TRUE(Three::dirty(0x12'3456'7303));
  EXPECT_EQ(Three::clean(0x12'3456'7303), 0x12'3456'7103u) << "accessed stays";
  EXPECT_FALSE(Three::dirty(0x12'3456'7103));
  EXPECT_EQ(Three::soil(0x12'3456'7003), 0x12'3456'7203u);
  EXPECT_FALSE(Three::dirty(0x12'3456'7003)) << "a fresh leaf is clean";
}

}  // namespace
}  // namespace accelmm::mmu
