// SPDX-License-Identifier: Apache-2.0
//
// What the address sanitizer says of errors inside a heap. tests/valgrind asks Valgrind the same.
#include "mm/heap/memory_watch.hpp"
#include "unit/mm/heap_memory.hpp"

#include <accelmm/heap.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <sys/mman.h>

namespace accelmm::test {
namespace {

class HeapWatchDeathTest : public testing::TestWithParam<std::uint64_t> {
 protected:
  void SetUp() override {
    auto heap = Heap::create({.source = &source_});
    ASSERT_TRUE(heap);
    heap_.emplace(std::move(*heap));
  }
  [[nodiscard]] volatile char* take() {
    const auto piece = heap_->allocate(ByteCount(GetParam()));
    ACCELMM_CHECK(piece.has_value());
    std::memset(piece->pointer, 1, GetParam());
    return static_cast<volatile char*>(piece->pointer);
  }
  void give(volatile char* bytes) { ACCELMM_CHECK(heap_->free(const_cast<char*>(bytes))); }

  MappedSource source_;
  std::optional<Heap> heap_;
};

constexpr const char* report = "AddressSanitizer: use-after-poison";

TEST_P(HeapWatchDeathTest, AUseAfterFreeIsReported) {
  volatile char* const bytes = take();
  give(bytes);
  EXPECT_DEATH(static_cast<void>(bytes[0]), report);
  EXPECT_DEATH(bytes[GetParam() - 1] = 1, report);
}

TEST_P(HeapWatchDeathTest, AWriteBehindAPieceIsReported) {
  volatile char* const bytes = take();
  volatile char* const next = take();
  EXPECT_DEATH(bytes[GetParam()] = 1, report);
  EXPECT_DEATH(static_cast<void>(next[GetParam() + 7]), report);
}

TEST_P(HeapWatchDeathTest, WhatIsInNoPieceMayNotBeTouched) {
  volatile char* const bytes = take();
  EXPECT_DEATH(static_cast<void>(bytes[(1 << 20) + 512 * 1024]), report);
}

TEST_P(HeapWatchDeathTest, AQuarantinedPieceMayNotBeTouched) {
  auto heap = Heap::create({.source = &source_, .quarantine = {.queue = 10}});
  ASSERT_TRUE(heap);
  heap_.reset();
  heap_.emplace(std::move(*heap));
  volatile char* const bytes = take();
  give(bytes);
  EXPECT_DEATH(static_cast<void>(bytes[0]), report);
}

TEST_P(HeapWatchDeathTest, APieceTakenAgainMayBeTouched) {
  for (int i = 0; i < 100; ++i) give(take());
  volatile char* const bytes = take();
  bytes[GetParam() - 1] = 1;
  give(bytes);
}

// Puts something else where a chunk was, and touches it.
void use_anew(volatile char* bytes) {
  void* const begin =
      reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(bytes) & ~std::uintptr_t{4095});
  void* const other =
      ::mmap(begin, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  ASSERT_EQ(begin, other);
  bytes[0] = 1;
}

TEST_P(HeapWatchDeathTest, MemoryThatWentBackMayBeTouched) {
  volatile char* const bytes = take();
  give(bytes);
  heap_->trim();
  ASSERT_EQ(0U, source_.outstanding());
  use_anew(bytes);
}

TEST_P(HeapWatchDeathTest, MemoryOfLivePiecesMayBeTouchedWhenTheHeapIsGone) {
  volatile char* const bytes = take();
  heap_.reset();
  use_anew(bytes);
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(HeapWatchDeathTest);
INSTANTIATE_TEST_SUITE_P(Sizes, HeapWatchDeathTest,
                         testing::ValuesIn(heap_is_watched
                                               ? std::vector<std::uint64_t>{16, 100, 16384, 100000}
                                               : std::vector<std::uint64_t>{}));

TEST(HeapWatch, IsBuiltIn) {
  if (!heap_is_watched) GTEST_SKIP() << "built without the address sanitizer";
  EXPECT_TRUE(mm::somebody_watches());
}

}  // namespace
}  // namespace accelmm::test
