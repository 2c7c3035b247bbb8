// SPDX-License-Identifier: Apache-2.0
#include "unit/mm/heap_memory.hpp"

#include <accelmm/jemalloc_heap.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <dlfcn.h>
#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

JemallocHeap make(HeapSource& source) {
  auto heap = JemallocHeap::create({.source = &source});
  ACCELMM_CHECK(heap.has_value());
  return std::move(*heap);
}

template <class T>
Errc code(const Result<T>& result) {
  return result ? Errc{} : result.error().code;
}

bool holds_only(const void* begin, std::uint64_t size, std::byte byte) {
  const auto* const bytes = static_cast<const std::byte*>(begin);
  return *bytes == byte && std::memcmp(bytes, bytes + 1, size - 1) == 0;
}

// Sanitizers replace malloc themselves.
#if defined(__SANITIZE_THREAD__)
constexpr bool malloc_is_replaced = true;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
constexpr bool malloc_is_replaced = true;
#else
constexpr bool malloc_is_replaced = heap_is_watched;
#endif
#else
constexpr bool malloc_is_replaced = heap_is_watched;
#endif

constexpr std::uint64_t sizes[] = {2, 16, 100, 4096, 16384, 20000, 100000, 3000000, 20000000};

TEST(JemallocHeap, GivesPiecesOfItsChunksThatHoldWhatIsWritten) {
  MappedSource source;
  {
    JemallocHeap heap = make(source);
    std::vector<HeapPiece> pieces;
    for (const std::uint64_t size : sizes) {
      const auto piece = heap.allocate(ByteCount(size));
      ASSERT_TRUE(piece) << size;
      EXPECT_GE(piece->size.value(), size);
      EXPECT_TRUE(source.covers(piece->pointer, piece->size.value()));
      EXPECT_EQ(source.address_of(piece->pointer), piece->address.value());
      std::memset(piece->pointer, static_cast<int>(pieces.size()), size);
      pieces.push_back(*piece);
    }
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      EXPECT_TRUE(holds_only(pieces[i].pointer, sizes[i], static_cast<std::byte>(i)));
      EXPECT_TRUE(heap.free(pieces[i].pointer));
    }
    heap.trim();
    EXPECT_EQ(0U, source.outstanding());
    ASSERT_TRUE(heap.allocate(100_KiB));
  }
  EXPECT_EQ(0U, source.outstanding()) << "its end gives live pieces back";
}

TEST(JemallocHeap, WritesNothingToTheMemory) {
  MappedSource source(MappedSource::Memory::unreachable);
  JemallocHeap heap = make(source);
  for (int round = 0; round < 3; ++round) {
    std::vector<void*> pieces;
    for (const std::uint64_t size : sizes) {
      const auto piece = heap.allocate(ByteCount(size));
      ASSERT_TRUE(piece);
      pieces.push_back(piece->pointer);
    }
    for (void* pointer : pieces) ASSERT_TRUE(heap.free(pointer));
    heap.trim();
  }
}

TEST(JemallocHeap, AlignsAndZeroFills) {
  MappedSource source;
  source.fill_with(std::byte{0xff});
  JemallocHeap heap = make(source);
  for (std::uint64_t alignment = 1; alignment <= 2 << 20; alignment *= 2) {
    const auto piece = heap.allocate(ByteCount(5000), Alignment(alignment), ZeroFill::yes);
    ASSERT_TRUE(piece);
    EXPECT_EQ(0U, reinterpret_cast<std::uintptr_t>(piece->pointer) % alignment);
    EXPECT_EQ(0U, piece->address.value() % alignment);
    EXPECT_TRUE(holds_only(piece->pointer, 5000, std::byte{0}));
  }
  EXPECT_EQ(Errc::invalid_argument, code(heap.allocate(1_B, Alignment(4 << 20))));
  EXPECT_EQ(Errc::invalid_argument, code(heap.allocate(0_B)));
}

TEST(JemallocHeap, TheSourcesErrorsComeThrough) {
  MappedSource source;
  JemallocHeap heap = make(source);
  source.allow(1);
  const auto piece = heap.allocate(64_B);
  ASSERT_TRUE(piece);
  EXPECT_EQ(Errc::over_quota, code(heap.allocate(10_MiB)));
  EXPECT_EQ(Errc::over_quota, code(heap.reallocate(piece->pointer, 10_MiB)));
  EXPECT_EQ(Errc::no_memory, code(heap.allocate(ByteCount(~std::uint64_t{0}))));
  EXPECT_TRUE(heap.free(piece->pointer));
}

