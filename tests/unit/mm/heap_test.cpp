// SPDX-License-Identifier: Apache-2.0
#include "unit/mm/heap_memory.hpp"

#include <accelmm/heap.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

Heap make(HeapSource& source, Heap::Options options = {}) {
  options.source = &source;
  auto heap = Heap::create(options);
  ACCELMM_CHECK(heap.has_value());
  return std::move(*heap);
}

template <class T>
Errc code(const Result<T>& result) {
  return result ? Errc{} : result.error().code;
}

std::byte* bytes(const HeapPiece& piece) {
  return static_cast<std::byte*>(piece.pointer);
}

bool holds_only(const std::byte* begin, std::uint64_t size, std::byte byte) {
  return *begin == byte && std::memcmp(begin, begin + 1, size - 1) == 0;
}

constexpr std::uint64_t sizes[] = {
    1,     15,    16,      17,      100,           4096,    16384,    16385,
    20000, 65536, 1000000, 2 << 20, (2 << 20) + 1, 5000000, 32 << 20, 40000000};

TEST(Heap, GivesPiecesOfEachSizeThatHoldWhatIsWritten) {
  MappedSource source;
  Heap heap = make(source);
  std::vector<HeapPiece> pieces;
  for (const std::uint64_t size : sizes) {
    const auto piece = heap.allocate(ByteCount(size));
    ASSERT_TRUE(piece) << size;
    EXPECT_GE(piece->size.value(), size);
    EXPECT_TRUE(source.covers(piece->pointer, piece->size.value())) << size;
    std::memset(piece->pointer, static_cast<int>(pieces.size()), size);
    pieces.push_back(*piece);
  }
  heap.validate();
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const auto* const begin = bytes(pieces[i]);
    EXPECT_TRUE(holds_only(begin, sizes[i], static_cast<std::byte>(i)));
    EXPECT_TRUE(heap.free(pieces[i].pointer));
  }
  heap.validate();
  heap.trim();
  EXPECT_EQ(0U, source.outstanding());
}

TEST(Heap, TellsWhereTheDeviceHasEachPiece) {
  MappedSource source;
  Heap heap = make(source);
  for (const std::uint64_t size : sizes) {
    const auto piece = heap.allocate(ByteCount(size));
    ASSERT_TRUE(piece);
    EXPECT_EQ(source.address_of(piece->pointer), piece->address.value()) << size;
    const auto last = heap.device_address(bytes(*piece) + size - 1);
    ASSERT_TRUE(last);
    EXPECT_EQ(piece->address.value() + size - 1, last->value());
    const auto back = heap.pointer_at(*last);
    ASSERT_TRUE(back);
    EXPECT_EQ(bytes(*piece) + size - 1, *back);
  }
  EXPECT_TRUE(heap.has_device_addresses());
}

TEST(Heap, KnowsNoDeviceAddressOutsideItsChunks) {
  MappedSource source;
  Heap heap = make(source);
  const auto piece = heap.allocate(64_B);
  ASSERT_TRUE(piece);
  int local = 0;
  EXPECT_EQ(Errc::invalid_argument, code(heap.device_address(&local)));
  EXPECT_EQ(Errc::invalid_argument, code(heap.device_address(nullptr)));
  EXPECT_EQ(Errc::invalid_argument, code(heap.device_address(source.base() + 2 * 1024 * 1024)));
  EXPECT_EQ(Errc::invalid_argument, code(heap.pointer_at(DeviceAddr(0))));
  EXPECT_EQ(Errc::invalid_argument,
            code(heap.pointer_at(DeviceAddr(MappedSource::first_address - 1))));
}

TEST(Heap, MayHaveNoDeviceAddresses) {
  MappedSource source(MappedSource::Memory::readable, MappedSource::Addresses::none);
  Heap heap = make(source);
  const auto piece = heap.allocate(64_B);
  ASSERT_TRUE(piece);
  EXPECT_EQ(DeviceAddr(), piece->address);
  EXPECT_FALSE(heap.has_device_addresses());
  EXPECT_EQ(Errc::not_supported, code(heap.device_address(piece->pointer)));
  EXPECT_EQ(Errc::invalid_argument, code(heap.pointer_at(DeviceAddr(0))));
  heap.validate();
}

