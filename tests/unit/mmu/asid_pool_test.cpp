// SPDX-License-Identifier: Apache-2.0
#include "unit/mmu/tables_fixture.hpp"

#include <accelmm/mmu/asid_pool.hpp>

#include <cstdint>

#include <gtest/gtest.h>

namespace accelmm::mmu {
namespace {

using test::range;

constexpr Range<DeviceAddr> addresses{DeviceAddr(0x1000), DeviceAddr(0x9000)};

InvalidationDone forgotten(std::uint32_t asid, Range<DeviceAddr> what = addresses) {
  return InvalidationDone({asid, what, Invalidation::Cause::close});
}

TEST(AsidPool, GivesEachNumberOnceTheLowestFirst) {
  AsidPool pool(3, addresses);
  for (const std::uint32_t expected : {1u, 2u, 3u}) {
    EXPECT_TRUE(pool.any_free());
    EXPECT_EQ(pool.take().value(), expected);
  }
  EXPECT_FALSE(pool.any_free());
  EXPECT_EQ(pool.take().error().code, Errc::busy);
}

TEST(AsidPool, NumberIsUsedAgainAfterItsInvalidation) {
  AsidPool pool(2, addresses);
  const std::uint32_t first = pool.take().value();
  (void)pool.take().value();
  pool.give_back(first, forgotten(first));
  EXPECT_EQ(pool.take().value(), first);
}

TEST(AsidPool, NumberThatNoDeviceSawNeedsNoInvalidation) {
  AsidPool pool(1, addresses);
  pool.give_back(pool.take().value(), InvalidationDone::never_shown());
  EXPECT_TRUE(pool.any_free());
}

TEST(AsidPool, TaintedNumberIsNeverGivenOutBeforeAReset) {
  AsidPool pool(2, addresses);
  const std::uint32_t first = pool.take().value();
  pool.taint(first);
  EXPECT_EQ(pool.take().value(), 2u);
  EXPECT_FALSE(pool.any_free());
  pool.reset();
  EXPECT_EQ(pool.take().value(), first);
}

TEST(AsidPoolDeathTest, AbortsOnTheInvalidationOfAnotherNumber) {
  AsidPool pool(2, addresses);
  const std::uint32_t first = pool.take().value();
  EXPECT_DEATH(pool.give_back(first, forgotten(first + 1)), "check failed: done.is_for");
}

TEST(AsidPoolDeathTest, AbortsOnTheInvalidationOfAPart) {
  AsidPool pool(2, addresses);
  const std::uint32_t first = pool.take().value();
  EXPECT_DEATH(pool.give_back(first, forgotten(first, range(0x1000, 0x8000))),
               "check failed: done.covers");
}

TEST(AsidPoolDeathTest, AbortsWhenANumberComesBackTwice) {
  AsidPool pool(2, addresses);
  const std::uint32_t first = pool.take().value();
  pool.give_back(first, forgotten(first));
  EXPECT_DEATH(pool.give_back(first, forgotten(first)), "check failed: state == State::taken");
  EXPECT_DEATH(pool.taint(0), "check failed: asid >= 1");
}

}  // namespace
}  // namespace accelmm::mmu
