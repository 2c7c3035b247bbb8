// SPDX-License-Identifier: Apache-2.0
#include "unit/mmu/bit_flips.hpp"

#include <accelmm/access.hpp>
#include <accelmm/mmu/ivpu.hpp>

#include <cstdint>

#include <gtest/gtest.h>

namespace accelmm::mmu {
namespace {

// Expected words: Linux drivers/accel/ivpu/ivpu_mmu_context.c: IVPU_MMU_ENTRY_MAPPED is AF | USER | NG
// | VALID | TYPE_PAGE = 0xC43; LLC_COHERENT 0x4, RO 0x80, CONT bit 52.

TEST(Ivpu, LeafIsWhatTheDriverMaps) {
  const BusAddr page(0x1234'5678'9000);
  EXPECT_EQ(Ivpu::make_leaf(3, 12, page, *Ivpu::leaf_bits(Access::read_write)), 0x1234'5678'9C47u);
  EXPECT_EQ(Ivpu::make_leaf(3, 12, page, *Ivpu::leaf_bits(Access::read)), 0x1234'5678'9CC7u);
  EXPECT_EQ(*Ivpu::leaf_bits({Access::read_write, MemoryType::write_combined}), 0xC43u);
}

TEST(Ivpu, GroupHasTheContiguousBitInEachEntry) {
  const auto leaf =
      Ivpu::make_leaf(3, 16, BusAddr(0x12'3456'0000), *Ivpu::leaf_bits(Access::read_write));
  EXPECT_EQ(leaf, 0x0010'0012'3456'0C47u);
  EXPECT_EQ(Ivpu::leaf_lg2(3, leaf + Ivpu::step(0xF000)), 16u);
  EXPECT_EQ(Ivpu::leaf_address(3, leaf + Ivpu::step(0xF000)), BusAddr(0x12'3456'F000));
}

TEST(Ivpu, LinkIsAddressAndValidPage) {
  EXPECT_EQ(Ivpu::make_link(0, BusAddr(0x1234'5678'9000)), 0x1234'5678'9003u);
}

TEST(Ivpu, OnlyAddressAndChoicesAreFree) {
  EXPECT_EQ(flips_that_keep_the_kind<Ivpu>(3, 0x1234'5678'9C47), 0x0010'FFFF'FFFF'F084u);
  EXPECT_EQ(flips_that_keep_the_kind<Ivpu>(0, 0x1234'5678'9003), 0x0000'FFFF'FFFF'F000u);
  EXPECT_EQ(Ivpu::classify(2, 0x0020'0C47), EntryKind::malformed) << "no leaf of 2 MiB";
}

TEST(Ivpu, DummyEntryOfTheDriverIsNotOurs) {
  EXPECT_EQ(Ivpu::classify(3, 0xDEAD'B000), EntryKind::malformed);
  EXPECT_EQ(Ivpu::classify(3, 0), EntryKind::empty);
}

TEST(Ivpu, CannotForbidReadingNorMapRegisters) {
  EXPECT_EQ(Ivpu::leaf_bits(Access::write).error().code, Errc::not_supported);
  EXPECT_EQ(Ivpu::leaf_bits({Access::read_write, MemoryType::device}).error().code,
            Errc::not_supported);
}

}  // namespace
}  // namespace accelmm::mmu
