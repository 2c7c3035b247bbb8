// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/check.hpp>
#include <accelmm/heap_source.hpp>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <optional>
#include <span>

#include <sys/mman.h>

namespace accelmm::test {

/// Whether sanitizer or Valgrind are told of each byte, for which a heap keeps more to itself.
#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool heap_is_watched = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
inline constexpr bool heap_is_watched = true;
#else
inline constexpr bool heap_is_watched = false;
#endif
#else
inline constexpr bool heap_is_watched = false;
#endif

/// A source of real memory in a range of addresses of its own, that takes no memory for itself and
/// checks what it is given back.
class MappedSource final : public HeapSource {
 public:
  enum class Memory { readable, unreachable };
  enum class Addresses { some, none };
  static constexpr std::uint64_t units = 512;
  static constexpr ByteCount range_size{units << 21};
  static constexpr std::uint64_t first_address = std::uint64_t{1} << 45;

  explicit MappedSource(Memory memory = Memory::readable, Addresses addresses = Addresses::some)
      : protection_(memory == Memory::readable ? PROT_READ | PROT_WRITE : PROT_NONE),
        addresses_(addresses) {
    mapped_ = ::mmap(nullptr, 2 * range_size.value(), PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ACCELMM_CHECK(mapped_ != MAP_FAILED);
    const auto begin = reinterpret_cast<std::uintptr_t>(mapped_);
    base_ = static_cast<std::byte*>(mapped_) + ((0 - begin) & (range_size.value() - 1));
  }
  ~MappedSource() override { ACCELMM_CHECK(::munmap(mapped_, 2 * range_size.value()) == 0); }
  MappedSource(const MappedSource&) = delete;
  MappedSource& operator=(const MappedSource&) = delete;

  HeapRange range() const noexcept override {
    return {.base = base_, .size = range_size, .present = &present_};
  }

  Result<HeapChunk> grow(ByteCount size, Alignment alignment) override {
    const std::lock_guard lock(mutex_);
    ++calls_;
    if (odd_answer_) return *odd_answer_;
    if (left_ == 0) return fail(Errc::over_quota, "source is told to fail");
    const std::uint64_t count = (size.value() + unit.value() - 1) >> unit.log2();
    // One unit between chunks stays free.
    for (std::uint64_t first = 0; count < units && first + count < units; ++first) {
      const auto address = reinterpret_cast<std::uintptr_t>(pointer(first));
      if (!alignment.divides(address) || !alignment.divides(device_address(first)) ||
          !is_free(first == 0 ? 0 : first - 1, first + count + 1))
        continue;
      return give(first, count, size);
    }
    return fail(Errc::no_memory, "source is empty");
  }

  void give_back(const HeapChunk& chunk) override {
    const std::lock_guard lock(mutex_);
    if (odd_answer_ && chunk.pointer == odd_answer_->pointer) {
      ++odd_returned_;
      return;
    }
    const std::uint64_t first = static_cast<std::uint64_t>(chunk.pointer - base_) >> unit.log2();
    ACCELMM_CHECK(first < units && length_[first] == chunk.size.value());
    const std::uint64_t count = (chunk.size.value() + unit.value() - 1) >> unit.log2();
    std::fill_n(in_use_.begin() + static_cast<std::ptrdiff_t>(first), count, false);
    length_[first] = 0;
    outstanding_ -= chunk.size.value();
    --chunks_;
    if (left_ != ~std::uint64_t{0}) ++left_;
    ACCELMM_CHECK(::mmap(chunk.pointer, chunk.size.value(), PROT_NONE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
                         0) == chunk.pointer);
  }

  /// How many more chunks may be outstanding.
  void allow(std::uint64_t chunks) {
    const std::lock_guard lock(mutex_);
    left_ = chunks;
  }
  void answer(std::optional<HeapChunk> odd) {
    const std::lock_guard lock(mutex_);
    odd_answer_ = odd;
  }
  /// What new chunks hold, and say that they hold.
  void fill_with(std::byte byte) { fill_ = byte; }
  /// As in a forked child.
  void vanish() { present_ = 0; }
  void appear() { present_ = 1; }

  [[nodiscard]] std::byte* base() const { return base_; }
  [[nodiscard]] std::uint64_t outstanding() const { return locked(outstanding_); }
  [[nodiscard]] std::uint64_t chunks() const { return locked(chunks_); }
  [[nodiscard]] std::uint64_t calls() const { return locked(calls_); }
  [[nodiscard]] std::uint64_t odd_returned() const { return locked(odd_returned_); }
  /// Whether [pointer, pointer + length) lies in one chunk that was given and not given back.
  [[nodiscard]] bool covers(const void* begin, std::uint64_t length) const {
    const std::lock_guard lock(mutex_);
    const auto offset = static_cast<std::uint64_t>(static_cast<const std::byte*>(begin) - base_);
    if (offset >= range_size.value() || !in_use_[offset >> unit.log2()]) return false;
    std::uint64_t first = offset >> unit.log2();
    while (length_[first] == 0) --first;
    const std::uint64_t inside = offset - (first << unit.log2());
    return inside < length_[first] && length_[first] - inside >= length;
  }
  /// Where the device has a place of a chunk.
  [[nodiscard]] std::uint64_t address_of(const void* place) const {
    const std::lock_guard lock(mutex_);
    const auto offset = static_cast<std::uint64_t>(static_cast<const std::byte*>(place) - base_);
    std::uint64_t first = offset >> unit.log2();
    while (length_[first] == 0) --first;
    return device_address(first) + (offset - (first << unit.log2()));
  }

 private:
  template <class T>
  [[nodiscard]] T locked(const T& value) const {
    const std::lock_guard lock(mutex_);
    return value;
  }
  [[nodiscard]] std::byte* pointer(std::uint64_t first) const {
    return base_ + (first << unit.log2());
  }
  // Neighbours in the range are none to the device.
  [[nodiscard]] static std::uint64_t device_address(std::uint64_t first) {
    return first_address + (first << unit.log2()) + (first % 7 << 36);
  }
  [[nodiscard]] bool is_free(std::uint64_t first, std::uint64_t end) const {
    for (std::uint64_t at = first; at < std::min(end, units); ++at)
      if (in_use_[at]) return false;
    return true;
  }
  [[nodiscard]] HeapChunk give(std::uint64_t first, std::uint64_t count, ByteCount size) {
    std::fill_n(in_use_.begin() + static_cast<std::ptrdiff_t>(first), count, true);
    length_[first] = size.value();
    outstanding_ += size.value();
    ++chunks_;
    if (left_ != ~std::uint64_t{0}) --left_;
    HeapChunk chunk{
        .pointer = pointer(first), .size = size, .address = {}, .contents = Contents::zeros};
    if (addresses_ == Addresses::some) chunk.address = DeviceAddr(device_address(first));
    if (protection_ == PROT_NONE) return chunk;
    ACCELMM_CHECK(::mprotect(chunk.pointer, size.value(), protection_) == 0);
    if (fill_ != std::byte{}) {
      std::memset(chunk.pointer, static_cast<int>(fill_), size.value());
      chunk.contents = Contents::unknown;
    }
    return chunk;
  }

  const int protection_;
  const Addresses addresses_;
  void* mapped_ = nullptr;
  std::byte* base_ = nullptr;
  std::atomic<std::uint64_t> present_ = 1;
  mutable std::mutex mutex_;
  std::array<bool, units> in_use_ = {};
  std::array<std::uint64_t, units> length_ = {};  // of the chunk that begins there
  std::uint64_t left_ = ~std::uint64_t{0};
  std::uint64_t outstanding_ = 0;
  std::uint64_t chunks_ = 0;
  std::uint64_t calls_ = 0;
  std::uint64_t odd_returned_ = 0;
  std::optional<HeapChunk> odd_answer_;
  std::byte fill_ = {};
};

}  // namespace accelmm::test
