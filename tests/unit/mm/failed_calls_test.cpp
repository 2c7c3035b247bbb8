// SPDX-License-Identifier: Apache-2.0
//
// A call that fails leaves every byte of an allocator as it was: all memory that its create() took is
// compared.
#include <accelmm/handle_table.hpp>
#include <accelmm/page_allocator.hpp>
#include <accelmm/slab.hpp>
#include <accelmm/va_allocator.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <new>
#include <vector>

#include <gtest/gtest.h>

namespace {

// What was allocated while recording, in a list that needs no memory of its own.
struct Block {
  void* memory;
  std::size_t size;
};
Block blocks[4096];
std::size_t block_count = 0;
bool recording = false;

void* record(void* memory, std::size_t size) {
  if (memory == nullptr) std::abort();
  if (recording && block_count < std::size(blocks)) blocks[block_count++] = {memory, size};
  return memory;
}

// Not inlined: where g++ sees free() take what operator new returned, it warns of a mismatch.
[[gnu::noinline]] void give(void* memory) {
  for (std::size_t i = 0; i < block_count; ++i)
    if (blocks[i].memory == memory) blocks[i] = blocks[--block_count];
  std::free(memory);
}

}  // namespace

void* operator new(std::size_t size) {
  return record(std::malloc(size), size);
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  return record(std::malloc(size), size);
}
void* operator new[](std::size_t size) {
  return record(std::malloc(size), size);
}
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept {
  return record(std::malloc(size), size);
}
void* operator new(std::size_t size, std::align_val_t alignment) {
  const auto bytes = static_cast<std::size_t>(alignment);
  return record(std::aligned_alloc(bytes, (size + bytes - 1) / bytes * bytes), size);
}
void* operator new[](std::size_t size, std::align_val_t alignment) {
  return operator new(size, alignment);
}
void operator delete(void* memory) noexcept {
  give(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
  operator delete(memory);
}
void operator delete[](void* memory) noexcept {
  operator delete(memory);
}
void operator delete[](void* memory, std::size_t) noexcept {
  operator delete(memory);
}
void operator delete(void* memory, std::align_val_t) noexcept {
  operator delete(memory);
}
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  operator delete(memory);
}
void operator delete[](void* memory, std::align_val_t) noexcept {
  operator delete(memory);
}
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept {
  operator delete(memory);
}