TEST(Heap, AlignsPointerAndDeviceAddress) {
  MappedSource source;
  Heap heap = make(source);
  for (std::uint64_t alignment = 1; alignment <= 64 << 20; alignment *= 2)
    for (const std::uint64_t size : {1U, 48U, 100U, 5000U, 16384U, 16400U, 70000U, 3000000U}) {
      const auto piece = heap.allocate(ByteCount(size), Alignment(alignment));
      ASSERT_TRUE(piece) << alignment << ' ' << size << ' ' << piece.error().what;
      EXPECT_EQ(0U, reinterpret_cast<std::uintptr_t>(piece->pointer) % alignment);
      EXPECT_EQ(0U, piece->address.value() % alignment) << alignment << ' ' << size;
      EXPECT_GE(piece->size.value(), size);
      EXPECT_TRUE(source.covers(piece->pointer, piece->size.value()));
      // What stays live makes the next one lie elsewhere than at the beginning of a slab.
      if (alignment > 4096) {
        ASSERT_TRUE(heap.free(piece->pointer));
      }
    }
  heap.validate();
}

TEST(Heap, WritesNothingToTheMemory) {
  MappedSource source(MappedSource::Memory::unreachable);
  Heap heap = make(source);
  std::vector<HeapPiece> pieces;
  for (int round = 0; round < 3; ++round) {
    for (const std::uint64_t size : sizes) {
      const auto piece = heap.allocate(ByteCount(size), Alignment(round == 1 ? 65536 : 16));
      ASSERT_TRUE(piece);
      pieces.push_back(*piece);
    }
    for (std::size_t i = 0; i < pieces.size(); i += 2)
      ASSERT_TRUE(heap.free(pieces[i].pointer, pieces[i].size));
    for (std::size_t i = 1; i < pieces.size(); i += 2) {
      ASSERT_TRUE(heap.usable_size(pieces[i].pointer));
      ASSERT_TRUE(heap.free(pieces[i].pointer));
    }
    pieces.clear();
    heap.trim();
    heap.validate();
  }
}

TEST(Heap, LeavesTheMemoryAsItWasWhereItIsNotToldToFillIt) {
  MappedSource source;
  source.fill_with(std::byte{0x5a});
  Heap heap = make(source);
  for (const std::uint64_t size : sizes) {
    const auto piece = heap.allocate(ByteCount(size));
    ASSERT_TRUE(piece);
    const auto* const begin = bytes(*piece);
    EXPECT_TRUE(holds_only(begin, piece->size.value(), std::byte{0x5a}));
    ASSERT_TRUE(heap.free(piece->pointer));
  }
}

TEST(Heap, RefusesADoubleFree) {
  MappedSource source;
  Heap heap = make(source);
  for (const std::uint64_t size : sizes) {
    const auto kept = heap.allocate(ByteCount(size));
    const auto piece = heap.allocate(ByteCount(size));
    ASSERT_TRUE(kept && piece);
    EXPECT_TRUE(heap.free(piece->pointer));
    EXPECT_EQ(Errc::invalid_argument, code(heap.free(piece->pointer))) << size;
    EXPECT_EQ(Errc::invalid_argument, code(heap.free(piece->pointer, ByteCount(size))));
    EXPECT_EQ(Errc::invalid_argument, code(heap.usable_size(piece->pointer)));
    EXPECT_EQ(Errc::invalid_argument, code(heap.reallocate(piece->pointer, 1_B)));
    heap.validate();
  }
}

TEST(Heap, RefusesForeignAndInteriorPointers) {
  MappedSource source;
  Heap heap = make(source);
  MappedSource other_source;
  Heap other = make(other_source);
  int local = 0;
  for (const std::uint64_t size : sizes) {
    const auto piece = heap.allocate(ByteCount(size));
    const auto foreign = other.allocate(ByteCount(size));
    ASSERT_TRUE(piece && foreign);
    const auto before = heap.statistics();
    for (void* wrong :
         {static_cast<void*>(&local), static_cast<void*>(nullptr), foreign->pointer,
          static_cast<void*>(bytes(*piece) + 1), static_cast<void*>(bytes(*piece) + 16),
          static_cast<void*>(bytes(*piece) + 4096), static_cast<void*>(source.base() - 4096),
          static_cast<void*>(source.base() + MappedSource::range_size.value())}) {
      EXPECT_EQ(Errc::invalid_argument, code(heap.free(wrong))) << size << ' ' << wrong;
      EXPECT_EQ(Errc::invalid_argument, code(heap.usable_size(wrong)));
      EXPECT_EQ(Errc::invalid_argument, code(heap.reallocate(wrong, 100_B)));
    }
    EXPECT_EQ(before.small.live_objects, heap.statistics().small.live_objects);
    EXPECT_EQ(before.large_pieces, heap.statistics().large_pieces);
    EXPECT_TRUE(heap.usable_size(piece->pointer));
    heap.validate();
  }
}

