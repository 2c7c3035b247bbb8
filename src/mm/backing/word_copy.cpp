// SPDX-License-Identifier: Apache-2.0
#include "mm/backing/word_copy.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace accelmm {

namespace {

using Word = std::uint64_t;

// How many bytes lie before the first aligned word, at most `size`.
std::size_t head_size(const std::byte* shared, std::size_t size) {
  const auto misaligned = reinterpret_cast<std::uintptr_t>(shared) % sizeof(Word);
  return misaligned == 0 ? 0 : std::min(sizeof(Word) - misaligned, size);
}

const Word* word_at(const std::byte* shared) {
  return static_cast<const Word*>(static_cast<const void*>(shared));
}
Word* word_at(std::byte* shared) {
  return static_cast<Word*>(static_cast<void*>(shared));
}

const unsigned char* byte_at(const std::byte* shared) {
  return reinterpret_cast<const unsigned char*>(shared);
}
unsigned char* byte_at(std::byte* shared) {
  return reinterpret_cast<unsigned char*>(shared);
}

void load_bytes(std::byte* into, const std::byte* shared, std::size_t size) {
  for (std::size_t i = 0; i < size; ++i)
    into[i] = std::byte{__atomic_load_n(byte_at(shared + i), __ATOMIC_ACQUIRE)};
}

void store_bytes(std::byte* shared, const std::byte* from, std::size_t size) {
  for (std::size_t i = 0; i < size; ++i)
    __atomic_store_n(byte_at(shared + i), std::to_integer<unsigned char>(from[i]),
                     __ATOMIC_RELEASE);
}

}  // namespace

void copy_from_shared(std::byte* into, const std::byte* shared, std::size_t size) noexcept {
  std::size_t done = head_size(shared, size);
  load_bytes(into, shared, done);
  for (; size - done >= sizeof(Word); done += sizeof(Word)) {
    const Word word = __atomic_load_n(word_at(shared + done), __ATOMIC_ACQUIRE);
    std::memcpy(into + done, &word, sizeof(Word));
  }
  load_bytes(into + done, shared + done, size - done);
}

void copy_to_shared(std::byte* shared, const std::byte* from, std::size_t size) noexcept {
  std::size_t done = head_size(shared, size);
  store_bytes(shared, from, done);
  for (; size - done >= sizeof(Word); done += sizeof(Word)) {
    Word word = 0;
    std::memcpy(&word, from + done, sizeof(Word));
    __atomic_store_n(word_at(shared + done), word, __ATOMIC_RELEASE);
  }
  store_bytes(shared + done, from + done, size - done);
}

void zero_shared(std::byte* shared, std::size_t size) noexcept {
  constexpr std::byte zeroes[sizeof(Word)] = {};
  std::size_t done = head_size(shared, size);
  store_bytes(shared, zeroes, done);
  for (; size - done >= sizeof(Word); done += sizeof(Word))
    __atomic_store_n(word_at(shared + done), Word{0}, __ATOMIC_RELEASE);
  store_bytes(shared + done, zeroes, size - done);
}

}  // namespace accelmm
