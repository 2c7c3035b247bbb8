// SPDX-License-Identifier: Apache-2.0
#include "mm/backing/word_copy.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <thread>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

constexpr std::size_t largest_offset = 9;  // every alignment to a word, and one more
constexpr std::size_t largest_size = 34;   // heads, up to four words, tails
using Bytes = std::array<std::byte, 64>;

Bytes numbered(unsigned first) {
  Bytes bytes;
  for (std::size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = std::byte(static_cast<unsigned char>(first + i));
  return bytes;
}

template <class Check>
void for_every_place(Check check) {
  for (std::size_t offset = 0; offset <= largest_offset; ++offset)
    for (std::size_t size = 0; size <= largest_size; ++size) check(offset, size);
}

TEST(WordCopy, ReadingCopiesExactlyTheRangeAtEveryAlignment) {
  alignas(8) const Bytes shared = numbered(1);
  for_every_place([&](std::size_t offset, std::size_t size) {
    Bytes into = numbered(100);
    Bytes expected = into;
    std::memcpy(expected.data() + 3, shared.data() + offset, size);
    copy_from_shared(into.data() + 3, shared.data() + offset, size);
    ASSERT_EQ(expected, into) << offset << " " << size;
  });
}

TEST(WordCopy, WritingCopiesExactlyTheRangeAtEveryAlignment) {
  const Bytes from = numbered(1);
  for_every_place([&](std::size_t offset, std::size_t size) {
    alignas(8) Bytes shared = numbered(100);
    Bytes expected = shared;
    std::memcpy(expected.data() + offset, from.data() + 3, size);
    copy_to_shared(shared.data() + offset, from.data() + 3, size);
    ASSERT_EQ(expected, shared) << offset << " " << size;
  });
}

TEST(WordCopy, ZeroingTouchesExactlyTheRangeAtEveryAlignment) {
  for_every_place([&](std::size_t offset, std::size_t size) {
    alignas(8) Bytes shared = numbered(100);
    Bytes expected = shared;
    std::memset(expected.data() + offset, 0, size);
    zero_shared(shared.data() + offset, size);
    ASSERT_EQ(expected, shared) << offset << " " << size;
  });
}

TEST(WordCopy, AnAlignedWordIsSeenOldOrNewWhateverIsAroundIt) {
  alignas(8) Bytes shared = {};
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    // 3 bytes, the word at 8, 5 bytes: all ones, then all zeroes, over and over.
    Bytes ones;
    ones.fill(std::byte{0xff});
    constexpr Bytes zeroes = {};
    while (!stop) {
      copy_to_shared(shared.data() + 5, ones.data(), 16);
      copy_to_shared(shared.data() + 5, zeroes.data(), 16);
    }
  });
  for (int i = 0; i < 100'000; ++i) {
    std::uint64_t word = 0;
    copy_from_shared(reinterpret_cast<std::byte*>(&word), shared.data() + 8, sizeof(word));
    if (word != 0 && word != UINT64_MAX) {
      ADD_FAILURE() << std::hex << word;
      break;
    }
  }
  stop = true;
  writer.join();
}

}  // namespace
}  // namespace accelmm
