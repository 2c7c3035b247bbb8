// SPDX-License-Identifier: Apache-2.0
// That the size of a leaf is found, whatever it is, in few steps.

#include "oracle/leaf_search.hpp"

#include "property/mm/steps.hpp"

#include <cstdint>
#include <optional>

#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

constexpr unsigned largest = 47;

TEST(LeafSearch, FindsEachSizeFromWhereTheLeafBeginsAndFromCrossings) {
  Dice dice("oracle/leaf_search");
  for (unsigned step = 0; step < 20'000; ++step) {
    const unsigned power = 12 + static_cast<unsigned>(dice.roll(largest - 11));
    const std::uint64_t size = std::uint64_t{1} << power;
    const std::uint64_t leaf = dice.roll(std::uint64_t{1} << (48 - power)) * size;
    const std::uint64_t leaf_bus = dice.roll(std::uint64_t{1} << (52 - power)) * size;
    const std::uint64_t address = leaf + dice.roll(size);
    const bool told = dice.roll(2) == 0;
    const std::uint64_t bus = leaf_bus + (address - leaf);
    LeafSearch search(address, leaf_bus, told ? std::optional(bus) : std::nullopt, largest);
    unsigned asked = 0;
    while (search.possible() && !search.found() && ++asked <= 6) {
      const std::uint64_t before = search.before_middle();
      ASSERT_EQ(1, before % 2);
      search.learn(before >= leaf && before + 1 - leaf < size);
    }
    ASSERT_TRUE(search.possible() && search.found());
    ASSERT_EQ(size, search.size());
    ASSERT_EQ(bus, search.bus_address());
  }
}

TEST(LeafSearch, NoSizeFitsWhatNoLeafDoes) {
  EXPECT_FALSE(LeafSearch(0x1234, 0x800, std::nullopt, largest).possible());
  EXPECT_FALSE(LeafSearch(0x1234, 0x5000, 0x6234, largest).possible());
  EXPECT_TRUE(LeafSearch(0x1234, 0x5000, 0x5234, largest).possible());
}

}  // namespace
}  // namespace accelmm::test
