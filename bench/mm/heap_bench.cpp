// SPDX-License-Identifier: Apache-2.0
//
// heap-hot-SIZE and our side of heap-random-1k-16k (whose peers are in slab_bench.cpp): a heap over
// memory that the device has too, each piece with pointer and device address.
#include "rows.hpp"
#include "slab_sizes.hpp"
#include "subjects.hpp"
#include "workloads.hpp"

#include <accelmm/heap.hpp>
#include <accelmm/jemalloc_heap.hpp>

#include <bit>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <utility>

#include <benchmark/benchmark.h>
#include <sys/mman.h>

namespace accelmm::bench {
namespace {

// Memory that takes pages as it is written.
class Memory {
 public:
  static constexpr std::size_t size = std::size_t{1} << 30;
  Memory()
      : begin_(::mmap(nullptr, size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {
    if (begin_ == MAP_FAILED) std::abort();
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() { ::munmap(begin_, size); }
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
T made(Result<T> result) {
  if (!result) std::abort();
  return std::move(*result);
}

template <class SomeHeap>
class HeapSubject {
 public:
  using Piece = HeapPiece;

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
  Memory memory_;
  SpanHeapSource source_ = made(SpanHeapSource::create(memory_.bytes(), memory_.address()));
  SomeHeap heap_ = made(SomeHeap::create({.source = &source_}));
};

std::string heap_hot(std::size_t size) {
  return "heap-hot-" + std::to_string(size);
}

const bool registered = [] {
  for (const std::size_t size : slab_sizes) {
    add_malloc_rows(heap_hot(size), [=](benchmark::State& state, MallocSubject&& subject) {
      hot_pair(state, std::move(subject), {.size = size});
    });
    add_row(heap_hot(size), "ours", [=](benchmark::State& state) {
      HeapSubject<Heap> subject;
      hot_pair(state, subject, {.size = size});
      subject.heap().validate();
    });
    add_row(heap_hot(size), "ours-jemalloc", [=](benchmark::State& state) {
      HeapSubject<JemallocHeap> subject;
      hot_pair(state, subject, {.size = size});
    });
  }
  add_row("heap-random-1k-16k", "ours", [](benchmark::State& state) {
    HeapSubject<Heap> subject;
    random_replace(state, subject, {Mix::Kind::uniform, 1024, 16384}, {.pieces = 8192});
    subject.heap().validate();
  });
  add_row("heap-random-1k-16k", "ours-jemalloc", [](benchmark::State& state) {
    HeapSubject<JemallocHeap> subject;
    random_replace(state, subject, {Mix::Kind::uniform, 1024, 16384}, {.pieces = 8192});
  });
  return true;
}();

}  // namespace
}  // namespace accelmm::bench
