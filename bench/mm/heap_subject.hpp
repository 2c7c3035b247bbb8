// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/heap.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <utility>

#include <sys/mman.h>

namespace accelmm::bench {

/// Memory that takes pages as it is written.
class WrittenMemory {
 public:
  static constexpr std::size_t size = std::size_t{1} << 30;
  WrittenMemory()
      : begin_(::mmap(nullptr, size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {
    if (begin_ == MAP_FAILED) std::abort();
  }
  WrittenMemory(const WrittenMemory&) = delete;
  WrittenMemory& operator=(const WrittenMemory&) = delete;
  ~WrittenMemory() { ::munmap(begin_, size); }
  [[nodiscard]] std::span<std::byte> bytes() const {
    return {static_cast<std::byte*>(begin_), size};
  }
  [[nodiscard]] DeviceAddr address() const {
    return DeviceAddr(reinterpret_cast<std::uintptr_t>(begin_) + (std::uint64_t{1} << 40));
  }

 private:
  void* begin_;
};

template <class T>
[[nodiscard]] T made_or_abort(Result<T> result) {
  if (!result) std::abort();
  return std::move(*result);
}

/// A heap over memory that it has for itself: each piece with pointer and device address.
template <class SomeHeap>
class HeapSubject {
 public:
  using Piece = HeapPiece;
  explicit HeapSubject(std::uint64_t /*region*/ = 0) {}

  [[nodiscard]] bool take(std::uint64_t size, Piece& piece) {
    const auto taken = heap_.allocate(ByteCount(size));
    if (!taken) return false;
    piece = *taken;
    return true;
  }
  [[nodiscard]] bool take(std::uint64_t size, std::uint64_t alignment, Piece& piece) {
    const auto taken = heap_.allocate(ByteCount(size), Alignment(alignment));
    if (!taken) return false;
    piece = *taken;
    return true;
  }
  [[nodiscard]] bool give(const Piece& piece) { return heap_.free(piece.pointer).has_value(); }
  [[nodiscard]] static std::uint64_t address(const Piece& piece) {
    return std::bit_cast<std::uintptr_t>(piece.pointer);
  }
  [[nodiscard]] SomeHeap& heap() { return heap_; }

 private:
  WrittenMemory memory_;
  SpanHeapSource source_ =
      made_or_abort(SpanHeapSource::create(memory_.bytes(), memory_.address()));
  SomeHeap heap_ = made_or_abort(SomeHeap::create({.source = &source_}));
};

}  // namespace accelmm::bench
