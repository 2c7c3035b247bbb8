// SPDX-License-Identifier: Apache-2.0
#include "mm/backing/page_sample.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include <gtest/gtest.h>
#include <sys/mman.h>

namespace accelmm {
namespace {

constexpr std::size_t page = 4096;

/// Memory of which nothing is there yet.
class Untouched {
 public:
  explicit Untouched(std::size_t bytes) : bytes_(bytes) {
    place_ = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT_NE(MAP_FAILED, place_);
    EXPECT_EQ(0, ::madvise(place_, bytes, MADV_NOHUGEPAGE));
  }
  Untouched(const Untouched&) = delete;
  Untouched& operator=(const Untouched&) = delete;
  ~Untouched() { ::munmap(place_, bytes_); }

  [[nodiscard]] std::span<std::byte> bytes() const {
    return {static_cast<std::byte*>(place_), bytes_};
  }

 private:
  std::size_t bytes_;
  void* place_;
};

TEST(PageSample, LooksAtEveryPageOfASmallPlace) {
  const Untouched place(64 * page);
  EXPECT_EQ(64U, sample_pages(place.bytes()).sample.taken);
  EXPECT_EQ(0U, sample_pages(place.bytes()).sample.present);
  for (std::size_t i = 0; i < 64; ++i) {
    place.bytes()[i * page] = std::byte{1};
    EXPECT_EQ(i + 1, sample_pages(place.bytes()).sample.present);
  }
}

// As interleaved nodes do: a sample that steps by a multiple of the period sees one of them alone.
TEST(PageSample, SeesHalfOfWhatTakesTurns) {
  constexpr std::size_t bytes = std::size_t{64} << 20;
  for (std::size_t run = 1; run <= 128; run *= 2) {
    const Untouched place(bytes);
    for (std::size_t at = 0; at < bytes / page; ++at)
      if (at / run % 2 == 0) place.bytes()[at * page] = std::byte{1};
    const std::uint32_t present = sample_pages(place.bytes()).sample.present;
    EXPECT_GE(present, 24U) << run << " pages at a time";
    EXPECT_LE(present, 40U) << run << " pages at a time";
  }
}

TEST(PageSample, StaysInsideAPlaceOfAnySize) {
  for (const std::size_t pages : {1U, 2U, 63U, 65U, 127U, 1000U}) {
    const Untouched place(pages * page);
    std::ranges::fill(place.bytes(), std::byte{1});
    const SampledPages seen = sample_pages(place.bytes());
    EXPECT_EQ(std::min(pages, std::size_t{64}), seen.sample.taken);
    EXPECT_EQ(seen.sample.taken, seen.sample.present) << pages;
  }
}

}  // namespace
}  // namespace accelmm
