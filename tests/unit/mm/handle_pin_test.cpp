// SPDX-License-Identifier: Apache-2.0
#include "unit/mm/failing_new.hpp"

#include <accelmm/handle_table.hpp>

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

constexpr std::uint8_t buffer = 1;
constexpr std::uint8_t mapping = 2;

using Table = HandleTable<std::unique_ptr<int>>;

Table make(std::uint32_t capacity) {
  auto made = Table::create(capacity);
  EXPECT_TRUE(made.has_value());
  return std::move(made).value();
}

TEST(HandlePin, ReachesTheValueItNames) {
  Table table = make(8);
  const Handle handle = table.insert(buffer, std::make_unique<int>(7)).value();
  const Table::Pin pin = table.pin(handle, buffer).value();
  EXPECT_EQ(7, **pin);
  EXPECT_EQ(table.find(handle, buffer).value(), &*pin);
}

TEST(HandlePin, IsRefusedForWhatFindRefuses) {
  Table table = make(8);
  const Handle handle = table.insert(buffer, std::make_unique<int>(7)).value();
  EXPECT_EQ(Errc::invalid_argument, table.pin(handle, mapping).error().code);
  EXPECT_EQ(Errc::invalid_argument, table.pin(Handle(), 0).error().code);
  for (unsigned bit = 0; bit < 64; ++bit) {
    const auto forged = Handle::from_raw(handle.raw() ^ (std::uint64_t{1} << bit));
    EXPECT_FALSE(table.pin(forged, forged.type()).has_value()) << bit;
  }
  ASSERT_TRUE(table.remove(handle, buffer).has_value());
  EXPECT_EQ(Errc::invalid_argument, table.pin(handle, buffer).error().code);
}

TEST(HandlePin, KeepsItsValueFromBeingRemoved) {
  Table table = make(8);
  const Handle handle = table.insert(buffer, std::make_unique<int>(7)).value();
  {
    const Table::Pin pin = table.pin(handle, buffer).value();
    EXPECT_EQ(Errc::busy, table.remove(handle, buffer).error().code);
    EXPECT_EQ(7, **table.find(handle, buffer).value());
    EXPECT_EQ(1U, table.size());
  }
  EXPECT_EQ(7, *table.remove(handle, buffer).value());
}

TEST(HandlePin, WithdrawnWithoutPinsAValueComesOutAtOnce) {
  Table table = make(8);
  const Handle handle = table.insert(buffer, std::make_unique<int>(7)).value();
  auto value = table.withdraw(handle, buffer).value();
  ASSERT_TRUE(value.has_value());
  EXPECT_EQ(7, **value);
  EXPECT_EQ(0U, table.size());
  EXPECT_EQ(Errc::invalid_argument, table.withdraw(handle, buffer).error().code);
}

TEST(HandlePin, WithdrawnUnderAPinAValueCannotBeFoundAgainAndStaysForThePin) {
  Table table = make(8);
  const Handle handle = table.insert(buffer, std::make_unique<int>(7)).value();
  Table::Pin pin = table.pin(handle, buffer).value();
  EXPECT_FALSE(table.withdraw(handle, buffer).value().has_value());
  EXPECT_EQ(Errc::invalid_argument, table.find(handle, buffer).error().code);
  EXPECT_EQ(Errc::invalid_argument, table.pin(handle, buffer).error().code);
  EXPECT_EQ(Errc::invalid_argument, table.remove(handle, buffer).error().code);
  EXPECT_EQ(Errc::invalid_argument, table.withdraw(handle, buffer).error().code);
  table.for_each([](Handle, std::unique_ptr<int>&) { ADD_FAILURE() << "it was withdrawn"; });
  EXPECT_EQ(7, **pin);
  EXPECT_EQ(1U, table.size());
  EXPECT_EQ(7, **pin.release());
  EXPECT_EQ(0U, table.size());
}

TEST(HandlePin, OfSeveralTheLastToEndGetsTheWithdrawnValue) {
  Table table = make(8);
  const Handle handle = table.insert(buffer, std::make_unique<int>(7)).value();
  Table::Pin first = table.pin(handle, buffer).value();
  Table::Pin second = table.pin(handle, buffer).value();
  ASSERT_FALSE(table.withdraw(handle, buffer).value().has_value());
  EXPECT_FALSE(first.release().has_value());
  EXPECT_EQ(7, **second);
  EXPECT_TRUE(second.release().has_value());
  EXPECT_FALSE(second.release().has_value());  // it has ended
}

