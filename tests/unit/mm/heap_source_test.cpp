// SPDX-License-Identifier: Apache-2.0
#include "unit/mm/heap_memory.hpp"

#include <accelmm/heap.hpp>
#include <accelmm/heap_source.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>

#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

template <class T>
Errc code(const Result<T>& result) {
  return result ? Errc{} : result.error().code;
}

Heap make(HeapSource& source) {
  auto heap = Heap::create({.source = &source});
  ACCELMM_CHECK(heap.has_value());
  return std::move(*heap);
}

TEST(HeapSource, ItsErrorsComeThroughAndChangeNothing) {
  MappedSource source;
  Heap heap = make(source);
  source.allow(1);
  const auto small = heap.allocate(64_B);
  ASSERT_TRUE(small);
  for (const std::uint64_t size : {3U << 20, 40U << 20})
    EXPECT_EQ(Errc::over_quota, code(heap.allocate(ByteCount(size))));
  std::uint64_t pieces = 0;
  Result<HeapPiece> piece = heap.allocate(16_KiB);
  for (; piece; piece = heap.allocate(16_KiB)) ++pieces;
  EXPECT_EQ(Errc::over_quota, code(piece));
  // All of the chunk but the other slab, in whole slabs.
  if (!heap_is_watched) {
    EXPECT_EQ((2048U - 64 - 192) / 16, pieces);
  }
  heap.validate();
  EXPECT_TRUE(heap.free(small->pointer));
}

TEST(HeapSource, WhatGaveWayServesWhereTheSourceRefuses) {
  MappedSource source;
  Heap heap = make(source);
  source.allow(1);
  // An empty slab of the chunk stands in the way of the large piece.
  const auto small = heap.allocate(64_B);
  ASSERT_TRUE(small);
  ASSERT_TRUE(heap.free(small->pointer));
  EXPECT_TRUE(heap.allocate(2_MiB));
}

struct Odd {
  const char* what;
  std::uint64_t offset;
  std::uint64_t size;
  std::optional<std::uint64_t> address;
};

TEST(HeapSource, ACheatingSourceIsFoundOut) {
  constexpr std::uint64_t mib = 1 << 20;
  constexpr std::uint64_t device = MappedSource::first_address;
  const Odd table[] = {
      {"outside the range", MappedSource::range_size.value(), 2 * mib, device},
      {"reaches out of the range", MappedSource::range_size.value() - 2 * mib, 4 * mib, device},
      {"before the range", ~std::uint64_t{0} - 2 * mib + 1, 2 * mib, device},
      {"too small", 8 * mib, 4096, device},
      {"not whole pages", 8 * mib, 4 * mib + 100, device},
      {"begins within a page", 8 * mib + 16, 4 * mib, device},
      {"another phase on the device", 8 * mib, 4 * mib, device + 4096},
      {"beyond all device addresses", 8 * mib, 4 * mib, ~std::uint64_t{0} - 2 * mib + 1},
      {"without a device address", 8 * mib, 4 * mib, {}},
      {"touches another", 2 * mib, 4 * mib, device + 64 * mib},
      {"overlaps another", 0, 4 * mib, device + 64 * mib},
      {"a device address twice", 8 * mib, 4 * mib, device},
  };
  for (const Odd& odd : table) {
    MappedSource source;
    Heap heap = make(source);
    ASSERT_TRUE(heap.allocate(100_KiB));  // 2 MiB at 0
    const HeapChunk answer{.pointer = source.base() + odd.offset,
                           .size = ByteCount(odd.size),
                           .address = odd.address.transform([](auto a) { return DeviceAddr(a); }),
                           .contents = Contents::unknown};
    source.answer(answer);
    EXPECT_EQ(Errc::fault, code(heap.allocate(2_MiB))) << odd.what;
    EXPECT_EQ(Errc::fault, code(heap.allocate(64_MiB))) << odd.what;
    EXPECT_EQ(2U, source.odd_returned()) << odd.what;
    heap.validate();
    source.answer({});
    EXPECT_TRUE(heap.allocate(2_MiB)) << odd.what;
  }
}

