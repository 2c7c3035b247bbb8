// SPDX-License-Identifier: Apache-2.0
#include "property/mm/checkpoints.hpp"
#include "property/mm/naive_fragmentation.hpp"
#include "property/mm/steps.hpp"

#include <accelmm/page_allocator.hpp>

#include <bit>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

constexpr std::uint64_t page = 4096;

// An allocator beside one byte a page.
class WatchedPages {
 public:
  explicit WatchedPages(std::uint64_t pages)
      : allocator_(PageAllocator::create({.size = ByteCount(pages * page)}).value()),
        free_(pages, 1) {}

  bool take(std::uint64_t count) {
    const auto extent = allocator_.allocate(ByteCount(count * page));
    if (!extent) return false;
    mark(*extent, 0);
    live_.push_back(*extent);
    return true;
  }
  bool give(std::uint64_t which) {
    if (live_.empty()) return false;
    std::swap(live_[which % live_.size()], live_.back());
    if (!allocator_.free(live_.back())) return false;
    mark(live_.back(), 1);
    live_.pop_back();
    return true;
  }
  void judge() const {
    NaiveFragmentation(free_, page).judge(allocator_.fragmentation());
    std::vector<std::uint64_t> bits((free_.size() + 63) / 64, 0);
    for (std::size_t p = 0; p < free_.size(); ++p)
      bits[p / 64] |= std::uint64_t{free_[p]} << (p % 64);
    ACCELMM_CHECK(fragmentation_of(bits, free_.size(), ByteCount(page)) ==
                  allocator_.fragmentation());
  }

 private:
  void mark(Extent extent, std::uint8_t value) {
    std::fill_n(free_.begin() + static_cast<std::ptrdiff_t>(extent.offset.value() / page),
                extent.length.value() / page, value);
  }
  PageAllocator allocator_;
  std::vector<std::uint8_t> free_;
  std::vector<Extent> live_;
};

void run(const char* name, std::uint64_t pages, std::uint64_t steps) {
  Dice dice(name);
  WatchedPages watched(pages);
  watched.judge();
  Checkpoints checkpoints =
      Checkpoints::of_run(steps, 1000);  // one takes as long as hundreds of steps
  Tally tally;
  for (std::uint64_t step = 0; step < steps; ++step) {
    // Phases of growth and of decline, so that the region is full and nearly empty at times.
    const bool grow = dice.roll(100) < (step / 300 % 2 == 0 ? 65 : 35);
    const auto bits = static_cast<std::uint64_t>(std::bit_width(pages)) - 1;
    const std::uint64_t most = std::uint64_t{1} << dice.roll(bits);
    tally.note(grow ? watched.take(1 + dice.roll(most)) : watched.give(dice.roll(1 << 20)));
    if (checkpoints.due()) watched.judge();
  }
  tally.print(name);
  EXPECT_TRUE(tally.mostly_succeeded());
}

std::uint64_t steps() {
  return number_from_environment("ACCELMM_STEPS", 4000);
}

TEST(Fragmentation, AgreesWithItsDefinitionsOverAByteAPage) {
  run("fragmentation of 8 chunks", 512 * 8, steps());
}

TEST(Fragmentation, AgreesWhereTheRegionEndsInsideAChunk) {
  run("fragmentation of 5.3 chunks", 512 * 5 + 157, steps());
}

TEST(Fragmentation, AgreesInARegionSmallerThanAChunk) {
  run("fragmentation of 100 pages", 100, steps());
}

}  // namespace
}  // namespace accelmm::test
