// SPDX-License-Identifier: Apache-2.0
#include "bus/iova_book.hpp"

#include "unit/mm/failing_new.hpp"

#include <optional>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

using Sharing = IovaBook::Sharing;
using Ranges = std::vector<Range<BusAddr>>;
using BusRun = Run;  // in a test, Run is gtest's

Extent at(ByteCount offset, ByteCount length) {
  return {RegionOffset(offset.value()), length};
}
IovaBook book_of(const Ranges& ranges, unsigned bits = 64) {
  auto book = IovaBook::create(ranges, {.page = Alignment(4096), .address_bits = bits});
  EXPECT_TRUE(book.has_value());
  return std::move(*book);
}
BusAddr bus(ByteCount address) {
  return BusAddr(address.value());
}
BusRun enter(IovaBook& book, Extent extent, Access access = Access::read_write) {
  const auto entered = book.enter(extent, access, 0_B);
  EXPECT_TRUE(entered.has_value());
  return entered ? entered->run : BusRun{};
}

TEST(IovaBook, AddressZeroIsNeverGivenOut) {
  IovaBook book = book_of({{bus(0_B), bus(8_KiB)}});
  EXPECT_EQ((BusRun{bus(4_KiB), 4_KiB}), enter(book, at(0_B, 4_KiB)));
  EXPECT_EQ(Errc::no_memory, book.enter(at(8_KiB, 4_KiB), Access::read, 0_B).error().code);
}

TEST(IovaBook, WhatIsEnteredAsItsOwnIsSharedWithNothing) {
  IovaBook book = book_of({{bus(4_KiB), bus(64_KiB)}});
  using enum IovaBook::Entry;
  const auto first = book.enter(at(0_B, 4_KiB), Access::read, 0_B, own);
  const auto second = book.enter(at(0_B, 4_KiB), Access::read, 0_B, own);
  const auto third = book.enter(at(0_B, 4_KiB), Access::read, 0_B, shared);
  for (const auto& entered : {first, second, third}) {
    ASSERT_TRUE(entered.has_value());
    EXPECT_EQ(Sharing::alone, entered->sharing);
    EXPECT_EQ(Sharing::alone, book.sharing(entered->run));
  }
  EXPECT_EQ(12_KiB, book.mapped_bytes());
  book.validate();
  book.leave(first->run);
  book.leave(third->run);
  EXPECT_EQ(Sharing::alone, book.sharing(second->run));
  book.leave(second->run);
  EXPECT_TRUE(book.empty());
}

TEST(IovaBook, NoAddressIsBeyondTheBitsOfTheDevice) {
  IovaBook book = book_of({{bus(0_B), bus(1_GiB)}}, 20);
  ByteCount mapped;
  for (ByteCount offset; mapped < 1_MiB; offset += 64_KiB, mapped += 64_KiB) {
    const auto entered = book.enter(at(offset, 64_KiB), Access::read, 0_B);
    if (!entered) break;
    EXPECT_LE(entered->run.address + 64_KiB, bus(1_MiB));
  }
  EXPECT_EQ(1_MiB - 64_KiB, mapped);  // all but what page 0 leaves no room for
}

TEST(IovaBook, ADeviceThatReachesNoRangeIsRefused) {
  const auto book = IovaBook::create(Ranges{{bus(4_GiB), bus(8_GiB)}},
                                     {.page = Alignment(4096), .address_bits = 28});
  EXPECT_EQ(Errc::not_supported, book.error().code);
}

TEST(IovaBook, ARangeIsLeftOutWhereTheHoleBeforeTheNextBegins) {
  IovaBook book = book_of({{bus(4_KiB), bus(8_KiB)}, {bus(64_KiB), bus(72_KiB)}});
  const BusRun first = enter(book, at(0_B, 4_KiB));
  const BusRun second = enter(book, at(8_KiB, 8_KiB));
  EXPECT_EQ(bus(4_KiB), first.address);
  EXPECT_EQ(bus(64_KiB), second.address);
  EXPECT_EQ(Errc::no_memory, book.enter(at(0_B, 8_KiB), Access::read, 0_B).error().code);
  book.validate();
}