TEST(Heap, RefusesNoBytesAndMoreThanItsRange) {
  MappedSource source;
  Heap heap = make(source);
  EXPECT_EQ(Errc::invalid_argument, code(heap.allocate(0_B)));
  EXPECT_EQ(Errc::invalid_argument, code(heap.allocate(0_B, Alignment(64))));
  for (const std::uint64_t size :
       {std::uint64_t{2} << 30, std::uint64_t{1} << 44, std::uint64_t{1} << 50,
        ~std::uint64_t{0} - 100, ~std::uint64_t{0}})
    for (const std::uint64_t alignment : {std::uint64_t{16}, std::uint64_t{1} << 30})
      EXPECT_EQ(Errc::no_memory, code(heap.allocate(ByteCount(size), Alignment(alignment))))
          << size;
  EXPECT_EQ(Errc::no_memory, code(heap.allocate(1_B, Alignment(std::uint64_t{1} << 63))));
  EXPECT_EQ(0U, source.outstanding());
}

TEST(Heap, LooksAtTheSizeOfASizedFree) {
  MappedSource source;
  Heap heap = make(source);
  for (const std::uint64_t size : sizes) {
    const auto piece = heap.allocate(ByteCount(size));
    ASSERT_TRUE(piece);
    EXPECT_EQ(Errc::invalid_argument,
              code(heap.free(piece->pointer, ByteCount(piece->size.value() + 1))));
    EXPECT_TRUE(heap.free(piece->pointer, ByteCount(size)));
  }
}

TEST(Heap, GrowsByWholeChunksAndByLargerOnesForLargerRequests) {
  MappedSource source;
  Heap heap = make(source, {.chunk = 4_MiB});
  ASSERT_TRUE(heap.allocate(16_B));
  EXPECT_EQ(4_MiB, ByteCount(source.outstanding()));
  ASSERT_TRUE(heap.allocate(100_KiB));
  EXPECT_EQ(4_MiB, ByteCount(source.outstanding()));
  ASSERT_TRUE(heap.allocate(ByteCount(5 << 20)));
  EXPECT_EQ(10_MiB, ByteCount(source.outstanding()));
  EXPECT_EQ(0U, heap.statistics().dedicated_chunks);
}

TEST(Heap, GivesAHugePieceAChunkOfItsOwnAndBackAtOnce) {
  MappedSource source;
  Heap heap = make(source, {.dedicated_from = 8_MiB});
  const auto piece = heap.allocate(8_MiB);
  ASSERT_TRUE(piece);
  EXPECT_EQ(1U, heap.statistics().dedicated_chunks);
  heap.validate();
  ASSERT_TRUE(heap.free(piece->pointer));
  EXPECT_EQ(0U, source.chunks());
  heap.validate();
}

TEST(Heap, NoPieceReachesFromOneChunkIntoAnother) {
  MappedSource source;
  Heap heap = make(source, {.spare_chunks = 100});
  std::vector<void*> pieces;
  for (int i = 0; i < 20; ++i) {
    const auto piece = heap.allocate(2_MiB);
    ASSERT_TRUE(piece);
    pieces.push_back(piece->pointer);
  }
  for (void* pointer : pieces) ASSERT_TRUE(heap.free(pointer));
  for (const std::uint64_t size : {3U << 20, 5U << 20, 9U << 20}) {
    const auto piece = heap.allocate(ByteCount(size));
    ASSERT_TRUE(piece);
    EXPECT_TRUE(source.covers(piece->pointer, piece->size.value()));
  }
}

