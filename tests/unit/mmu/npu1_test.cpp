// SPDX-License-Identifier: Apache-2.0
#include <accelmm/access.hpp>
#include <accelmm/mmu/npu1.hpp>

#include <cstdint>

#include <gtest/gtest.h>

namespace accelmm::mmu {
namespace {

// Expected words are written out by hand from the bit picture in npu1.hpp.

TEST(Npu1, LeafCarriesAddressPermissionsLastAndPresent) {
  const BusAddr page(0x12'3456'7000);
  EXPECT_EQ(Npu1::make_leaf(4, 12, page, *Npu1::leaf_bits(Access::read)), 0x12'3456'7809u);
  EXPECT_EQ(Npu1::make_leaf(4, 12, page, *Npu1::leaf_bits(Access::write)), 0x12'3456'7811u);
  EXPECT_EQ(Npu1::make_leaf(4, 12, page, *Npu1::leaf_bits(Access::read_write)), 0x12'3456'7819u);
  EXPECT_EQ(Npu1::make_leaf(3, 21, BusAddr(0x4060'0000), *Npu1::leaf_bits(Access::read)),
            0x4060'0809u);
}

TEST(Npu1, LinkCarriesOnlyAddressAndPresent) {
  EXPECT_EQ(Npu1::make_link(0, BusAddr(0xFFFF'FFFF'FFFF'F000)), 0xFFFF'FFFF'FFFF'F001u);
  EXPECT_EQ(Npu1::link_address(0, 0xFFFF'FFFF'FFFF'F001), BusAddr(0xFFFF'FFFF'FFFF'F000));
}

TEST(Npu1, LeafReadsBackAsItWasMade) {
  for (const Access access : {Access::read, Access::write, Access::read_write}) {
    const std::uint64_t leaf = Npu1::make_leaf(3, 21, BusAddr(0x60'0000), *Npu1::leaf_bits(access));
    EXPECT_EQ(Npu1::classify(3, leaf), EntryKind::leaf);
    EXPECT_EQ(Npu1::leaf_address(3, leaf), BusAddr(0x60'0000));
    EXPECT_EQ(Npu1::attributes(3, leaf), Attributes(access));
  }
}

TEST(Npu1, RefusesAnAccessThatIsNone) {
  EXPECT_EQ(Npu1::leaf_bits(Access{0}).error().code, Errc::invalid_argument);
  EXPECT_EQ(Npu1::leaf_bits(Access{4}).error().code, Errc::invalid_argument);
  EXPECT_EQ(Npu1::leaf_bits(Access{7}).error().code, Errc::invalid_argument);
  EXPECT_EQ(Npu1::leaf_bits({Access::read, MemoryType::device}).error().code, Errc::not_supported);
}

TEST(Npu1, OnlyTheLastTwoHopsHoldLeaves) {
  const std::uint64_t leaf = 0x819;
  for (unsigned hop = 0; hop < 5; ++hop)
    EXPECT_EQ(Npu1::classify(hop, leaf), hop < 3 ? EntryKind::malformed : EntryKind::leaf) << hop;
}

TEST(Npu1, OnlyTheFirstFourHopsHoldLinks) {
  for (unsigned hop = 0; hop < 5; ++hop)
    EXPECT_EQ(Npu1::classify(hop, 0x1001), hop < 4 ? EntryKind::table : EntryKind::malformed)
        << hop;
}

TEST(Npu1, EveryLowBitOutOfPlaceIsMalformed) {
  for (unsigned bit = 0; bit < 12; ++bit) {
    const std::uint64_t flipped = std::uint64_t{1} << bit;
    const bool in_leaf_only = bit == 3 || bit == 4;  // READ, WRITE: one may be missing, not both
    EXPECT_EQ(Npu1::classify(4, 0x20'0819 ^ flipped),
              in_leaf_only ? EntryKind::leaf : EntryKind::malformed)
        << bit;
    EXPECT_EQ(Npu1::classify(2, 0x20'0001 ^ flipped), EntryKind::malformed) << bit;
  }
  EXPECT_EQ(Npu1::classify(4, 0x20'0801), EntryKind::malformed) << "neither READ nor WRITE";
  EXPECT_EQ(Npu1::classify(0, 0x1000), EntryKind::malformed) << "not PRESENT, not zero";
  EXPECT_EQ(Npu1::classify(0, 0), EntryKind::empty);
}

TEST(Npu1, LargeLeafMustBeAlignedToItsSize) {
  EXPECT_EQ(Npu1::classify(3, 0x20'0819), EntryKind::leaf);
  EXPECT_EQ(Npu1::classify(3, 0x20'1819), EntryKind::malformed);
  EXPECT_EQ(Npu1::classify(3, 0x30'0819), EntryKind::malformed);
  EXPECT_EQ(Npu1::classify(4, 0x20'1819), EntryKind::leaf);
}

TEST(Npu1, IndicesOfAnAddressWithADifferentDigitInEachHop) {
  // 2 << 48 | 3 << 39 | 5 << 30 | 7 << 21 | 11 << 12 | 13
  const std::uint64_t va =
      (2ULL << 48) + (3ULL << 39) + (5ULL << 30) + (7ULL << 21) + (11ULL << 12) + 13;
  EXPECT_EQ(Geometry<Npu1>::index(0, va), 2u);
  EXPECT_EQ(Geometry<Npu1>::index(1, va), 3u);
  EXPECT_EQ(Geometry<Npu1>::index(2, va), 5u);
  EXPECT_EQ(Geometry<Npu1>::index(3, va), 7u);
  EXPECT_EQ(Geometry<Npu1>::index(4, va), 11u);
}

TEST(Access, AllowsWhatItContains) {
  EXPECT_TRUE(allows(Access::read_write, Access::read));
  EXPECT_TRUE(allows(Access::read_write, Access::write));
  EXPECT_TRUE(allows(Access::read, Access::read));
  EXPECT_FALSE(allows(Access::read, Access::write));
  EXPECT_FALSE(allows(Access::read, Access::read_write));
  EXPECT_FALSE(allows(Access::write, Access::read));
}

}  // namespace
}  // namespace accelmm::mmu
