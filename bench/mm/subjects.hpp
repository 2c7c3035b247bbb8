// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "peers/peer.hpp"

#include <accelmm/page_allocator.hpp>

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <utility>

namespace accelmm::bench {

/// A peer that allocates memory, as a subject of the workloads.
class MallocSubject {
 public:
  using Piece = void*;
  explicit MallocSubject(const Peer& peer)
      : allocate_(peer.allocate), aligned_(peer.allocate_aligned), free_(peer.free) {}

  [[nodiscard]] bool take(std::uint64_t size, Piece& piece) {
    piece = allocate_(size);
    return piece != nullptr;
  }
  [[nodiscard]] bool take(std::uint64_t size, std::uint64_t alignment, Piece& piece) {
    piece = aligned_(alignment, size);
    return piece != nullptr;
  }
  [[nodiscard]] bool give(Piece piece) {
    free_(piece);
    return true;
  }
  [[nodiscard]] static std::uint64_t address(Piece piece) {
    return std::bit_cast<std::uintptr_t>(piece);
  }

 private:
  void* (*allocate_)(std::size_t size);
  void* (*aligned_)(std::size_t alignment, std::size_t size);
  void (*free_)(void* memory);
};

/// Our page allocator over a region that it has for itself.
class PageSubject {
 public:
  using Piece = Extent;
  explicit PageSubject(std::uint64_t bytes) : pages_(make(bytes)) {}

  [[nodiscard]] bool take(std::uint64_t size, Piece& piece) {
    const auto extent = pages_.allocate(ByteCount(size));
    if (!extent) return false;
    piece = *extent;
    return true;
  }
  [[nodiscard]] bool take(std::uint64_t size, std::uint64_t alignment, Piece& piece) {
    const auto extent = pages_.allocate(ByteCount(size), Alignment(alignment));
    if (!extent) return false;
    piece = *extent;
    return true;
  }
  [[nodiscard]] bool give(const Piece& piece) { return pages_.free(piece).has_value(); }
  [[nodiscard]] static std::uint64_t address(const Piece& piece) { return piece.offset.value(); }

  [[nodiscard]] const PageAllocator& allocator() const { return pages_; }
  /// Whether nothing is allocated. Aborts if an invariant is broken.
  [[nodiscard]] bool whole() const {
    pages_.validate();
    const auto statistics = pages_.statistics();
    return statistics.free == statistics.total;
  }

 private:
  static PageAllocator make(std::uint64_t bytes) {
    auto pages = PageAllocator::create({.size = ByteCount(bytes), .page = ByteCount(4096)});
    if (!pages) std::abort();
    return std::move(*pages);
  }
  PageAllocator pages_;
};

}  // namespace accelmm::bench