TEST(Heap, KeepsASpareChunkAndGivesTheOthersBack) {
  MappedSource source;
  Heap heap = make(source, {.spare_chunks = 1});
  std::vector<void*> pieces;
  for (int i = 0; i < 5; ++i) pieces.push_back(heap.allocate(ByteCount(1500000))->pointer);
  EXPECT_EQ(5U, source.chunks());
  for (void* pointer : pieces) ASSERT_TRUE(heap.free(pointer));
  EXPECT_EQ(1U, source.chunks());
  const std::uint64_t calls = source.calls();
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(heap.free(heap.allocate(ByteCount(1500000))->pointer));
  EXPECT_EQ(calls, source.calls()) << "a piece at the edge of a chunk makes the source work";
  EXPECT_EQ(2_MiB, heap.trim());
  EXPECT_EQ(0U, source.chunks());
  heap.validate();
}

TEST(Heap, GivesBackTheChunksThatSmallPiecesLeft) {
  MappedSource source;
  Heap heap = make(source);
  std::vector<void*> pieces;
  for (int i = 0; i < 60000; ++i) pieces.push_back(heap.allocate(64_B)->pointer);
  EXPECT_GE(source.chunks(), 2U);
  const auto kept = heap.allocate(100_KiB);
  for (void* pointer : pieces) ASSERT_TRUE(heap.free(pointer));
  heap.trim();
  EXPECT_EQ(1U, source.chunks());
  ASSERT_TRUE(heap.free(kept->pointer));
  EXPECT_EQ(2_MiB, heap.trim());
  EXPECT_EQ(0U, source.outstanding());
}

TEST(Heap, ReallocatesInPlaceWhereItCan) {
  if (heap_is_watched) GTEST_SKIP() << "a watched heap always moves";
  MappedSource source;
  Heap heap = make(source);
  const auto small = heap.allocate(100_B);
  ASSERT_TRUE(small);
  EXPECT_EQ(small->pointer, heap.reallocate(small->pointer, 112_B)->pointer);
  EXPECT_EQ(small->pointer, heap.reallocate(small->pointer, 60_B)->pointer);
  const auto large = heap.allocate(100_KiB);
  ASSERT_TRUE(large);
  const auto grown = heap.reallocate(large->pointer, 200_KiB);
  ASSERT_TRUE(grown);
  EXPECT_EQ(large->pointer, grown->pointer);
  EXPECT_EQ(200_KiB, grown->size);
  heap.validate();
  const auto shrunk = heap.reallocate(large->pointer, 20_KiB);
  ASSERT_TRUE(shrunk);
  EXPECT_EQ(large->pointer, shrunk->pointer);
  EXPECT_EQ(20_KiB, *heap.usable_size(large->pointer));
  heap.validate();
  // What is behind it is taken: it has to move.
  const auto behind = heap.allocate(100_KiB);
  ASSERT_TRUE(behind);
  const auto moved = heap.reallocate(large->pointer, 300_KiB);
  ASSERT_TRUE(moved);
  EXPECT_TRUE(moved->pointer != large->pointer || behind->pointer < large->pointer);
  heap.validate();
}

TEST(Heap, ReallocatingKeepsWhatThePieceHeld) {
  MappedSource source;
  Heap heap = make(source);
  auto piece = heap.allocate(10_B);
  ASSERT_TRUE(piece);
  std::memset(piece->pointer, 0x33, 10);
  std::uint64_t held = 10;
  for (const std::uint64_t size :
       {100U, 5000U, 30000U, 3000000U, 40000000U, 36000000U, 50000U, 700U, 20U}) {
    piece = heap.reallocate(piece->pointer, ByteCount(size));
    ASSERT_TRUE(piece) << size;
    held = std::min(held, size);
    const auto* const begin = bytes(*piece);
    EXPECT_TRUE(holds_only(begin, held, std::byte{0x33}));
    std::memset(piece->pointer, 0x33, size);
    held = size;
    EXPECT_EQ(source.address_of(piece->pointer), piece->address.value());
    heap.validate();
  }
  EXPECT_EQ(1U, heap.statistics().small.live_objects + heap.statistics().large_pieces);
}

TEST(Heap, AFailedReallocationLeavesThePiece) {
  MappedSource source;
  Heap heap = make(source);
  const auto piece = heap.allocate(100_B);
  ASSERT_TRUE(piece);
  source.allow(0);
  EXPECT_EQ(Errc::over_quota, code(heap.reallocate(piece->pointer, 10_MiB)));
  EXPECT_EQ(Errc::invalid_argument, code(heap.reallocate(piece->pointer, 0_B)));
  EXPECT_TRUE(heap.free(piece->pointer));
}