TEST(SpanHeapSource, MakesAHeapOfMemoryThatIsThere) {
  alignas(4096) static std::array<std::byte, 1 << 20> memory;
  const std::span<std::byte> inside = std::span(memory).subspan(4096, 900 * 1024);
  const auto begin = reinterpret_cast<std::uintptr_t>(inside.data());
  const DeviceAddr address(begin + (std::uint64_t{1} << 40));
  auto source = SpanHeapSource::create(inside, address);
  ASSERT_TRUE(source);
  Heap heap = make(*source);
  std::uint64_t bytes = 0;
  Result<HeapPiece> piece = heap.allocate(20_KiB);
  for (; piece; piece = heap.allocate(20_KiB)) {
    const auto offset = static_cast<std::byte*>(piece->pointer) - inside.data();
    ASSERT_GE(offset, 0);
    ASSERT_LE(static_cast<std::uint64_t>(offset) + piece->size.value(), inside.size());
    EXPECT_EQ(address.value() + static_cast<std::uint64_t>(offset), piece->address.value());
    bytes += piece->size.value();
  }
  EXPECT_EQ(Errc::no_memory, code(piece));
  EXPECT_GT(bytes, 500U * 1024) << "five pages each, in blocks of eight";
  EXPECT_EQ(Errc::no_memory, code(heap.allocate(2_MiB)));
  heap.validate();
}

TEST(SpanHeapSource, ServesSmallPiecesToo) {
  alignas(4096) static std::array<std::byte, 1 << 20> memory;
  auto source = SpanHeapSource::create(memory);
  ASSERT_TRUE(source);
  {
    Heap heap = make(*source);
    const auto piece = heap.allocate(64_B);
    ASSERT_TRUE(piece);
    EXPECT_TRUE(heap.allocate(64_KiB, Alignment(65536)));
    heap.validate();
  }
  Heap again = make(*source);
  EXPECT_TRUE(again.allocate(64_B));
}

TEST(SpanHeapSource, AHugePieceLeavesTheRestToOthers) {
  MappedSource lender;
  const auto chunk = lender.grow(256_MiB, HeapSource::unit);
  ASSERT_TRUE(chunk);
  {
    auto source = SpanHeapSource::create({chunk->pointer, chunk->size.value()});
    ASSERT_TRUE(source);
    Heap heap = make(*source);
    const auto first = heap.allocate(64_MiB);
    const auto small = heap.allocate(64_B);
    const auto second = heap.allocate(100_MiB);
    ASSERT_TRUE(first && small && second);
    EXPECT_EQ(0U, heap.statistics().dedicated_chunks);
    EXPECT_EQ(Errc::no_memory, code(heap.allocate(100_MiB)));
    ASSERT_TRUE(heap.free(first->pointer));
    EXPECT_TRUE(heap.allocate(64_MiB));
    heap.validate();
  }
  lender.give_back(*chunk);
}

TEST(SpanHeapSource, RefusesWhatIsNotWholePagesOrNotCongruent) {
  alignas(4096) static std::array<std::byte, 16384> memory;
  EXPECT_EQ(Errc::invalid_argument, code(SpanHeapSource::create({})));
  EXPECT_EQ(Errc::invalid_argument, code(SpanHeapSource::create(std::span(memory).first(4000))));
  EXPECT_EQ(Errc::invalid_argument,
            code(SpanHeapSource::create(std::span(memory).subspan(16, 4096))));
  const auto begin = reinterpret_cast<std::uintptr_t>(memory.data());
  EXPECT_EQ(Errc::invalid_argument, code(SpanHeapSource::create(memory, DeviceAddr(begin + 4096))));
}

}  // namespace
}  // namespace accelmm::test
