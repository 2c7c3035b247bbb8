// SPDX-License-Identifier: Apache-2.0
//
// The object that a processor freed last, which calls take and free without looking it up.
#include "mm/slab_classes.hpp"
#include "unit/mm/slab_source.hpp"

#include <accelmm/slab.hpp>

#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <sched.h>

namespace accelmm::test {
namespace {

class RecentObject : public ::testing::Test {
 protected:
  static constexpr ByteCount region = 16_MiB;

  Slab make() {
    auto made = Slab::create({.source = &source, .region = region});
    EXPECT_TRUE(made);
    return std::move(*made);
  }
  RegionOffset take(ByteCount size) {
    const auto object = slab.allocate(size);
    EXPECT_TRUE(object);
    return object->offset;
  }
  static void run_on(unsigned processor) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(processor, &one);
    static_cast<void>(sched_setaffinity(0, sizeof one, &one));  // may be forbidden in a container
  }

  CheckedSource source{region};
  Slab slab = make();
};

TEST_F(RecentObject, ComesBackAgainAndAgain) {
  const RegionOffset first = take(64_B);
  ASSERT_TRUE(slab.free(first));
  for (int i = 0; i < 1000; ++i) {
    ASSERT_EQ(first, take(64_B));
    ASSERT_TRUE(slab.free(first));
    ASSERT_FALSE(slab.free(first));
  }
  slab.validate();
}

TEST_F(RecentObject, ServesTheSizesOfItsClassAlone) {
  for (const mm::SlabClassShape& shape : mm::slab_shapes) {
    const RegionOffset object = take(ByteCount(shape.size));
    ASSERT_TRUE(slab.free(object));
    for (const std::uint64_t size : {shape.size - shape.step, shape.size - shape.step + 1,
                                     shape.size - 1, shape.size, shape.size + 1}) {
      const auto again = slab.allocate(ByteCount(size));
      if (size == 0 || size > 16384) {
        ASSERT_FALSE(again);
        continue;
      }
      ASSERT_TRUE(again);
      EXPECT_EQ(mm::slab_class_size(mm::slab_class_of(size)), again->length.value());
      EXPECT_EQ(again->length, slab.usable_size(again->offset).value());
      ASSERT_TRUE(slab.free(again->offset));
      ASSERT_TRUE(slab.allocate(ByteCount(shape.size)));
      ASSERT_TRUE(slab.free(object));
    }
    slab.validate();
  }
}

TEST_F(RecentObject, OfASlabThatIsGoneIsForgotten) {
  const RegionOffset gone = take(64_B);
  ASSERT_TRUE(slab.free(gone));
  slab.trim();
  Slab other = make();  // gets the place
  ASSERT_EQ(gone, other.allocate(64_B)->offset);
  const RegionOffset object = take(64_B);  // by the record of the slab that is gone
  ASSERT_NE(gone, object);
  EXPECT_FALSE(slab.free(gone));
  EXPECT_NE(gone, take(64_B));
  EXPECT_TRUE(slab.free(object));
  EXPECT_FALSE(slab.free(gone));
  EXPECT_NE(gone, take(64_B));
  slab.validate();
}

TEST_F(RecentObject, DrainedIsNotTakenFromWhereItWas) {
  const RegionOffset object = take(64_B);
  ASSERT_TRUE(slab.free(object));
  slab.drain();
  slab.validate();
  const RegionOffset again = take(64_B);
  slab.validate();
  EXPECT_TRUE(slab.free(again));
  EXPECT_FALSE(slab.free(again));
  slab.validate();
}

TEST_F(RecentObject, DrainedWhileLiveIsFreedAsAnyOther) {
  const RegionOffset object = take(64_B);
  ASSERT_TRUE(slab.free(object));
  ASSERT_EQ(object, take(64_B));
  slab.drain();
  ASSERT_TRUE(slab.free(object));
  slab.validate();  // of the slab's being empty, too
  EXPECT_FALSE(slab.free(object));
  slab.trim();
  EXPECT_EQ(0U, source.outstanding());
}

TEST_F(RecentObject, FreedByAnotherProcessorIsFree) {
  run_on(0);
  const RegionOffset object = take(64_B);
  ASSERT_TRUE(slab.free(object));
  for (int i = 0; i < 20; ++i) {
    ASSERT_EQ(object, take(64_B));
    std::jthread([&] {
      run_on(1);
      EXPECT_TRUE(slab.free(object));
      EXPECT_FALSE(slab.free(object));
    }).join();
    EXPECT_FALSE(slab.free(object));
    slab.validate();
    EXPECT_EQ(0U, slab.statistics().live_objects);
  }
}

TEST_F(RecentObject, IsNotTakenAsTheLastOfItsWord) {
  // 16 KiB: a word has 16 objects. All but one are taken, so that the current word keeps one.
  std::vector<RegionOffset> all;
  for (int i = 0; i < 15; ++i) all.push_back(take(16384_B));
  ASSERT_TRUE(slab.free(all[3]));
  ASSERT_EQ(all[3], take(16384_B));
  take(16384_B);
  slab.validate();
  EXPECT_TRUE(slab.free(all[3]));
  slab.validate();
}

}  // namespace
}  // namespace accelmm::test
