// SPDX-License-Identifier: Apache-2.0
#include <accelmm/constraints.hpp>

#include <limits>

#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

constexpr std::uint32_t xrgb = 1;
constexpr std::uint32_t nv12 = 2;

Constraints with_images(std::map<FormatPattern, ImageConstraints> images) {
  Constraints made;
  made.images = std::move(images);
  return made;
}

// The example of sysmem2's documentation: lines of 3-byte pixels at multiples of 4 bytes.
TEST(Constraints, DivisorsCombineToTheirLeastCommonMultiple) {
  const auto three = with_images({{{xrgb, 0}, {.stride_divisor = 3}}});
  const auto four = with_images({{{xrgb, 0}, {.stride_divisor = 4}}});
  EXPECT_EQ(12U, combine(three, four).images->at({xrgb, 0}).stride_divisor);
}

TEST(Constraints, AMultipleThatLeaves64BitsIsTheMultipleOfNothingForEver) {
  Constraints a;
  a.size_divisor = std::uint64_t{1} << 63;
  Constraints b;
  b.size_divisor = 3;
  EXPECT_EQ(0U, combine(a, b).size_divisor);
  EXPECT_EQ(0U, combine(combine(a, b), a).size_divisor);
  Constraints c;
  c.size_divisor = 2;
  EXPECT_EQ(a.size_divisor, combine(a, c).size_divisor) << "a multiple of the other already";
}

TEST(Constraints, HeldBuffersAddUpAndSharedSlackDoesNot) {
  Constraints a;
  a.counts = {.camping = 1, .dedicated = 2, .shared = 3, .min = 4, .max = 9};
  Constraints b;
  b.counts = {.camping = 10, .dedicated = 20, .shared = 2, .min = 1, .max = 8};
  const BufferCounts expected = {.camping = 11, .dedicated = 22, .shared = 3, .min = 4, .max = 8};
  EXPECT_EQ(expected, combine(a, b).counts);
}

TEST(Constraints, AddedCountsStopAtTheLargest) {
  Constraints a;
  a.counts.camping = std::numeric_limits<std::uint32_t>::max();
  EXPECT_EQ(a.counts.camping, combine(a, a).counts.camping);
}

TEST(Constraints, WhatIsNotNamedOfAFormatTakesAny) {
  const auto any = with_images({{{}, {.stride_divisor = 64}}});
  const auto linear = with_images({{{xrgb, 0}, {}}, {{nv12, 0}, {}}});
  const auto tiled = with_images({{{{}, 1}, {}}});
  const auto both = combine(any, linear);
  EXPECT_EQ(2U, both.images->size());
  EXPECT_EQ(64U, both.images->at({nv12, 0}).stride_divisor);
  EXPECT_TRUE(combine(both, tiled).images->empty());
  const auto half = with_images({{{xrgb, {}}, {}}});
  EXPECT_TRUE(combine(half, tiled).images->contains({xrgb, 1}));
}

TEST(Constraints, NoHeapsIsLessThanAnyHeap) {
  Constraints a;
  a.heaps = {"system", "udmabuf"};
  Constraints b;
  b.heaps = {"cma"};
  EXPECT_EQ(a.heaps, combine(a, Constraints{}).heaps);
  EXPECT_TRUE(combine(a, b).heaps->empty());
}

TEST(Constraints, PatternsThatNameOneFormatTwiceAreMalformed) {
  EXPECT_TRUE(is_well_formed(with_images({{{xrgb, {}}, {}}, {{nv12, {}}, {}}})));
  EXPECT_FALSE(is_well_formed(with_images({{{xrgb, {}}, {}}, {{xrgb, 0}, {}}})));
  EXPECT_FALSE(is_well_formed(with_images({{{xrgb, {}}, {}}, {{{}, 0}, {}}})));
}

TEST(Constraints, MultiplesOfNothingAndNoAddressBitsAreMalformed) {
  Constraints divisor;
  divisor.size_divisor = 0;
  EXPECT_FALSE(is_well_formed(divisor));
  Constraints offset;
  offset.offset_divisor = 0;
  EXPECT_FALSE(is_well_formed(offset));
  EXPECT_FALSE(is_well_formed(with_images({{{xrgb, 0}, {.stride_divisor = 0}}})));
  Constraints bits;
  bits.address_bits = 0;
  EXPECT_FALSE(is_well_formed(bits));
  bits.address_bits = 65;
  EXPECT_FALSE(is_well_formed(bits));
}

TEST(Constraints, ListsHaveAtMost64Members) {
  Constraints made;
  made.images.emplace();
  for (std::uint32_t i = 0; i < 64; ++i)
    made.images->emplace(FormatPattern{i, 0}, ImageConstraints{});
  EXPECT_TRUE(is_well_formed(made));
  made.images->emplace(FormatPattern{64, 0}, ImageConstraints{});
  EXPECT_FALSE(is_well_formed(made));
}

}  // namespace
}  // namespace accelmm::test
