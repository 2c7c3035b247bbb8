// SPDX-License-Identifier: Apache-2.0
#include "bus/iova_book.hpp"
#include "property/mm/steps.hpp"

#include <algorithm>
#include <map>
#include <vector>

#include <gtest/gtest.h>

/// The book of an IOMMU's addresses against one that knows which page is whose, and no more.
namespace accelmm::test {
namespace {

constexpr std::uint64_t page = 4096;
using Ranges = std::vector<Range<BusAddr>>;
using BusRun = Run;  // in a test, Run is gtest's

Range<BusAddr> pages(std::uint64_t begin, std::uint64_t end) {
  return {BusAddr(begin * page), BusAddr(end * page)};
}

/// One byte for each page of bus addresses below `end`.
class NaiveBook {
 public:
  NaiveBook(const Ranges& ranges, unsigned address_bits) {
    const std::uint64_t limit =
        address_bits < 64 ? (std::uint64_t{1} << address_bits) / page : ~std::uint64_t{0};
    pages_.assign(ranges.back().end.value() / page, State::outside);
    for (const auto& range : ranges)
      for (std::uint64_t at = range.begin.value() / page; at < range.end.value() / page; ++at)
        if (at < limit && at != 0) pages_[at] = State::free;
  }
  /// Whether `count` free pages lie in a row, within one range.
  [[nodiscard]] bool has_room(std::uint64_t count) const {
    std::uint64_t row = 0;
    for (const State state : pages_) {
      row = state == State::free ? row + 1 : 0;
      if (row == count) return true;
    }
    return false;
  }
  /// Whether all pages were free; they are taken then.
  [[nodiscard]] bool take(BusRun run) {
    if (run.address.value() % page != 0 || run.length.value() % page != 0) return false;
    const std::uint64_t begin = run.address.value() / page;
    const std::uint64_t end = begin + run.length.value() / page;
    if (end > pages_.size()) return false;
    for (std::uint64_t at = begin; at < end; ++at)
      if (pages_[at] != State::free) return false;
    std::fill(pages_.begin() + static_cast<long>(begin), pages_.begin() + static_cast<long>(end),
              State::taken);
    taken_ += end - begin;
    return true;
  }
  void give_back(BusRun run) {
    for (std::uint64_t at = 0; at < run.length.value() / page; ++at)
      pages_[run.address.value() / page + at] = State::free;
    taken_ -= run.length.value() / page;
  }
  [[nodiscard]] ByteCount taken() const { return ByteCount(taken_ * page); }

 private:
  enum class State : std::uint8_t { outside, free, taken };
  std::vector<State> pages_;
  std::uint64_t taken_ = 0;
};

struct Holder {
  BusRun run;
  Extent extent;
  Access access;
  IovaBook::Entry entry;
};

class JudgedBook {
 public:
  JudgedBook(const Ranges& ranges, unsigned bits)
      : naive_(ranges, bits),
        book_(*IovaBook::create(
            ranges,
            {.page = Alignment(page), .large = Alignment(16 * page), .address_bits = bits})) {}

  bool enter(Extent extent, Access access, ByteCount phase, IovaBook::Entry entry) {
    const auto same = std::ranges::find_if(holders_, [&](const Holder& holder) {
      return entry == IovaBook::Entry::shared && holder.entry == entry && holder.extent == extent &&
             holder.access == access;
    });
    const auto entered = book_.enter(extent, access, phase, entry);
    book_.validate();
    if (same != holders_.end()) {
      EXPECT_TRUE(entered.has_value() && entered->run == same->run &&
                  entered->sharing == IovaBook::Sharing::shared);
      holders_.push_back(*same);
      return true;
    }
    EXPECT_EQ(naive_.has_room(extent.length.value() / page), entered.has_value());
    if (!entered) {
      EXPECT_EQ(Errc::no_memory, entered.error().code);
      return false;
    }
    EXPECT_EQ(IovaBook::Sharing::alone, entered->sharing);
    EXPECT_EQ(extent.length, entered->run.length);
    EXPECT_TRUE(naive_.take(entered->run));
    holders_.push_back({entered->run, extent, access, entry});
    return true;
  }
  void leave(std::uint64_t which) {
    const Holder gone = holders_[which];
    holders_[which] = holders_.back();
    holders_.pop_back();
    const bool last = std::ranges::none_of(
        holders_, [&](const Holder& holder) { return holder.run == gone.run; });
    EXPECT_EQ(last, book_.sharing(gone.run) == IovaBook::Sharing::alone);
    book_.leave(gone.run);
    book_.validate();
    if (last) naive_.give_back(gone.run);
  }
  void judge() const { EXPECT_EQ(naive_.taken(), book_.mapped_bytes()); }
  [[nodiscard]] std::size_t holders() const { return holders_.size(); }

 private:
  NaiveBook naive_;
  IovaBook book_;
  std::vector<Holder> holders_;
};

void run(const char* name, const Ranges& ranges, unsigned bits) {
  Dice dice(name);
  JudgedBook book(ranges, bits);
  Tally tally;
  const std::uint64_t steps = number_from_environment("ACCELMM_STEPS", 20'000);
  for (std::uint64_t step = 0; step < steps && !testing::Test::HasFailure(); ++step) {
    const bool filling = step / 500 % 2 == 0;
    if (book.holders() > 0 && dice.roll(4) >= (filling ? 3U : 1U)) {
      book.leave(dice.roll(book.holders()));
      tally.note(true);
    } else {
      // Few different extents, so that the same one comes again.
      const Extent extent{RegionOffset(dice.roll(12) * page),
                          ByteCount((1 + dice.roll(dice.roll(8) == 0 ? 40 : 4)) * page)};
      const auto access = static_cast<Access>(1 + dice.roll(3));
      const auto entry = dice.roll(8) == 0 ? IovaBook::Entry::own : IovaBook::Entry::shared;
      const ByteCount phase(extent.offset.value() % (16 * page));
      tally.note(book.enter(extent, access, phase, entry));
    }
    book.judge();
  }
  while (book.holders() > 0) book.leave(book.holders() - 1);
  book.judge();
  tally.print(name);
  EXPECT_TRUE(tally.mostly_succeeded());
}

TEST(IovaBookProperty, AgreesWithABytePerPageInOneRange) {
  run("iova-one", {pages(0, 300)}, 64);
}
TEST(IovaBookProperty, AgreesWithABytePerPageAroundAHole) {
  run("iova-hole", {pages(0, 100), pages(110, 111), pages(117, 400)}, 64);
}
TEST(IovaBookProperty, AgreesWithABytePerPageBelowTheBitsOfTheDevice) {
  run("iova-bits", {pages(3, 90), pages(100, 500)}, 20);  // 256 pages
}

}  // namespace
}  // namespace accelmm::test
