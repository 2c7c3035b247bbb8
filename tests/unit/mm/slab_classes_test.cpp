// SPDX-License-Identifier: Apache-2.0
#include "mm/slab_classes.hpp"

#include <cstdint>

#include <gtest/gtest.h>

namespace accelmm::mm {
namespace {

TEST(SlabClasses, EverySizeGoesToTheSmallestClassThatHoldsIt) {
  for (std::uint64_t size = 1; size <= slab_largest; ++size) {
    const unsigned number = slab_class_of(size);
    ASSERT_LE(size, slab_class_size(number)) << size;
    if (number != 0) {
      ASSERT_GT(size, slab_class_size(number - 1)) << size;
    }
  }
}

TEST(SlabClasses, EverySizeAboveAQuarterKibibyteWastesAtMostANinth) {
  for (std::uint64_t size = 129; size <= slab_largest; ++size) {
    const std::uint64_t granted = slab_class_size(slab_class_of(size));
    ASSERT_LE((granted - size) * 9, granted) << size;
  }
}

TEST(SlabClasses, EverySizeWastesLessThanSixteenBytesUpTo256) {
  for (std::uint64_t size = 1; size <= 256; ++size)
    ASSERT_LT(slab_class_size(slab_class_of(size)) - size, 16U) << size;
}

TEST(SlabClasses, EveryMultipleOfACacheLineGetsOne) {
  for (std::uint64_t size = 64; size <= slab_largest; size += 64)
    ASSERT_EQ(0U, slab_class_size(slab_class_of(size)) % 64) << size;
}

TEST(SlabClasses, TheReciprocalFindsTheObjectOfEveryByteOfEverySlab) {
  for (const SlabClassShape& shape : slab_shapes)
    for (std::uint32_t at = 0; at <= shape.offset_mask; ++at)
      ASSERT_EQ(at / shape.size, shape.object_at(at)) << shape.size << " " << at;
}

TEST(SlabClasses, SlabsArePowersOfTwoWithSixteenObjectsOrMoreAndLittleLeftOver) {
  for (const SlabClassShape& shape : slab_shapes) {
    EXPECT_EQ(0U, shape.slab_bytes() & (shape.slab_bytes() - 1));
    EXPECT_EQ(0U, shape.slab_bytes() % (1U << slab_unit_log2));
    EXPECT_GE(shape.objects, 16U) << shape.size;
    EXPECT_EQ(shape.slab_bytes() / shape.size, shape.objects);
    EXPECT_LE((shape.slab_bytes() - shape.objects * shape.size) * 17, shape.slab_bytes())
        << shape.size;
  }
}

TEST(SlabClasses, WordsOfMarksCoverEveryObjectOnce) {
  for (const SlabClassShape& shape : slab_shapes) {
    unsigned objects = 0;
    for (unsigned word = 0; word < shape.words; ++word) {
      EXPECT_NE(0U, shape.all_of(word));
      objects += static_cast<unsigned>(__builtin_popcount(shape.all_of(word)));
    }
    EXPECT_EQ(shape.objects, objects) << shape.size;
  }
}

}  // namespace
}  // namespace accelmm::mm
