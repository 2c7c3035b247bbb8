// SPDX-License-Identifier: Apache-2.0
#include "unit/mmu/bit_flips.hpp"

#include <accelmm/access.hpp>
#include <accelmm/mmu/hopper.hpp>

#include <cstdint>

#include <gtest/gtest.h>

namespace accelmm::mmu {
namespace {

// Expected words: dev_mmu.h of gh100 (NV_MMU_VER3_*): VALID bit 0, APERTURE 2:1 with
// SYSTEM_COHERENT_MEMORY 2, PCF 7:3 with REGULAR_RW_ATOMIC_CACHED_ACD 0x10, _UNCACHED_ 0x11,
// REGULAR_RO_NO_ATOMIC_CACHED_ACD 0x1C, _UNCACHED_ 0x1D, KIND 11:8 with GENERIC_MEMORY 6, ADDRESS
// 51:12; a PDE's PCF 5:3 VALID_UNCACHED_ATS_ALLOWED 1; DUAL_PDE_ADDRESS_BIG 51:8, _SMALL 115:76.

constexpr BusAddr page(0x000F'1234'5678'9000);

TEST(Hopper, LeafHasPcfKindAndAperture) {
  EXPECT_EQ(Hopper::make_leaf(6, 12, page, *Hopper::leaf_bits(Access::read_write)),
            0x000F'1234'5678'9685u);
  EXPECT_EQ(Hopper::make_leaf(6, 12, page, *Hopper::leaf_bits(Access::read)),
            0x000F'1234'5678'96E5u);
  EXPECT_EQ(*Hopper::leaf_bits({Access::read_write, MemoryType::write_combined}), 0x68Du);
  EXPECT_EQ(*Hopper::leaf_bits({Access::read, MemoryType::write_combined}), 0x6EDu);
}

TEST(Hopper, LeavesOfAllSizesLookTheSame) {
  const auto bits = *Hopper::leaf_bits(Access::read_write);
  EXPECT_EQ(Hopper::make_leaf(5, 16, BusAddr(0x1234'0000), bits), 0x1234'0685u);
  EXPECT_EQ(Hopper::make_leaf(4, 21, BusAddr(0x4060'0000), bits), 0x4060'0685u);
  EXPECT_EQ(Hopper::make_leaf(3, 29, BusAddr(0x6000'0000), bits), 0x6000'0685u);
}

TEST(Hopper, LinkIsUncachedSystemMemory) {
  EXPECT_EQ(Hopper::make_link(0, page), 0x000F'1234'5678'900Cu);
  EXPECT_EQ(Hopper::make_link(4, BusAddr(0x12'3456'7100)), 0x12'3456'710Cu) << "256 bytes";
  EXPECT_EQ(Hopper::link_address(4, 0x12'3456'710C), BusAddr(0x12'3456'7100));
  EXPECT_EQ(Hopper::classify(3, 0x12'3456'710C), EntryKind::malformed) << "4096 bytes elsewhere";
}

TEST(Hopper, HopFourLinksBigPagesFirstAndSmallOnesSecond) {
  using G = Geometry<Hopper>;
  EXPECT_TRUE(G::is_dual(4));
  EXPECT_EQ(Hopper::parent(5), 4u);
  EXPECT_EQ(Hopper::parent(6), 4u);
  EXPECT_EQ(Hopper::link_word(5), 0u) << "the big half of the entry is bits 63..0";
  EXPECT_EQ(Hopper::link_word(6), 1u) << "the small half of the entry is bits 127..64";
  EXPECT_EQ(G::word_index(4, std::uint64_t{3} << 21), 6u);
  EXPECT_EQ(G::table_bytes(5), 256u);
  EXPECT_EQ(G::table_bytes(6), 4096u);
}

TEST(Hopper, OnlyAddressAndCachingAreFree) {
  EXPECT_EQ(flips_that_keep_the_kind<Hopper>(6, 0x1234'5678'9685), 0x000F'FFFF'FFFF'F008u);
  EXPECT_EQ(flips_that_keep_the_kind<Hopper>(6, 0x1234'5678'96E5), 0x000F'FFFF'FFFF'F008u)
      << "half of read only, with or without atomics, is never ours";
  EXPECT_EQ(flips_that_keep_the_kind<Hopper>(5, 0x1234'0685), 0x000F'FFFF'FFFF'0008u);
  EXPECT_EQ(flips_that_keep_the_kind<Hopper>(4, 0x4060'0685), 0x000F'FFFF'FFE0'0008u);
  EXPECT_EQ(flips_that_keep_the_kind<Hopper>(3, 0x6000'0685), 0x000F'FFFF'E000'0008u);
  EXPECT_EQ(flips_that_keep_the_kind<Hopper>(3, 0x1234'5678'900C), 0x000F'FFFF'FFFF'F000u);
  EXPECT_EQ(flips_that_keep_the_kind<Hopper>(4, 0x1234'5678'900C), 0x000F'FFFF'FFFF'FF00u);
}

TEST(Hopper, WhatOthersWriteIntoInvalidEntriesIsMalformed) {
  EXPECT_EQ(Hopper::classify(5, 0x18), EntryKind::malformed) << "PCF NO_VALID_4KB_PAGE";
  EXPECT_EQ(Hopper::classify(6, 0x08), EntryKind::malformed) << "PCF SPARSE";
  EXPECT_EQ(Hopper::classify(2, 0x40'0000'0685), EntryKind::malformed) << "no leaf at hop 2";
  EXPECT_EQ(Hopper::classify(5, 0x1234'5678'900C), EntryKind::malformed) << "nothing below hop 5";
}

TEST(Hopper, CannotForbidReadingNorMapRegisters) {
  EXPECT_EQ(Hopper::leaf_bits(Access::write).error().code, Errc::not_supported);
  EXPECT_EQ(Hopper::leaf_bits({Access::read_write, MemoryType::device}).error().code,
            Errc::not_supported);
}

}  // namespace
}  // namespace accelmm::mmu
