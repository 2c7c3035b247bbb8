// SPDX-License-Identifier: Apache-2.0
#include "property/mm/page_model.hpp"
#include "property/mm/steps.hpp"

#include <algorithm>
#include <bit>

#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

/// A length that is small mostly, and up to the whole region sometimes.
std::uint64_t some_length(Dice& dice, std::uint64_t pages) {
  const auto bits = static_cast<std::uint64_t>(std::bit_width(pages));
  return 1 + dice.roll(std::uint64_t{1} << dice.roll(bits));
}

unsigned some_alignment(Dice& dice) {
  return dice.roll(2) == 0 ? 0 : static_cast<unsigned>(dice.roll(12));
}

bool take_something(JudgedPages& pages, Dice& dice) {
  const std::uint64_t length = some_length(dice, pages.page_count());
  switch (dice.roll(10)) {
    case 8:
    case 9: {
      const std::uint64_t a = dice.roll(pages.page_count());
      const std::uint64_t b = dice.roll(pages.page_count());
      return pages.allocate_within(length, some_alignment(dice), std::min(a, b), std::max(a, b) + 1,
                                   static_cast<Placement>(dice.roll(3)),
                                   static_cast<Lifetime>(dice.roll(4)));
    }
    case 0:
      return pages.allocate_scattered(length);
    case 1: {
      const auto [begin, count] = pages.free_run(dice.roll(pages.page_count()), length);
      return pages.reserve(begin, count + (dice.roll(8) == 0 ? 1 : 0));
    }
    case 2:
    case 3:
      return pages.allocate(512, 9);  // what the cache of large blocks serves
    case 4:
      return pages.allocate(1, 0);
    case 5:
      return pages.allocate_clean(length, some_alignment(dice));
    default:
      return pages.allocate(length, some_alignment(dice));
  }
}

bool give_something(JudgedPages& pages, Dice& dice) {
  const std::uint64_t at = dice.roll(pages.page_count());
  if (dice.roll(16) == 0) return pages.free(at, some_length(dice, pages.page_count()));
  if (dice.roll(6) == 0) return pages.free(at / 512 * 512, 512);  // for the cache of large blocks
  const std::uint64_t limit = dice.roll(3) == 0 ? 1 : some_length(dice, pages.page_count());
  const auto [begin, count] = pages.taken_run(at, limit);
  return count != 0 &&
         pages.free(begin, count, dice.roll(2) == 0 ? Contents::unknown : Contents::zeros);
}

/// Sweeps the fill of the region up and down between nothing and everything, several times.
Tally sweep(JudgedPages& pages, Dice& dice, std::uint64_t steps) {
  Tally tally;
  const std::uint64_t phase = std::max<std::uint64_t>(steps / 20, 1);
  for (std::uint64_t step = 0; step < steps; ++step) {
    const std::uint64_t target = (step / phase) % 11 * pages.page_count() / 10;
    const bool above = pages.page_count() - pages.free_pages() > target;
    const bool give = above ? dice.roll(4) != 0 : dice.roll(4) == 0;
    tally.note(give ? give_something(pages, dice) : take_something(pages, dice));
    if (dice.roll(256) == 0) pages.recount();
  }
  return tally;
}

void run(const char* name, std::uint64_t page_count, std::uint64_t steps,
         std::uint64_t page_bytes = 4096) {
  Dice dice(name);
  steps = number_from_environment("ACCELMM_STEPS", steps);
  JudgedPages pages(page_count, page_bytes, Checkpoints::of_run(steps, 50000));
  const Tally tally = sweep(pages, dice, steps);
  tally.print(name);
  EXPECT_TRUE(tally.mostly_succeeded());
  pages.free_everything();
}

// Sizes: a power of two, odd ones, and one that is smaller than a word of bits.
TEST(PageAllocatorProperty, AgreesWithOneBytePerPageOn4096Pages) {
  run("pages-4096", 4096, 20000);
}
TEST(PageAllocatorProperty, AgreesWithOneBytePerPageOn5003Pages) {
  run("pages-5003", 5003, 20000);
}
TEST(PageAllocatorProperty, AgreesWithOneBytePerPageOn321Pages) {
  run("pages-321", 321, 20000);
}
TEST(PageAllocatorProperty, AgreesWithOneBytePerPageOn37Pages) {
  run("pages-37", 37, 20000);
}

// Native pages of memory parts: 3 * 2^24 and 3 * 2^28 bytes.
TEST(PageAllocatorProperty, AgreesWithOneBytePerPageOf48MiB) {
  run("pages-48m", 1021, 10000, std::uint64_t{48} << 20);
}
TEST(PageAllocatorProperty, AgreesWithOneBytePerPageOf768MiB) {
  run("pages-768m", 129, 10000, std::uint64_t{768} << 20);
}

}  // namespace
}  // namespace accelmm::test