TEST(JemallocHeap, RefusesForeignPointers) {
  MappedSource source;
  JemallocHeap heap = make(source);
  ASSERT_TRUE(heap.allocate(64_B));
  int local = 0;
  EXPECT_EQ(Errc::invalid_argument, code(heap.free(&local)));
  EXPECT_EQ(Errc::invalid_argument, code(heap.free(nullptr)));
  EXPECT_EQ(Errc::invalid_argument, code(heap.usable_size(&local)));
  EXPECT_EQ(Errc::invalid_argument, code(heap.reallocate(&local, 10_B)));
}

TEST(JemallocHeap, ReallocatingKeepsWhatThePieceHeld) {
  MappedSource source;
  JemallocHeap heap = make(source);
  auto piece = heap.allocate(100_B);
  ASSERT_TRUE(piece);
  std::memset(piece->pointer, 0x44, 100);
  for (const std::uint64_t size : {1000U, 100000U, 5000000U, 200U}) {
    piece = heap.reallocate(piece->pointer, ByteCount(size));
    ASSERT_TRUE(piece);
    EXPECT_TRUE(holds_only(piece->pointer, 100, std::byte{0x44}));
    EXPECT_EQ(source.address_of(piece->pointer), piece->address.value());
  }
}

TEST(JemallocHeap, SeveralHeapsAndThreadsDoNotMix) {
  MappedSource sources[2];
  JemallocHeap heaps[2] = {make(sources[0]), make(sources[1])};
  std::vector<std::thread> threads;
  for (unsigned number = 0; number < 4; ++number)
    threads.emplace_back([&, number] {
      std::mt19937 random(number);
      std::vector<HeapPiece> pieces;
      JemallocHeap& heap = heaps[number % 2];
      for (int step = 0; step < 5000; ++step) {
        if (pieces.size() > 50 || (!pieces.empty() && random() % 2 == 0)) {
          std::swap(pieces[random() % pieces.size()], pieces.back());
          ACCELMM_CHECK(holds_only(pieces.back().pointer, pieces.back().size.value(),
                                   static_cast<std::byte>(number)));
          ACCELMM_CHECK(heap.free(pieces.back().pointer));
          pieces.pop_back();
          continue;
        }
        const auto piece =
            heap.allocate(ByteCount(2 + random() % (random() % 8 == 0 ? 100000 : 2000)));
        ACCELMM_CHECK(piece.has_value());
        ACCELMM_CHECK(sources[number % 2].covers(piece->pointer, piece->size.value()));
        std::memset(piece->pointer, static_cast<int>(number), piece->size.value());
        pieces.push_back(*piece);
      }
      for (const HeapPiece& piece : pieces) ACCELMM_CHECK(heap.free(piece.pointer));
    });
  for (auto& thread : threads) thread.join();
  for (auto& heap : heaps) heap.trim();
  EXPECT_EQ(0U, sources[0].outstanding() + sources[1].outstanding());
}

TEST(JemallocHeap, SaysNoDeviceInAChildThatDoesNotHaveTheMemory) {
  MappedSource source;
  JemallocHeap heap = make(source);
  const auto piece = heap.allocate(64_B);
  ASSERT_TRUE(piece);
  source.vanish();
  EXPECT_EQ(Errc::no_device, code(heap.allocate(64_B)));
  EXPECT_EQ(Errc::no_device, code(heap.free(piece->pointer)));
  EXPECT_EQ(Errc::no_device, code(heap.usable_size(piece->pointer)));
  EXPECT_EQ(Errc::no_device, code(heap.reallocate(piece->pointer, 64_B)));
  heap.trim();
  EXPECT_EQ(0U, heap.statistics().chunks);
  source.appear();
  EXPECT_EQ(1U, heap.statistics().chunks);
}

TEST(JemallocHeap, LeavesTheProgramsMallocAlone) {
  if (malloc_is_replaced) GTEST_SKIP() << "the sanitizer has replaced malloc";
  MappedSource source;
  JemallocHeap heap = make(source);
  ASSERT_TRUE(heap.allocate(64_B));
  for (const char* name :
       {"malloc", "free", "calloc", "realloc", "aligned_alloc", "pthread_create"}) {
    Dl_info info{};
    void* const found = ::dlsym(RTLD_DEFAULT, name);
    ASSERT_NE(nullptr, found);
    ASSERT_NE(0, ::dladdr(found, &info));
    EXPECT_NE(std::string::npos, std::string(info.dli_fname).find("libc.so")) << name;
  }
  // And where this very program goes when it calls it, whatever the dynamic table says.
  void* (*volatile own)(std::size_t) = &std::malloc;
  Dl_info info{};
  ASSERT_NE(0, ::dladdr(reinterpret_cast<void*>(own), &info));
  EXPECT_NE(std::string::npos, std::string(info.dli_fname).find("libc.so"));
  const auto memory = std::make_unique<char[]>(100);
  EXPECT_FALSE(source.covers(memory.get(), 100));
}

}  // namespace
}  // namespace accelmm::test
