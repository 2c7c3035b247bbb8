// SPDX-License-Identifier: Apache-2.0
#include "unit/mmu/bit_flips.hpp"

#include <accelmm/access.hpp>
#include <accelmm/mmu/rockchip.hpp>

#include <cstdint>

#include <gtest/gtest.h>

namespace accelmm::mmu {
namespace {

// Expected words: Linux drivers/iommu/rockchip-iommu.c, the comments above rk_mk_pte() and
// rk_dte_pt_address_v2(): valid 1, readable 2, writable 4; in version 2 address bits 35..32 in 11..8
// and 39..36 in 7..4.

TEST(Rockchip, LeafIsAddressPermissionsAndValid) {
  const BusAddr page(0x1234'5000);
  EXPECT_EQ(RockchipV1::make_leaf(1, 12, page, *RockchipV1::leaf_bits(Access::read_write)),
            0x1234'5007u);
  EXPECT_EQ(RockchipV1::make_leaf(1, 12, page, *RockchipV1::leaf_bits(Access::read)), 0x1234'5003u);
  EXPECT_EQ(RockchipV1::make_leaf(1, 12, page, *RockchipV1::leaf_bits(Access::write)),
            0x1234'5005u);
  EXPECT_EQ(RockchipV1::make_link(0, page), 0x1234'5001u);
}

TEST(Rockchip, VersionTwoHasTheHighAddressBitsInTheLowOnes) {
  const BusAddr page(0x56'1234'5000);
  EXPECT_EQ(RockchipV2::make_leaf(1, 12, page, *RockchipV2::leaf_bits(Access::read_write)),
            0x1234'5657u);
  EXPECT_EQ(RockchipV2::make_link(0, page), 0x1234'5651u);
  EXPECT_EQ(RockchipV2::leaf_address(1, 0x1234'5657), page);
  EXPECT_EQ(RockchipV2::link_address(0, 0xFFFF'FFF1), BusAddr(0xFF'FFFF'F000));
}

TEST(Rockchip, OnlyAddressAndPermissionsAreFree) {
  EXPECT_EQ(flips_that_keep_the_kind<RockchipV1>(1, 0x1234'5007), 0xFFFF'F006u);
  EXPECT_EQ(flips_that_keep_the_kind<RockchipV1>(1, 0x1234'5003), 0xFFFF'F004u);
  EXPECT_EQ(flips_that_keep_the_kind<RockchipV1>(0, 0x1234'5001), 0xFFFF'F000u);
  EXPECT_EQ(flips_that_keep_the_kind<RockchipV2>(1, 0x1234'5657), 0xFFFF'FFF6u);
  EXPECT_EQ(flips_that_keep_the_kind<RockchipV2>(0, 0x1234'5651), 0xFFFF'FFF0u);
  EXPECT_EQ(RockchipV1::classify(1, 0x1234'5001), EntryKind::malformed) << "no permission";
  EXPECT_EQ(RockchipV1::classify(0, 0x1234'5007), EntryKind::malformed) << "a leaf at hop 0";
}

TEST(Rockchip, TablesAre4096BytesOf32Bits) {
  static_assert(sizeof(RockchipV1::Word) == 4);
  EXPECT_EQ(Geometry<RockchipV1>::table_bytes(0), 4096u);
  EXPECT_EQ(Geometry<RockchipV1>::index(0, 0xFFC0'0000), 1023u);
  EXPECT_EQ(Geometry<RockchipV1>::index(1, 0x003F'F000), 1023u);
}

TEST(Rockchip, CachingIsTheBusDefaultOnly) {
  EXPECT_EQ(RockchipV1::leaf_bits({Access::read, MemoryType::device}).error().code,
            Errc::not_supported);
}

}  // namespace
}  // namespace accelmm::mmu
