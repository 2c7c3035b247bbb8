// SPDX-License-Identifier: Apache-2.0
#include <accelmm/mmu/gaudi2_scramble.hpp>

#include <cstdint>
#include <random>

#include <gtest/gtest.h>

namespace accelmm::mmu {
namespace {

constexpr std::uint64_t base = 0x1001'0000'0000'0000;
constexpr std::uint64_t end = 0x1002'0000'0000'0000;
constexpr std::uint64_t mib = std::uint64_t{1} << 20;

// Expected addresses are worked out by hand from the rule of gaudi2_mmu_scramble_addr() in Linux's
// gaudi2.c: quotient by N * 8 MiB shifted left by 26, plus the remainder.

TEST(Gaudi2Scramble, PageIsEightMebibytesOfEachHbm) {
  EXPECT_EQ(Gaudi2Scramble::create(6)->page(), ByteCount(48 * mib));
  EXPECT_EQ(Gaudi2Scramble::create(5)->page(), ByteCount(40 * mib));
}

TEST(Gaudi2Scramble, EachPageBeginsAMultipleOf64Mebibytes) {
  const auto six = *Gaudi2Scramble::create(6);
  EXPECT_EQ(*six.scramble(BusAddr(base)), BusAddr(base));
  EXPECT_EQ(*six.scramble(BusAddr(base + 48 * mib - 1)), BusAddr(base + 48 * mib - 1));
  EXPECT_EQ(*six.scramble(BusAddr(base + 48 * mib)), BusAddr(base + 64 * mib));
  EXPECT_EQ(*six.scramble(BusAddr(base + 100 * mib)), BusAddr(base + 132 * mib));
  const auto five = *Gaudi2Scramble::create(5);
  EXPECT_EQ(*five.scramble(DeviceAddr(base + 100 * mib)), DeviceAddr(base + 148 * mib));
  EXPECT_EQ(*five.descramble(DeviceAddr(base + 148 * mib)), DeviceAddr(base + 100 * mib));
}

// A page of the driver is 16 pages of N * 8 MiB, and its leaf has 1 GiB.
TEST(Gaudi2Scramble, SixteenPagesAreAGibibyte) {
  for (const unsigned hbms : {5U, 6U}) {
    const auto scramble = *Gaudi2Scramble::create(hbms);
    const std::uint64_t pages = 16 * scramble.page().value();
    EXPECT_EQ(*scramble.scramble(BusAddr(base + 3 * pages)), BusAddr(base + 3072 * mib));
  }
}

TEST(Gaudi2Scramble, AddressesOutsideOfDramStayTheSame) {
  const auto six = *Gaudi2Scramble::create(6);
  for (const std::uint64_t address :
       {std::uint64_t{0}, std::uint64_t{1} << 40, base - 1, end, ~std::uint64_t{0}}) {
    EXPECT_EQ(*six.scramble(BusAddr(address)), BusAddr(address));
    EXPECT_EQ(*six.descramble(BusAddr(address)), BusAddr(address));
  }
}

TEST(Gaudi2Scramble, DescrambleUndoesScramble) {
  std::mt19937_64 random{20261127};
  for (unsigned hbms = 1; hbms <= 8; ++hbms) {
    const auto scramble = *Gaudi2Scramble::create(hbms);
    BusAddr previous(0);
    for (int i = 0; i < 100'000; ++i) {
      // Offsets of which the scrambled one fits: less than N * 8 MiB * 2^22.
      const BusAddr address(base + random() % (scramble.page().value() << 22));
      const auto there = scramble.scramble(address);
      ASSERT_TRUE(there.has_value()) << hbms << " " << address.value();
      ASSERT_EQ(*scramble.descramble(*there), address) << hbms;
      ASSERT_EQ(address < previous, *there < *scramble.scramble(previous)) << "keeps the order";
      previous = address;
    }
  }
}

TEST(Gaudi2Scramble, ScramblesUpToTheEndOfDramAndNotBeyond) {
  const auto six = *Gaudi2Scramble::create(6);
  const std::uint64_t pages = six.page().value() << 22;
  EXPECT_EQ(*six.scramble(BusAddr(base + pages - 1)), BusAddr(end - 16 * mib - 1));
  EXPECT_EQ(six.scramble(BusAddr(base + pages)).error().code, Errc::overflow);
  EXPECT_EQ(six.scramble(BusAddr(end - 1)).error().code, Errc::overflow);
}

TEST(Gaudi2Scramble, NothingLiesBetweenTwoPages) {
  const auto six = *Gaudi2Scramble::create(6);
  EXPECT_TRUE(six.descramble(BusAddr(base + 48 * mib - 1)).has_value());
  EXPECT_EQ(six.descramble(BusAddr(base + 48 * mib)).error().code, Errc::invalid_argument);
  EXPECT_EQ(six.descramble(BusAddr(base + 64 * mib - 1)).error().code, Errc::invalid_argument);
  EXPECT_TRUE(six.descramble(BusAddr(base + 64 * mib)).has_value());
}

TEST(Gaudi2Scramble, RefusesNumbersOfHbmsWhosePagesDoNotFit) {
  EXPECT_EQ(Gaudi2Scramble::create(0).error().code, Errc::invalid_argument);
  EXPECT_EQ(Gaudi2Scramble::create(9).error().code, Errc::invalid_argument);
  EXPECT_EQ(Gaudi2Scramble::create(8)->page(), ByteCount(64 * mib));
}

TEST(Gaudi2Scramble, IsKnownAtCompileTime) {
  static_assert(Gaudi2Scramble::create(6)->scramble(BusAddr(base + 48 * mib))->value() ==
                base + 64 * mib);
}

}  // namespace
}  // namespace accelmm::mmu
