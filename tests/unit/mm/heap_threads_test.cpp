// SPDX-License-Identifier: Apache-2.0
#include "unit/mm/heap_memory.hpp"

#include <accelmm/heap.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <random>
#include <thread>
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

// First and last bytes say whose a piece is.
void mark(const HeapPiece& piece, std::uint64_t size, std::byte byte) {
  auto* const bytes = static_cast<std::byte*>(piece.pointer);
  const std::uint64_t part = std::min<std::uint64_t>(size, 64);
  std::memset(bytes, static_cast<int>(byte), part);
  std::memset(bytes + size - part, static_cast<int>(byte), part);
}
bool is_marked(const HeapPiece& piece, std::uint64_t size, std::byte byte) {
  const auto* const bytes = static_cast<const std::byte*>(piece.pointer);
  const std::uint64_t part = std::min<std::uint64_t>(size, 64);
  return bytes[0] == byte && bytes[part - 1] == byte && bytes[size - part] == byte &&
         bytes[size - 1] == byte;
}

std::uint64_t some_size(std::mt19937& random) {
  switch (random() % 16) {
    case 0:
      return 1 + random() % 3000000;
    case 1:
    case 2:
      return 1 + random() % 100000;
    default:
      return 1 + random() % 2000;
  }
}

struct Live {
  HeapPiece piece;
  std::uint64_t size;
  std::byte byte;
};

// What one thread hands to others to free.
struct Exchange {
  std::mutex mutex;
  std::vector<Live> pieces;
};

void work(Heap& heap, Exchange& exchange, unsigned number, int steps) {
  std::mt19937 random(number);
  std::vector<Live> own;
  const auto give = [&](const Live& live) {
    ACCELMM_CHECK(is_marked(live.piece, live.size, live.byte));
    ACCELMM_CHECK(heap.free(live.piece.pointer));
  };
  for (int step = 0; step < steps; ++step) {
    if (number == 0 && step % 200 == 0) heap.trim();
    if (own.size() < 40) {
      const std::uint64_t size = some_size(random);
      const auto piece = heap.allocate(ByteCount(size));
      if (!piece) {
        ACCELMM_CHECK(piece.error().code == Errc::no_memory);
        continue;
      }
      const auto byte = static_cast<std::byte>(number + 1);
      mark(*piece, size, byte);
      own.push_back({*piece, size, byte});
      continue;
    }
    std::swap(own[random() % own.size()], own.back());
    if (random() % 4 != 0) {
      give(own.back());
      own.pop_back();
      continue;
    }
    const std::lock_guard lock(exchange.mutex);
    exchange.pieces.push_back(own.back());
    own.pop_back();
    if (exchange.pieces.size() > 20) {
      own.push_back(exchange.pieces.front());
      exchange.pieces.erase(exchange.pieces.begin());
    }
  }
  for (const Live& live : own) give(live);
}

void storm(Heap::Options options) {
  MappedSource source;
  Heap heap = make(source, options);
  Exchange exchange;
  std::vector<std::thread> threads;
  for (unsigned number = 0; number < 4; ++number)
    threads.emplace_back([&, number] { work(heap, exchange, number, 4000); });
  for (auto& thread : threads) thread.join();
  for (const Live& live : exchange.pieces) ASSERT_TRUE(heap.free(live.piece.pointer));
  heap.validate();
  heap.trim();
  EXPECT_EQ(0U, source.outstanding());
}

TEST(HeapThreads, NoPieceHasTwoOwnersWhileChunksComeAndGo) {
  storm({.dedicated_from = 2_MiB, .spare_chunks = 0});
}
TEST(HeapThreads, NoPieceHasTwoOwnersWithSpareChunks) {
  storm({.spare_chunks = 3});
}
TEST(HeapThreads, NoPieceHasTwoOwnersWhereItIsWatched) {
  storm({.quarantine = {.random = 10, .queue = 10}, .canaries = Heap::Canaries::yes});
}

TEST(HeapThreads, NoChunkIsTrimmedThatIsJustTakenFrom) {
  MappedSource source;
  Heap heap = make(source, {.spare_chunks = 8});
  std::atomic<bool> ended = false;
  std::thread trimming([&] {
    while (!ended) heap.trim();
  });
  std::vector<std::thread> threads;
  for (unsigned number = 0; number < 2; ++number)
    threads.emplace_back([&, number] {
      for (int i = 0; i < 10000; ++i) {
        const auto piece = heap.allocate(1500_KiB);
        ACCELMM_CHECK(piece.has_value());
        mark(*piece, 64, static_cast<std::byte>(number));
        ACCELMM_CHECK(is_marked(*piece, 64, static_cast<std::byte>(number)));
        ACCELMM_CHECK(heap.free(piece->pointer));
      }
    });
  for (auto& thread : threads) thread.join();
  ended = true;
  trimming.join();
  heap.validate();
  heap.trim();
  EXPECT_EQ(0U, source.outstanding());
}

void free_everything_twice(std::uint64_t size, Heap::Options options) {
  MappedSource source;
  Heap heap = make(source, options);
  for (int round = 0; round < 100; ++round) {
    const auto kept = heap.allocate(ByteCount(size));
    const auto piece = heap.allocate(ByteCount(size));
    ASSERT_TRUE(kept && piece);
    std::atomic<int> freed = 0;
    std::atomic<int> ready = 0;
    std::vector<std::thread> threads;
    for (int number = 0; number < 2; ++number)
      threads.emplace_back([&] {
        ++ready;
        while (ready < 2) {
        }
        if (heap.free(piece->pointer)) ++freed;
      });
    for (auto& thread : threads) thread.join();
    ASSERT_EQ(1, freed) << round;
    ASSERT_TRUE(heap.free(kept->pointer));
  }
  heap.validate();
}

TEST(HeapThreads, OfTwoFreesOfALargePieceAtOnceOneSucceeds) {
  free_everything_twice(100000, {});
  free_everything_twice(3000000, {.dedicated_from = 2_MiB});
}
TEST(HeapThreads, OfTwoFreesOfAWatchedPieceAtOnceOneSucceeds) {
  free_everything_twice(100, {.canaries = Heap::Canaries::yes});
}

}  // namespace
}  // namespace accelmm::test
