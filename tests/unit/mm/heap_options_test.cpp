// SPDX-License-Identifier: Apache-2.0
#include "unit/mm/heap_memory.hpp"

#include <accelmm/heap.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <set>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

Heap make(HeapSource& source, Heap::Options options) {
  options.source = &source;
  auto heap = Heap::create(options);
  ACCELMM_CHECK(heap.has_value());
  return std::move(*heap);
}

template <class T>
Errc code(const Result<T>& result) {
  return result ? Errc{} : result.error().code;
}

// Not where a sanitizer sees it: it would end the program, rightly.
__attribute__((no_sanitize("address"))) void write_at(void* pointer, std::uint64_t distance,
                                                      std::byte byte) {
  static_cast<volatile std::byte*>(pointer)[distance] = byte;
}
__attribute__((no_sanitize("address"))) std::byte read_at(const void* pointer,
                                                          std::uint64_t distance) {
  return static_cast<const volatile std::byte*>(pointer)[distance];
}

constexpr std::uint64_t sizes[] = {1,     15,    16,    17,        100,    4096,
                                   16000, 16384, 20000, 4096 * 10, 3000000};

TEST(HeapOptions, RefusesWhatMakesNoHeap) {
  MappedSource source;
  EXPECT_EQ(Errc::invalid_argument, code(Heap::create({})));
  EXPECT_EQ(Errc::invalid_argument, code(Heap::create({.source = &source, .chunk = 0_B})));
  EXPECT_EQ(Errc::invalid_argument, code(Heap::create({.source = &source, .chunk = 3_KiB})));
  EXPECT_EQ(Errc::invalid_argument,
            code(Heap::create({.source = &source, .dedicated_from = 16_KiB})));
  EXPECT_EQ(Errc::invalid_argument, code(Heap::create({.source = &source, .guard = 100_B})));
}

TEST(HeapOptions, CanariesShowAWriteBehindAPiece) {
  for (const std::uint64_t size : sizes) {
    MappedSource source;
    Heap heap = make(source, {.canaries = Heap::Canaries::yes});
    const auto piece = heap.allocate(ByteCount(size));
    const auto kept = heap.allocate(ByteCount(size));
    ASSERT_TRUE(piece && kept);
    EXPECT_EQ(ByteCount(size), piece->size);
    std::memset(piece->pointer, 0xab, size);
    EXPECT_FALSE(heap.damage());
    const std::byte before = read_at(piece->pointer, size);
    for (const std::uint64_t distance : {size, size + 15}) {
      const std::byte was = read_at(piece->pointer, distance);
      write_at(piece->pointer, distance, was ^ std::byte{1});
      const auto damage = heap.damage();
      ASSERT_TRUE(damage) << size;
      EXPECT_EQ(piece->pointer, damage->pointer);
      EXPECT_EQ(size, damage->requested.value());
      EXPECT_EQ(distance, damage->distance.value());
      EXPECT_EQ(Errc::fault, code(heap.free(piece->pointer))) << size;
      EXPECT_EQ(Errc::fault, code(heap.free(piece->pointer))) << "it stays live";
      EXPECT_TRUE(heap.usable_size(piece->pointer));
      heap.validate();
      write_at(piece->pointer, distance, was);
    }
    EXPECT_EQ(before, read_at(piece->pointer, size));
    EXPECT_TRUE(heap.free(piece->pointer));
    EXPECT_EQ(Errc::invalid_argument, code(heap.free(piece->pointer)));
    EXPECT_TRUE(heap.free(kept->pointer));
    heap.validate();
  }
}

TEST(HeapOptions, CanariesSurviveReallocation) {
  MappedSource source;
  Heap heap = make(source, {.canaries = Heap::Canaries::yes});
  auto piece = heap.allocate(10_B);
  ASSERT_TRUE(piece);
  std::memset(piece->pointer, 0x11, 10);
  piece = heap.reallocate(piece->pointer, 100_KiB);
  ASSERT_TRUE(piece);
  EXPECT_EQ(100_KiB, *heap.usable_size(piece->pointer));
  EXPECT_EQ(std::byte{0x11}, read_at(piece->pointer, 9));
  write_at(piece->pointer, 100 * 1024, std::byte{0x77});
  write_at(piece->pointer, 100 * 1024 + 1, std::byte{0x77});
  EXPECT_EQ(Errc::fault, code(heap.reallocate(piece->pointer, 200_KiB)));
  EXPECT_EQ(1U, heap.statistics().large_pieces);
}

