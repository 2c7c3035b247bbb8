// SPDX-License-Identifier: Apache-2.0
#include "unit/mmu/bit_flips.hpp"

#include <accelmm/access.hpp>
#include <accelmm/mmu/gaudi.hpp>

#include <cstdint>

#include <gtest/gtest.h>

namespace accelmm::mmu {
namespace {

// Expected words: Linux drivers/accel/habanalabs, mmu_general.h (PAGE_PRESENT_MASK 0x1, LAST_MASK
// 0x800, HOP_PHYS_ADDR_MASK), mmu_v1_1.h and mmu_v2_0.h (masks and shifts of the hops), mmu_v2_hr.c
// (a leaf is address | LAST | PRESENT, a link address | PRESENT).

TEST(Gaudi, LeafIsAddressLastAndPresent) {
  const auto bits = *Gaudi1::leaf_bits(Access::read_write);
  EXPECT_EQ(bits, 0x801u);
  EXPECT_EQ(Gaudi1::make_leaf(4, 12, BusAddr(0x12'3456'7000), bits), 0x12'3456'7801u);
  EXPECT_EQ(Gaudi1::make_leaf(3, 21, BusAddr(0x4060'0000), bits), 0x4060'0801u);
  EXPECT_EQ(Gaudi2Host4k::make_leaf(5, 12, BusAddr(0xFFFF'FFFF'FFFF'F000), bits),
            0xFFFF'FFFF'FFFF'F801u);
  EXPECT_EQ(Gaudi2Host64k::make_leaf(5, 16, BusAddr(0x1234'0000), bits), 0x1234'0801u);
  EXPECT_EQ(Gaudi2Dram::make_leaf(4, 26, BusAddr(0x1001'0000'0400'0000), bits),
            0x1001'0000'0400'0801u);
  EXPECT_EQ(Gaudi2Dram::make_leaf(3, 30, BusAddr(0x1001'0000'4000'0000), bits),
            0x1001'0000'4000'0801u);
}

TEST(Gaudi, LinkIsAddressAndPresent) {
  EXPECT_EQ(Gaudi1::make_link(0, BusAddr(0x12'3456'7000)), 0x12'3456'7001u);
  EXPECT_EQ(Gaudi2Dram::make_link(3, BusAddr(0x1001'0000'0000'1000)), 0x1001'0000'0000'1001u);
}

TEST(Gaudi, CannotForbidAnyAccess) {
  EXPECT_EQ(Gaudi1::leaf_bits(Access::read).error().code, Errc::not_supported);
  EXPECT_EQ(Gaudi2Dram::leaf_bits(Access::write).error().code, Errc::not_supported);
  EXPECT_EQ(Gaudi1::leaf_bits({Access::read_write, MemoryType::device}).error().code,
            Errc::not_supported);
}

TEST(Gaudi, HopsAreThoseOfTheHeaders) {
  // HOP0..5_MASK_4K from mmu_v2_0.h; hop 0's is 0xFE00'0000'0000'0000 there, bit 63 is not ours.
  const std::uint64_t masks_4k[] = {0x7E00'0000'0000'0000, 0x01FF'0000'0000'0000,
                                    0x0000'FF80'0000'0000, 0x0000'007F'C000'0000,
                                    0x0000'0000'3FE0'0000, 0x0000'0000'001F'F000};
  const std::uint64_t masks_64k[] = {0x7F00'0000'0000'0000, 0x00FF'0000'0000'0000,
                                     0x0000'FF00'0000'0000, 0x0000'00FF'0000'0000,
                                     0x0000'0000'FF00'0000, 0x0000'0000'00FF'0000};
  for (unsigned hop = 0; hop < 6; ++hop) {
    EXPECT_EQ(((1ULL << Gaudi2Host4k::index_bits(hop)) - 1) << Gaudi2Host4k::shift(hop),
              masks_4k[hop])
        << hop;
    EXPECT_EQ(((1ULL << Gaudi2Host64k::index_bits(hop)) - 1) << Gaudi2Host64k::shift(hop),
              masks_64k[hop])
        << hop;
  }
  EXPECT_EQ(((1ULL << Gaudi2Dram::index_bits(4)) - 1) << Gaudi2Dram::shift(4), 0x3C00'0000u);
}

TEST(Gaudi, NoBitBesidesTheAddressIsFree) {
  EXPECT_EQ(flips_that_keep_the_kind<Gaudi1>(4, 0x12'3456'7801), 0xFFFF'FFFF'FFFF'F000u);
  EXPECT_EQ(flips_that_keep_the_kind<Gaudi1>(3, 0x4060'0801), 0xFFFF'FFFF'FFE0'0000u);
  EXPECT_EQ(flips_that_keep_the_kind<Gaudi1>(2, 0x12'3456'7001), 0xFFFF'FFFF'FFFF'F000u);
  EXPECT_EQ(flips_that_keep_the_kind<Gaudi2Host64k>(5, 0x1234'0801), 0xFFFF'FFFF'FFFF'0000u);
  EXPECT_EQ(flips_that_keep_the_kind<Gaudi2Dram>(4, 0x1001'0000'0400'0801), 0xFFFF'FFFF'FC00'0000u);
  EXPECT_EQ(Gaudi1::classify(2, 0x4000'0801), EntryKind::malformed) << "no leaf of 1 GiB";
  EXPECT_EQ(Gaudi2Host4k::classify(3, 0x4000'0801), EntryKind::malformed) << "no leaf of 1 GiB";
  EXPECT_EQ(Gaudi1::classify(4, 0x1005), EntryKind::malformed) << "swapped out";
}

}  // namespace
}  // namespace accelmm::mmu