TEST(Heap, ZeroFillsWhatMayHoldSomethingElse) {
  for (const std::byte before : {std::byte{0}, std::byte{0xff}}) {
    MappedSource source;
    source.fill_with(before);
    Heap heap = make(source);
    for (int round = 0; round < 2; ++round)
      for (const std::uint64_t size : sizes) {
        const auto piece = heap.allocate(ByteCount(size), Alignment(16), ZeroFill::yes);
        ASSERT_TRUE(piece);
        EXPECT_TRUE(holds_only(bytes(*piece), size, std::byte{0})) << size;
        std::memset(piece->pointer, 0xff, size);
        ASSERT_TRUE(heap.free(piece->pointer));
      }
  }
}

TEST(Heap, ZeroFillOfAFreshLargePieceTouchesNothing) {
  if (heap_is_watched) GTEST_SKIP() << "a watched heap always fills";
  MappedSource source(MappedSource::Memory::unreachable);
  Heap heap = make(source);
  EXPECT_TRUE(heap.allocate(1_MiB, Alignment(16), ZeroFill::yes));
  EXPECT_TRUE(heap.allocate(64_MiB, Alignment(16), ZeroFill::yes));
}

TEST(Heap, CountsWhatItHas) {
  MappedSource source;
  Heap heap = make(source);
  EXPECT_EQ(0U, heap.statistics().from_source.value());
  const auto small = heap.allocate(64_B);
  const auto large = heap.allocate(100_KiB);
  ASSERT_TRUE(small && large);
  const auto both = heap.statistics();
  EXPECT_EQ(1U, both.small.live_objects);
  EXPECT_EQ(1U, both.large_pieces);
  EXPECT_GE(both.large, 100_KiB);
  EXPECT_EQ(1U, both.chunks);
  EXPECT_EQ(ByteCount(source.outstanding()), both.from_source);
  EXPECT_EQ(both.from_source, both.free + both.large + both.small.from_source);
  EXPECT_GT(both.metadata, 0_B);
}

TEST(Heap, GivesEverythingBackWhenItEnds) {
  MappedSource source;
  {
    Heap heap = make(source);
    for (const std::uint64_t size : sizes) ASSERT_TRUE(heap.allocate(ByteCount(size)));
    EXPECT_NE(0U, source.outstanding());
  }
  EXPECT_EQ(0U, source.outstanding());
}

TEST(Heap, CanBeMoved) {
  MappedSource source;
  MappedSource other_source;
  Heap heap = make(source);
  const auto piece = heap.allocate(64_B);
  Heap other = make(other_source);
  ASSERT_TRUE(other.allocate(64_B));
  other = std::move(heap);
  EXPECT_EQ(0U, other_source.outstanding());
  EXPECT_TRUE(other.free(piece->pointer));
}

TEST(Heap, SaysNoDeviceInAChildThatDoesNotHaveTheMemory) {
  MappedSource source;
  {
    Heap heap = make(source);
    const auto piece = heap.allocate(64_B);
    ASSERT_TRUE(piece);
    source.vanish();
    EXPECT_EQ(Errc::no_device, code(heap.allocate(64_B)));
    EXPECT_EQ(Errc::no_device, code(heap.allocate(64_KiB)));
    EXPECT_EQ(Errc::no_device, code(heap.allocate(64_B, Alignment(64))));
    EXPECT_EQ(Errc::no_device, code(heap.free(piece->pointer)));
    EXPECT_EQ(Errc::no_device, code(heap.free(piece->pointer, 64_B)));
    EXPECT_EQ(Errc::no_device, code(heap.usable_size(piece->pointer)));
    EXPECT_EQ(Errc::no_device, code(heap.reallocate(piece->pointer, 640_B)));
    EXPECT_EQ(Errc::no_device, code(heap.device_address(piece->pointer)));
    EXPECT_EQ(Errc::no_device, code(heap.pointer_at(piece->address)));
    EXPECT_EQ(0U, heap.trim().value());
    EXPECT_EQ(0U, heap.statistics().chunks);
    EXPECT_FALSE(heap.damage());
    source.appear();
    EXPECT_TRUE(heap.free(piece->pointer));
  }
  EXPECT_EQ(0U, source.outstanding());
}

}  // namespace
}  // namespace accelmm::test
