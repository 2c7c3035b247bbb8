// SPDX-License-Identifier: Apache-2.0
#include "unit/mm/failing_new.hpp"

#include <accelmm/handle_table.hpp>

#include <cstddef>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

constexpr std::uint8_t buffer = 1;
constexpr std::uint8_t mapping = 2;

template <class T = int>
HandleTable<T> make(std::uint32_t capacity) {
  auto made = HandleTable<T>::create(capacity);
  EXPECT_TRUE(made.has_value());
  return std::move(made).value();
}

TEST(HandleTable, RefusesACapacityOfZeroOrBeyondTheSlotField) {
  EXPECT_EQ(Errc::invalid_argument, HandleTable<int>::create(0).error().code);
  EXPECT_EQ(Errc::invalid_argument, HandleTable<int>::create(1 << 20).error().code);
  EXPECT_TRUE(HandleTable<int>::create((1 << 20) - 1).has_value());
}

TEST(HandleTable, FindsWhatWasInsertedUnderItsHandle) {
  auto table = make(8);
  const Handle first = table.insert(buffer, 11).value();
  const Handle second = table.insert(mapping, 22).value();
  EXPECT_EQ(11, *table.find(first, buffer).value());
  EXPECT_EQ(22, *table.find(second, mapping).value());
  EXPECT_EQ(buffer, first.type());
  EXPECT_EQ(first, Handle::from_raw(first.raw()));
  EXPECT_EQ(2U, table.size());
}

TEST(HandleTable, RefusesTheWrongType) {
  auto table = make(8);
  const Handle handle = table.insert(buffer, 1).value();
  EXPECT_EQ(Errc::invalid_argument, table.find(handle, mapping).error().code);
  EXPECT_EQ(Errc::invalid_argument, table.remove(handle, mapping).error().code);
  EXPECT_EQ(1, *table.find(handle, buffer).value());
}

TEST(HandleTable, RefusesAForgedTypeField) {
  auto table = make(8);
  const Handle handle = table.insert(buffer, 1).value();
  const auto forged = (handle.raw() & ~(0xffULL << 56)) | (std::uint64_t{mapping} << 56);
  EXPECT_EQ(Errc::invalid_argument, table.find(Handle::from_raw(forged), mapping).error().code);
}

TEST(HandleTable, RefusesRawZeroAlsoForTypeZero) {
  auto table = make(8);
  EXPECT_EQ(Errc::invalid_argument, table.find(Handle(), 0).error().code);
  const Handle handle = table.insert(0, 5).value();
  EXPECT_NE(0U, handle.raw());
  EXPECT_EQ(5, *table.find(handle, 0).value());
  EXPECT_EQ(Errc::invalid_argument, table.find(Handle(), 0).error().code);
}

TEST(HandleTable, RefusesAHandleThatWasRemoved) {
  auto table = make(8);
  const Handle handle = table.insert(buffer, 7).value();
  EXPECT_EQ(7, table.remove(handle, buffer).value());
  EXPECT_EQ(Errc::invalid_argument, table.find(handle, buffer).error().code);
  EXPECT_EQ(Errc::invalid_argument, table.remove(handle, buffer).error().code);
  const Handle next = table.insert(buffer, 8).value();
  EXPECT_EQ(handle.index(), next.index());
  EXPECT_NE(handle, next);
  EXPECT_EQ(Errc::invalid_argument, table.find(handle, buffer).error().code);
  EXPECT_EQ(8, *table.find(next, buffer).value());
}

TEST(HandleTable, RefusesEveryOneBitForgery) {
  auto table = make(100);
  std::vector<Handle> handles;
  std::set<std::uint64_t> live;
  for (int i = 0; i < 100; ++i) {
    handles.push_back(table.insert(buffer, i).value());
    live.insert(handles.back().raw());
  }
  ASSERT_EQ(100U, live.size());
  for (const Handle handle : handles) {
    for (unsigned bit = 0; bit < 64; ++bit) {
      const auto forged = Handle::from_raw(handle.raw() ^ (std::uint64_t{1} << bit));
      EXPECT_EQ(live.contains(forged.raw()), table.find(forged, forged.type()).has_value());
    }
  }
  EXPECT_FALSE(table.find(Handle::from_raw(~std::uint64_t{0}), 0xff).has_value());
}

TEST(HandleTable, RefusesHandlesOfManyOtherTables) {
  // 4096 tables in a row have different tags, whatever their generations.
  auto table = make(4);
  const Handle own = table.insert(buffer, 1).value();
  for (int i = 0; i < 4095; ++i) {
    auto other = make(4);
    const Handle foreign = other.insert(buffer, 2).value();
    ASSERT_NE(own, foreign);
    ASSERT_EQ(Errc::invalid_argument, table.find(foreign, buffer).error().code);
    ASSERT_EQ(Errc::invalid_argument, other.find(own, buffer).error().code);
  }
}

TEST(HandleTable, GenerationsDifferBetweenTables) {
  std::set<std::uint32_t> generations;
  for (int i = 0; i < 64; ++i) {
    auto table = make(1);
    generations.insert(table.insert(buffer, 0).value().generation());
  }
  EXPECT_GT(generations.size(), 60U);  // 64 of 2^24: one repeat has a chance of 1.2e-4
}