TEST(HeapOptions, ScrubFillsWhatIsFreed) {
  for (const std::uint64_t size : sizes) {
    MappedSource source;
    Heap heap = make(source, {.scrub = Heap::Scrub::yes});
    const auto kept = heap.allocate(ByteCount(size));
    const auto piece = heap.allocate(ByteCount(size));
    ASSERT_TRUE(kept && piece);
    std::memset(piece->pointer, 0x11, size);
    ASSERT_TRUE(heap.free(piece->pointer));
    EXPECT_EQ(std::byte{0xfe}, read_at(piece->pointer, 0));
    EXPECT_EQ(std::byte{0xfe}, read_at(piece->pointer, size - 1));
    EXPECT_EQ(Errc::invalid_argument, code(heap.free(piece->pointer)));
  }
}

TEST(HeapOptions, GuardPagesAreNobodys) {
  MappedSource source;
  Heap heap = make(source, {.guard = 8_KiB});
  std::set<std::uintptr_t> begins;
  for (int i = 0; i < 40; ++i) {
    const auto piece = heap.allocate(20_KiB);
    ASSERT_TRUE(piece);
    EXPECT_EQ(20_KiB, *heap.usable_size(piece->pointer));
    begins.insert(reinterpret_cast<std::uintptr_t>(piece->pointer));
  }
  std::uintptr_t before = 0;
  for (const std::uintptr_t begin : begins) {
    EXPECT_GE(begin - before, 28U * 1024);
    before = begin;
  }
  heap.validate();
  for (const std::uintptr_t begin : begins) {
    const auto grown = heap.reallocate(reinterpret_cast<void*>(begin), 24_KiB);
    ASSERT_TRUE(grown);
    EXPECT_EQ(24_KiB, *heap.usable_size(grown->pointer));
    heap.validate();
    ASSERT_TRUE(heap.free(grown->pointer));
  }
  heap.trim();
  EXPECT_EQ(0U, source.outstanding());
}

TEST(HeapOptions, SpacedPiecesShareNoCacheLine) {
  MappedSource source;
  Heap heap = make(source, {.spacing = Slab::Spacing::cache_lines});
  std::set<std::uintptr_t> lines;
  for (const std::uint64_t size : {1U, 16U, 60U, 64U, 65U, 100U, 200U})
    for (int i = 0; i < 40; ++i) {
      const auto piece = heap.allocate(ByteCount(size));
      ASSERT_TRUE(piece);
      const auto begin = reinterpret_cast<std::uintptr_t>(piece->pointer);
      for (std::uintptr_t line = begin / 64; line <= (begin + size - 1) / 64; ++line)
        EXPECT_TRUE(lines.insert(line).second);
    }
}

TEST(HeapOptions, QuarantineKeepsWhatIsFreed) {
  MappedSource source;
  Heap heap = make(source, {.quarantine = {.queue = 20}});
  const auto piece = heap.allocate(64_B);
  ASSERT_TRUE(piece);
  ASSERT_TRUE(heap.free(piece->pointer));
  EXPECT_EQ(Errc::invalid_argument, code(heap.free(piece->pointer)));
  for (int i = 0; i < 19; ++i) {
    const auto next = heap.allocate(64_B);
    ASSERT_TRUE(next);
    EXPECT_NE(piece->pointer, next->pointer);
    ASSERT_TRUE(heap.free(next->pointer));
  }
  EXPECT_EQ(20U, heap.statistics().small.quarantined);
  heap.validate();
}

TEST(HeapOptions, RandomOrderCannotBeForetold) {
  MappedSource source;
  Heap heap = make(source, {.order = Slab::Order::random});
  std::vector<std::uintptr_t> order;
  for (int i = 0; i < 64; ++i)
    order.push_back(reinterpret_cast<std::uintptr_t>(heap.allocate(64_B)->pointer));
  std::size_t steps_up = 0;
  for (std::size_t i = 1; i < order.size(); ++i)
    if (order[i] == order[i - 1] + 64) ++steps_up;
  EXPECT_LT(steps_up, 32U);
}

}  // namespace
}  // namespace accelmm::test
