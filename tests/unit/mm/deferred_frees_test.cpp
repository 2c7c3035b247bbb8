// SPDX-License-Identifier: Apache-2.0
#include "unit/mm/failing_new.hpp"

#include <accelmm/deferred_frees.hpp>

#include <algorithm>
#include <deque>
#include <random>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

constexpr ByteCount page(4096);

Extent page_at(std::uint64_t number) {
  return {RegionOffset(number * page.value()), page};
}

std::vector<std::uint64_t> take(DeferredFrees& frees, std::uint64_t reached, std::size_t limit) {
  std::vector<std::uint64_t> points;
  for (auto* entry = frees.take_reached(reached, limit); entry != nullptr; entry = entry->next())
    points.push_back(entry->point());
  return points;
}

TEST(DeferredFreesTest, NothingIsTakenBeforeItsPointIsReached) {
  DeferredFrees frees;
  DeferredFrees::Entry entry;
  frees.add(entry, page_at(3), 10);
  EXPECT_EQ(nullptr, frees.take_reached(9, 8));
  EXPECT_EQ(page, frees.pending());
  const auto* const taken = frees.take_reached(10, 8);
  ASSERT_EQ(&entry, taken);
  EXPECT_EQ(page_at(3), taken->extent());
  EXPECT_EQ(nullptr, taken->next());
  EXPECT_EQ(ByteCount(0), frees.pending());
  EXPECT_EQ(0U, frees.entries());
}

TEST(DeferredFreesTest, PointsMayComeInAnyOrderAndLeaveLowestFirst) {
  DeferredFrees frees;
  std::deque<DeferredFrees::Entry> entries(7);
  const std::vector<std::uint64_t> points{5, 9, 1, 9, 3, 12, 7};
  for (std::size_t i = 0; i < points.size(); ++i) frees.add(entries[i], page_at(i), points[i]);
  EXPECT_EQ((std::vector<std::uint64_t>{1, 3}), take(frees, 9, 2));
  EXPECT_EQ((std::vector<std::uint64_t>{5, 7, 9, 9}), take(frees, 9, 100));
  EXPECT_EQ((std::vector<std::uint64_t>{12}), take(frees, ~std::uint64_t{0}, 100));
}

TEST(DeferredFreesTest, AgreesWithASortedListOverManySteps) {
  DeferredFrees frees;
  std::vector<std::uint64_t> model;
  std::deque<DeferredFrees::Entry> entries(20'000);
  std::mt19937_64 random(7);
  std::uint64_t now = 0;
  for (auto& entry : entries) {
    const std::uint64_t point = now + random() % 50;
    frees.add(entry, page_at(0), point);
    model.insert(std::ranges::upper_bound(model, point), point);
    if (random() % 3 != 0) continue;
    now += random() % 4;
    const std::size_t limit = 1 + random() % 8;
    const auto end = std::ranges::upper_bound(model, now);
    const auto due = std::min<std::size_t>(limit, static_cast<std::size_t>(end - model.begin()));
    const auto last = model.begin() + static_cast<std::ptrdiff_t>(due);
    ASSERT_EQ(std::vector<std::uint64_t>(model.begin(), last), take(frees, now, limit));
    model.erase(model.begin(), last);
    ASSERT_EQ(model.size(), frees.entries());
  }
}

TEST(DeferredFreesTest, PagesThatWaitCannotBeHadAndAreNotLost) {
  auto pages = PageAllocator::create({.size = ByteCount(16 * page.value())}).value();
  DeferredFrees frees;
  std::deque<DeferredFrees::Entry> entries(16);
  for (std::uint64_t i = 0; i < 16; ++i) frees.add(entries[i], pages.allocate(page).value(), i + 1);
  EXPECT_FALSE(pages.allocate(page));
  EXPECT_EQ(ByteCount(16 * page.value()), frees.pending());
  EXPECT_EQ(ByteCount(4 * page.value()), frees.retire(4, pages));
  EXPECT_EQ(ByteCount(4 * page.value()), pages.statistics().free);
  EXPECT_EQ(ByteCount(12 * page.value()), frees.retire(100, pages));
  EXPECT_EQ(ByteCount(16 * page.value()), pages.statistics().largest_free);
  pages.validate();
}

TEST(DeferredFreesTest, NeitherAddingNorTakingNeedsMemory) {
  auto pages = PageAllocator::create({.size = ByteCount(16 * page.value())}).value();
  DeferredFrees frees;
  std::deque<DeferredFrees::Entry> entries(2);
  const Extent first = pages.allocate(page).value();
  const Extent second = pages.allocate(page).value();
  const auto calls = test::heap.calls;
  frees.add(entries[0], first, 2);
  frees.add(entries[1], second, 1);
  static_cast<void>(frees.retire(2, pages));
  EXPECT_EQ(calls, test::heap.calls);
}

}  // namespace
}  // namespace accelmm