namespace accelmm {
namespace {

constexpr std::uint64_t page_bytes = 4096;

/// Records what is allocated until the first look at it.
class Recording {
 public:
  Recording() {
    block_count = 0;
    recording = true;
  }
  ~Recording() { recording = false; }
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;
};

std::vector<std::byte> bytes_of_all_blocks() {
  std::size_t size = 0;
  for (std::size_t i = 0; i < block_count; ++i) size += blocks[i].size;
  std::vector<std::byte> all(size);
  std::size_t at = 0;
  for (std::size_t i = 0; i < block_count; ++i) {
    std::memcpy(all.data() + at, blocks[i].memory, blocks[i].size);
    at += blocks[i].size;
  }
  return all;
}

/// Whether a call fails with `code` and changes no byte.
testing::AssertionResult fails_unchanged(Errc code, const std::function<Errc()>& call) {
  recording = false;  // not what this function takes itself
  const auto before = bytes_of_all_blocks();
  const Errc got = call();
  const auto after = bytes_of_all_blocks();
  if (got != code) return testing::AssertionFailure() << "failed with " << static_cast<int>(got);
  if (before.empty()) return testing::AssertionFailure() << "nothing was recorded";
  if (before.size() != after.size() || std::memcmp(before.data(), after.data(), before.size()) != 0)
    return testing::AssertionFailure() << "something changed";
  return testing::AssertionSuccess();
}

template <class T>
Errc code_of(const Result<T>& result) {
  return result ? Errc{} : result.error().code;
}

Extent extent_of(std::uint64_t page, std::uint64_t count) {
  return {RegionOffset(page * page_bytes), ByteCount(count * page_bytes)};
}

TEST(FailedCalls, LeaveEveryByteOfAPageAllocatorAsItWas) {
  Recording all;
  auto made = PageAllocator::create({.size = 16_MiB, .contents = Contents::zeros});
  PageAllocator& pages = *made;
  // Chunks that are whole, of their own, parts, and full; single pages of a lease.
  const auto lone = pages.allocate(2_MiB, Alignment(2 << 20)).value();
  const auto large = pages.allocate(5_MiB, Alignment(1)).value();
  const auto single = pages.allocate(4_KiB).value();
  ASSERT_TRUE(pages.free({large.offset, 64_KiB}).has_value());
  ASSERT_TRUE(pages.poison(extent_of(4000, 3)).has_value());
  // The first refusal ends leases and empties stacks: afterwards there is nothing left to gather.
  ASSERT_EQ(Errc::no_memory, code_of(pages.allocate(15_MiB)));

  const auto refused = [&](const PageAllocator::Request& request) {
    return fails_unchanged(Errc::no_memory, [&] { return code_of(pages.allocate(request)); });
  };
  EXPECT_TRUE(refused({.size = 15_MiB}));
  EXPECT_TRUE(refused({.size = 4_KiB,
                       .alignment = Alignment(std::uint64_t{1} << 40),
                       .within = {RegionOffset(4096), RegionOffset(16 << 20)}}));
  EXPECT_TRUE(refused({.size = 3_MiB, .within = {large.offset, large.end()}}));
  EXPECT_TRUE(refused({.size = 14_MiB, .placement = Placement::top_down}));
  EXPECT_TRUE(refused({.size = 14_MiB, .contents = Contents::zeros}));
  EXPECT_TRUE(
      fails_unchanged(Errc::no_memory, [&] { return code_of(pages.allocate_scattered(15_MiB)); }));
  EXPECT_TRUE(
      fails_unchanged(Errc::invalid_argument, [&] { return code_of(pages.allocate(0_B)); }));

  const auto not_freed = [&](Extent extent) {
    return fails_unchanged(Errc::invalid_argument, [&] { return code_of(pages.free(extent)); });
  };
  EXPECT_TRUE(not_freed({large.offset, 64_KiB}));        // free already
  EXPECT_TRUE(not_freed({large.offset, large.length}));  // free in part
  EXPECT_TRUE(not_freed({lone.offset, 4_MiB + 8_MiB}));  // ends in what is free
  EXPECT_TRUE(not_freed({single.offset + 1_B, 4_KiB}));
  EXPECT_TRUE(not_freed({single.offset, 0_B}));
  EXPECT_TRUE(not_freed({RegionOffset(16 << 20), 4_KiB}));
  EXPECT_TRUE(not_freed(extent_of(4001, 1)));  // poisoned
  EXPECT_TRUE(fails_unchanged(
      Errc::address_in_use, [&] { return code_of(pages.reserve({large.end() - 4_KiB, 8_KiB})); }));
  EXPECT_TRUE(fails_unchanged(Errc::invalid_argument,
                              [&] { return code_of(pages.poison({single.offset, 1_B})); }));
  pages.validate();
}

// Hands out pages of a region, until it is told not to.
class Source final : public SlabSource {
 public:
  Result<Extent> grow(ByteCount size, Alignment alignment) override {
    if (closed) return fail(Errc::no_memory, "closed");
    at = (at + alignment.value() - 1) & ~(alignment.value() - 1);
    const Extent extent{RegionOffset(at), size};
    at += size.value();
    return extent;
  }
  void give_back(Extent) override {}
  std::uint64_t at = 0;
  bool closed = false;
};

TEST(FailedCalls, LeaveEveryByteOfASlabAsItWas) {
  Source source;
  Recording all;
  auto made = Slab::create({.source = &source, .region = 64_MiB});
  Slab& slab = *made;
  std::vector<RegionOffset> live;
  for (int i = 0; i < 500; ++i) live.push_back(slab.allocate(256_B).value().offset);
  ASSERT_TRUE(slab.free(live[77]).has_value());
  source.closed = true;
  while (slab.allocate(256_B)) {
  }
  ASSERT_TRUE(slab.free(live[78]).has_value());

  const auto not_freed = [&](RegionOffset offset) {
    return fails_unchanged(Errc::invalid_argument, [&] { return code_of(slab.free(offset)); });
  };
  EXPECT_TRUE(not_freed(live[78]));
  EXPECT_TRUE(not_freed(live[79] + 1_B));
  EXPECT_TRUE(not_freed(RegionOffset(60 << 20)));
  EXPECT_TRUE(not_freed(RegionOffset(~std::uint64_t{0})));
  EXPECT_TRUE(fails_unchanged(Errc::invalid_argument, [&] { return code_of(slab.allocate(0_B)); }));
  EXPECT_TRUE(
      fails_unchanged(Errc::invalid_argument, [&] { return code_of(slab.allocate(17_KiB)); }));
  const RegionOffset bulk[] = {live[0], live[1], live[78]};
  EXPECT_TRUE(
      fails_unchanged(Errc::invalid_argument, [&] { return code_of(slab.free_bulk(bulk)); }));
  slab.validate();
}

TEST(FailedCalls, LeaveEveryByteOfAVaAllocatorAsItWas) {
  Recording all;
  const Range<DeviceAddr> range{DeviceAddr(0x10000), DeviceAddr(0x1000000)};
  auto made = VaAllocator::create(range, Alignment(page_bytes));
  VaAllocator& space = *made;
  std::vector<Range<DeviceAddr>> live;
  for (std::uint64_t i = 1; i < 90; ++i)
    live.push_back(space.allocate(ByteCount(i * page_bytes), Alignment(page_bytes)).value());
  for (std::size_t i = 0; i < live.size(); i += 3)
    ASSERT_TRUE(space.free(live[i].begin).has_value());

  EXPECT_TRUE(
      fails_unchanged(Errc::address_in_use, [&] { return code_of(space.allocate_at(live[1])); }));
  EXPECT_TRUE(fails_unchanged(Errc::address_in_use,
                              [&] { return code_of(space.allocate_at(live[0], 4_KiB)); }));
  EXPECT_TRUE(
      fails_unchanged(Errc::invalid_argument, [&] { return code_of(space.free(live[0].begin)); }));
  EXPECT_TRUE(fails_unchanged(Errc::invalid_argument,
                              [&] { return code_of(space.free(live[1].begin + 4_KiB)); }));
  EXPECT_TRUE(fails_unchanged(Errc::no_memory, [&] {
    return code_of(space.allocate(ByteCount(0x2000000), Alignment(page_bytes)));
  }));
  EXPECT_TRUE(fails_unchanged(Errc::invalid_argument, [&] {
    return code_of(space.allocate(ByteCount(0), Alignment(page_bytes)));
  }));
  EXPECT_TRUE(fails_unchanged(Errc::invalid_argument,
                              [&] { return code_of(space.release(live[1].begin)); }));
  space.validate();
}

}  // namespace
}  // namespace accelmm
