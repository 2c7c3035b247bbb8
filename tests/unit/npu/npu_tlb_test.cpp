// SPDX-License-Identifier: Apache-2.0
#include "devices/npu/npu_model_tlb.hpp"

#include <cstdint>
#include <limits>

#include <gtest/gtest.h>

namespace accelmm::sim {
namespace {

TEST(NpuTlbArray, FindsWhatWasInsertedForTheSameAddressSpaceOnly) {
  NpuTlbArray<int> array(4);
  array.insert(1, 7, 70);
  ASSERT_NE(nullptr, array.find(1, 7));
  EXPECT_EQ(70, *array.find(1, 7));
  EXPECT_EQ(nullptr, array.find(2, 7));
  EXPECT_EQ(nullptr, array.find(1, 6));
}

TEST(NpuTlbArray, DropsTheOldestWhenFull) {
  NpuTlbArray<int> array(3);
  for (std::uint64_t number = 0; number < 5; ++number) array.insert(1, number, 0);
  EXPECT_EQ(nullptr, array.find(1, 0));
  EXPECT_EQ(nullptr, array.find(1, 1));
  for (std::uint64_t number = 2; number < 5; ++number) EXPECT_NE(nullptr, array.find(1, number));
}

TEST(NpuTlbArray, ReplacesAValueWithoutDroppingAnother) {
  NpuTlbArray<int> array(2);
  array.insert(1, 0, 10);
  array.insert(1, 1, 11);
  array.insert(1, 0, 12);
  EXPECT_EQ(12, *array.find(1, 0));
  EXPECT_EQ(11, *array.find(1, 1));
}

TEST(NpuTlbArray, ErasesBothEndsOfARangeAndNothingBeyond) {
  NpuTlbArray<int> array(16);
  for (std::uint64_t number = 0; number < 8; ++number) {
    array.insert(1, number, 0);
    array.insert(2, number, 0);
  }
  array.erase(1, 2, 5);
  for (std::uint64_t number = 0; number < 8; ++number) {
    EXPECT_EQ(number >= 2 && number <= 5, array.find(1, number) == nullptr) << number;
    EXPECT_NE(nullptr, array.find(2, number));
  }
}

TEST(NpuTlbArray, WhatWasErasedTakesNoRoom) {
  NpuTlbArray<int> array(2);
  array.insert(1, 0, 0);
  array.insert(1, 1, 0);
  array.erase(1, 0, std::numeric_limits<std::uint64_t>::max());
  array.insert(1, 2, 0);
  array.insert(1, 3, 0);
  EXPECT_NE(nullptr, array.find(1, 2));
  EXPECT_NE(nullptr, array.find(1, 3));
}

}  // namespace
}  // namespace accelmm::sim