TEST(IovaBook, TheSameExtentIsOneMappingUntilItHasBeenLeftAsOften) {
  IovaBook book = book_of({{bus(0_B), bus(1_MiB)}});
  const BusRun run = enter(book, at(4_KiB, 8_KiB));
  const auto again = book.enter(at(4_KiB, 8_KiB), Access::read_write, 0_B);
  EXPECT_EQ(Sharing::shared, again->sharing);
  EXPECT_EQ(run, again->run);
  EXPECT_EQ(8_KiB, book.mapped_bytes());
  EXPECT_EQ(Sharing::shared, book.sharing(run));
  book.leave(run);
  EXPECT_EQ(Sharing::alone, book.sharing(run));
  book.leave(run);
  EXPECT_TRUE(book.empty());
  EXPECT_EQ(0_B, book.mapped_bytes());
}

TEST(IovaBook, AnotherAccessOrAnOverlapIsAMappingOfItsOwn) {
  IovaBook book = book_of({{bus(0_B), bus(1_MiB)}});
  const BusRun run = enter(book, at(4_KiB, 8_KiB), Access::read);
  EXPECT_NE(run, enter(book, at(4_KiB, 8_KiB), Access::read_write));
  EXPECT_NE(run.address, enter(book, at(4_KiB, 4_KiB), Access::read).address);
  EXPECT_NE(run.address, enter(book, at(0_B, 8_KiB), Access::read).address);
  EXPECT_EQ(4U, book.mappings());
  book.validate();
}

TEST(IovaBook, LongExtentsAreCongruentToTheirMemorySoThatLargePagesFit) {
  IovaBook book = book_of({{bus(0_B), bus(64_MiB)}});
  const auto entered = book.enter(at(0_B, 4_MiB), Access::read, 12_KiB);
  EXPECT_EQ((12_KiB).value(), entered->run.address.value() % (2_MiB).value());
}

TEST(IovaBook, WhereThereIsNoRoomForThatAnyAddressWillDo) {
  IovaBook book = book_of({{bus(4_KiB), bus(2_MiB + 8_KiB)}});
  EXPECT_EQ(bus(4_KiB), book.enter(at(0_B, 2_MiB), Access::read, 12_KiB)->run.address);
}

TEST(IovaBook, WhatIsNotWholePagesOfTheIommuIsRefused) {
  auto book = IovaBook::create(Ranges{{bus(0_B), bus(1_MiB)}},
                               {.page = Alignment(65536), .address_bits = 32});
  EXPECT_EQ(Errc::not_supported, book->enter(at(0_B, 4_KiB), Access::read, 0_B).error().code);
  EXPECT_EQ(Errc::not_supported, book->enter(at(0_B, 64_KiB), Access::read, 4_KiB).error().code);
  EXPECT_TRUE(book->empty());
}

TEST(IovaBook, AFailedAllocationChangesNothing) {
  IovaBook book = book_of({{bus(0_B), bus(1_MiB)}});
  const BusRun kept = enter(book, at(0_B, 4_KiB));
  for (std::int64_t k = 0;; ++k) {
    std::optional<Result<IovaBook::Entered>> entered;
    {
      const test::FailingNew failing(k);
      entered.emplace(book.enter(at(64_KiB, 4_KiB), Access::read, 0_B));
      if (!failing.happened()) break;
    }
    EXPECT_EQ(Errc::no_memory, entered->error().code);
    EXPECT_EQ(1U, book.mappings());
    book.validate();
  }
  EXPECT_EQ(2U, book.mappings());
  const std::int64_t calls = test::heap.calls;
  book.leave(kept);
  EXPECT_EQ(calls, test::heap.calls);
}

TEST(IovaBookDeathTest, ARunThatNobodyEnteredIsNotLeft) {
  IovaBook book = book_of({{bus(0_B), bus(1_MiB)}});
  const BusRun run = enter(book, at(0_B, 8_KiB));
  EXPECT_DEATH(book.leave({run.address, 4_KiB}), "");
  EXPECT_DEATH(book.leave({run.address + 4_KiB, 4_KiB}), "");
}

}  // namespace
}  // namespace accelmm