TEST(HandlePin, EndingDestroysTheWithdrawnValue) {
  const auto live = test::heap.live;
  Table table = make(8);
  const Handle handle = table.insert(buffer, std::make_unique<int>(7)).value();
  const auto live_with_value = test::heap.live;
  {
    const Table::Pin pin = table.pin(handle, buffer).value();
    ASSERT_TRUE(table.withdraw(handle, buffer).has_value());
    EXPECT_EQ(live_with_value, test::heap.live);
  }
  EXPECT_EQ(live_with_value - 1, test::heap.live);
  EXPECT_GT(live_with_value, live);
}

TEST(HandlePin, ReleaseGivesNothingOutWhileTheValueIsLive) {
  Table table = make(8);
  const Handle handle = table.insert(buffer, std::make_unique<int>(7)).value();
  EXPECT_FALSE(table.pin(handle, buffer)->release().has_value());
  EXPECT_EQ(7, **table.find(handle, buffer).value());
}

TEST(HandlePin, MovesAndIsAssignedWithoutLosingCount) {
  Table table = make(8);
  const Handle one = table.insert(buffer, std::make_unique<int>(1)).value();
  const Handle two = table.insert(buffer, std::make_unique<int>(2)).value();
  Table::Pin pin = table.pin(one, buffer).value();
  Table::Pin moved = std::move(pin);
  EXPECT_EQ(Errc::busy, table.remove(one, buffer).error().code);
  moved = table.pin(two, buffer).value();
  EXPECT_EQ(2, **moved);
  EXPECT_TRUE(table.remove(one, buffer).has_value());
  EXPECT_EQ(Errc::busy, table.remove(two, buffer).error().code);
}

TEST(HandlePin, StaysRightWhenItsTableMoves) {
  Table table = make(8);
  const Handle handle = table.insert(buffer, std::make_unique<int>(7)).value();
  Table::Pin pin = table.pin(handle, buffer).value();
  Table moved = std::move(table);
  EXPECT_EQ(0U, table.size());  // NOLINT(bugprone-use-after-move): a moved-from table is empty
  EXPECT_EQ(7, **pin);
  ASSERT_FALSE(moved.withdraw(handle, buffer).value().has_value());
  EXPECT_EQ(7, **pin.release());
  EXPECT_EQ(0U, moved.size());
}

TEST(HandlePin, ASlotIsNotUsedAgainWhileItsWithdrawnValueIsPinned) {
  Table table = make(2);
  const Handle handle = table.insert(buffer, std::make_unique<int>(7)).value();
  Table::Pin pin = table.pin(handle, buffer).value();
  ASSERT_TRUE(table.withdraw(handle, buffer).has_value());
  const Handle other = table.insert(buffer, std::make_unique<int>(8)).value();
  EXPECT_NE(handle.index(), other.index());
  EXPECT_EQ(Errc::over_quota, table.insert(buffer, nullptr).error().code);  // the pinned one counts
  EXPECT_EQ(7, **pin.release());
  EXPECT_EQ(handle.index(), table.insert(buffer, nullptr).value().index());
}

TEST(HandlePin, TakesNoMemory) {
  Table table = make(8);
  const Handle handle = table.insert(buffer, std::make_unique<int>(7)).value();
  const auto calls = test::heap.calls;
  {
    Table::Pin pin = table.pin(handle, buffer).value();
    ASSERT_TRUE(table.withdraw(handle, buffer).has_value());
    EXPECT_TRUE(pin.release().has_value());
  }
  EXPECT_EQ(calls, test::heap.calls);
}

TEST(HandlePinDeathTest, MustEndBeforeItsTable) {
  EXPECT_DEATH(
      {
        std::optional<Table::Pin> pin;
        Table table = make(8);
        const Handle handle = table.insert(buffer, nullptr).value();
        pin.emplace(table.pin(handle, buffer).value());
        {
          const Table gone = std::move(table);
        }
      },
      "check failed");
}

}  // namespace
}  // namespace accelmm
