// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <list>
#include <set>

namespace accelmm::bench {

/// A model of the pool of RAPIDS' RMM: its data structures and its search, without its locks, its
/// streams and its device.
///
/// Free blocks stand in a std::list in the order of their addresses. Allocation looks at all of
/// them and takes the smallest that fits; free looks for its place from the front, and merges with
/// both neighbours. Sizes are multiples of 256 bytes.
/// Source    the design of RMM's coalescing free list and pool resource.
class RmmListModel {
 public:
  static constexpr std::uint64_t granule = 256;
  struct Piece {
    std::uint64_t offset;
    std::uint64_t size;
  };

  explicit RmmListModel(std::uint64_t bytes) : bytes_(bytes) { free_.push_back({0, bytes}); }

  [[nodiscard]] bool take(std::uint64_t size, Piece& piece) {
    size = (size + granule - 1) & ~(granule - 1);
    auto best = free_.end();
    for (auto block = free_.begin(); block != free_.end(); ++block)
      if (block->size >= size && (best == free_.end() || block->size < best->size)) best = block;
    if (best == free_.end()) return false;
    piece = {best->offset, size};
    if (best->size == size) {
      free_.erase(best);
    } else {
      best->offset += size;
      best->size -= size;
    }
    allocated_.insert(piece.offset);
    return true;
  }

  [[nodiscard]] bool give(const Piece& piece) {
    if (allocated_.erase(piece.offset) == 0) return false;
    auto next = free_.begin();
    while (next != free_.end() && next->offset < piece.offset) ++next;
    const bool joins_next = next != free_.end() && piece.offset + piece.size == next->offset;
    if (next != free_.begin()) {
      const auto previous = std::prev(next);
      if (previous->offset + previous->size == piece.offset) {
        previous->size += piece.size;
        if (joins_next) {
          previous->size += next->size;
          free_.erase(next);
        }
        return true;
      }
    }
    if (joins_next) {
      next->offset = piece.offset;
      next->size += piece.size;
    } else {
      free_.insert(next, piece);
    }
    return true;
  }

  [[nodiscard]] static std::uint64_t address(const Piece& piece) { return piece.offset; }
  [[nodiscard]] std::size_t free_blocks() const { return free_.size(); }
  [[nodiscard]] bool whole() const {
    return allocated_.empty() && free_.size() == 1 && free_.front().size == bytes_;
  }

 private:
  std::uint64_t bytes_;
  std::list<Piece> free_;
  std::set<std::uint64_t> allocated_;
};

}  // namespace accelmm::bench
