// SPDX-License-Identifier: Apache-2.0
#include <accelmm/deferred_frees.hpp>

#include <atomic>
#include <deque>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

TEST(DeferredFreesThreads, ThreadsThatAddAndRetireLoseNothing) {
  constexpr ByteCount page(4096);
  constexpr std::size_t count = 2048;
  constexpr std::size_t threads = 4;
  const ByteCount size(threads * count * page.value() / 8);
  auto pages = PageAllocator::create({.size = size}).value();
  DeferredFrees frees;
  std::atomic<std::uint64_t> clock{1};
  // Each is used once, and another thread may be the one that takes it.
  std::deque<DeferredFrees::Entry> entries(threads * count);
  {
    std::vector<std::jthread> running;
    for (std::size_t t = 0; t < threads; ++t)
      running.emplace_back([&, t] {
        for (std::size_t i = t * count; i < (t + 1) * count; ++i) {
          const auto extent = pages.allocate(page);
          if (extent) frees.add(entries[i], *extent, clock.fetch_add(1) + i % 7);
          if (i % 4 == 0) static_cast<void>(frees.retire(clock.load() - 1, pages));
        }
      });
  }
  static_cast<void>(frees.retire(~std::uint64_t{0}, pages));
  EXPECT_EQ(size, pages.statistics().free);
  EXPECT_EQ(0U, frees.entries());
  EXPECT_EQ(ByteCount(0), frees.pending());
  pages.validate();
}

}  // namespace
}  // namespace accelmm