TEST(HandleTable, IsFullAtItsCapacityAndNotBefore) {
  auto table = make(130);
  std::vector<Handle> handles;
  for (int i = 0; i < 130; ++i) handles.push_back(table.insert(buffer, i).value());
  EXPECT_EQ(Errc::over_quota, table.insert(buffer, 130).error().code);
  EXPECT_EQ(130U, table.size());
  ASSERT_TRUE(table.remove(handles[77], buffer).has_value());
  const Handle again = table.insert(buffer, 131).value();
  EXPECT_EQ(131, *table.find(again, buffer).value());
  EXPECT_EQ(Errc::over_quota, table.insert(buffer, 132).error().code);
}

TEST(HandleTable, AddressesOfValuesAreStableWhileTheTableGrows) {
  auto table = make(1000);
  const Handle handle = table.insert(buffer, 42).value();
  const int* address = table.find(handle, buffer).value();
  for (int i = 0; i < 900; ++i) ASSERT_TRUE(table.insert(buffer, i).has_value());
  EXPECT_EQ(address, table.find(handle, buffer).value());
  EXPECT_EQ(42, *address);
}

TEST(HandleTable, RetiresASlotBeforeItsGenerationRepeats) {
  auto table = make(2);
  const Handle first = table.insert(buffer, 0).value();
  Handle last = first;
  ASSERT_TRUE(table.remove(first, buffer).has_value());
  for (std::uint32_t use = 1; use < (1U << 24); ++use) {
    const auto handle = table.insert(buffer, 0);
    if (!handle || handle->index() != first.index() || *handle == first) FAIL() << "at use " << use;
    last = *handle;
    if (!table.remove(last, buffer)) FAIL() << "at use " << use;
  }
  const Handle next = table.insert(buffer, 1).value();
  EXPECT_NE(first.index(), next.index());
  EXPECT_FALSE(table.find(first, buffer).has_value());
  EXPECT_FALSE(table.find(last, buffer).has_value());
  ASSERT_TRUE(table.insert(buffer, 2).has_value());
  EXPECT_EQ(2U, table.size());  // a worn-out slot costs none of the capacity
}

TEST(HandleTable, VisitsEachLiveValueInOrderOfSlots) {
  auto table = make(200);
  std::vector<Handle> handles;
  for (int i = 0; i < 100; ++i) handles.push_back(table.insert(buffer, i).value());
  for (std::size_t i = 0; i < 100; i += 3)
    ASSERT_TRUE(table.remove(handles[i], buffer).has_value());
  std::vector<int> seen;
  table.for_each([&](Handle handle, int& value) {
    EXPECT_EQ(handles[static_cast<std::size_t>(value)], handle);
    seen.push_back(value);
  });
  std::vector<int> expected;
  for (int i = 0; i < 100; ++i)
    if (i % 3 != 0) expected.push_back(i);
  EXPECT_EQ(expected, seen);
}

TEST(HandleTable, RemoveMovesTheValueOutAndTheTableDestroysTheRest) {
  auto counted = std::make_shared<int>(0);
  {
    auto table = make<std::shared_ptr<int>>(8);
    const Handle handle = table.insert(buffer, counted).value();
    ASSERT_TRUE(table.insert(buffer, counted).has_value());
    EXPECT_EQ(3, counted.use_count());
    EXPECT_EQ(counted, table.remove(handle, buffer).value());
    EXPECT_EQ(2, counted.use_count());
  }
  EXPECT_EQ(1, counted.use_count());
}

TEST(HandleTable, HoldsMoveOnlyValuesAndMovesAsAWhole) {
  auto first = make<std::unique_ptr<int>>(8);
  const Handle handle = first.insert(buffer, std::make_unique<int>(9)).value();
  auto second = std::move(first);
  EXPECT_EQ(9, **second.find(handle, buffer).value());
}

TEST(HandleTable, EachFailedAllocationLeavesAllAsItWas) {
  const auto live_before = test::heap.live;
  {
    auto table = make(1000);
    std::vector<Handle> handles;
    handles.reserve(200);
    int failures = 0;
    for (int i = 0; i < 200; ++i) {
      for (int k = 0;; ++k) {
        const auto live = test::heap.live;
        const test::FailingNew failing(k);
        const auto handle = table.insert(buffer, i);
        if (!failing.happened()) {
          handles.push_back(handle.value());
          break;
        }
        ++failures;
        ASSERT_EQ(Errc::no_memory, handle.error().code);
        ASSERT_EQ(live, test::heap.live);
        ASSERT_EQ(static_cast<std::uint32_t>(i), table.size());
      }
      for (const Handle handle : handles) ASSERT_TRUE(table.find(handle, buffer).has_value());
    }
    EXPECT_EQ(3, failures);  // one for each chunk: of 64, 128 and 256 slots
  }
  EXPECT_EQ(live_before, test::heap.live);
}

TEST(HandleTable, IsNotMadeWithoutMemory) {
  const auto live = test::heap.live;
  const test::FailingNew failing(0);
  EXPECT_EQ(Errc::no_memory, HandleTable<int>::create(8).error().code);
  EXPECT_TRUE(failing.happened());
  EXPECT_EQ(live, test::heap.live);
}

TEST(HandleTable, RemoveAndFindTakeNoMemory) {
  auto table = make(100);
  std::vector<Handle> handles;
  for (int i = 0; i < 100; ++i) handles.push_back(table.insert(buffer, i).value());
  const auto calls = test::heap.calls;
  for (const Handle handle : handles) {
    ASSERT_TRUE(table.find(handle, buffer).has_value());
    ASSERT_TRUE(table.remove(handle, buffer).has_value());
  }
  EXPECT_EQ(calls, test::heap.calls);
}

}  // namespace
}  // namespace accelmm
