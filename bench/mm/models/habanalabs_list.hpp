// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <list>
#include <vector>

namespace accelmm::bench {

/// A model of how Linux's habanalabs driver keeps the free device addresses of a context: its data
/// structure and its search, without its locks and its hints.
///
/// Free blocks stand in a list in the order of their addresses. Allocation looks at all of them and
/// takes the smallest in which the aligned request fits; what is left in front of it is entered
/// again, which walks the list once more. Free walks the whole list as well: it finds the place and
/// makes sure that no block overlaps, then merges with both neighbours.
/// Source    drivers/accel/habanalabs/common/memory.c (get_va_block, add_va_block_locked).
class HabanalabsListModel {
 public:
  struct Piece {
    std::uint64_t begin;
    std::uint64_t size;
  };

  HabanalabsListModel(std::uint64_t begin, std::uint64_t end, std::uint64_t page)
      : begin_(begin), end_(end), page_(page) {
    blocks_.push_back({begin, end - 1, end - begin});
  }

  /// Makes these pieces allocated, in place of all that was. Pre: they ascend, and are disjoint.
  void adopt(const std::vector<Piece>& pieces) {
    blocks_.clear();
    std::uint64_t at = begin_;
    for (const Piece& piece : pieces) {
      if (at < piece.begin) blocks_.push_back({at, piece.begin - 1, piece.begin - at});
      at = piece.begin + piece.size;
    }
    if (at < end_) blocks_.push_back({at, end_ - 1, end_ - at});
  }

  [[nodiscard]] bool take(std::uint64_t size, Piece& piece) { return take(size, page_, piece); }
  [[nodiscard]] bool take(std::uint64_t size, std::uint64_t alignment, Piece& piece) {
    size = (size + page_ - 1) & ~(page_ - 1);
    auto best = blocks_.end();
    std::uint64_t start = 0;
    for (auto block = blocks_.begin(); block != blocks_.end(); ++block) {
      const std::uint64_t aligned = (block->start + alignment - 1) & ~(alignment - 1);
      if (aligned > block->end || block->end - aligned + 1 < size) continue;
      if (best != blocks_.end() && best->size <= block->size) continue;
      best = block;
      start = aligned;
    }
    if (best == blocks_.end()) return false;
    const std::uint64_t front = best->start;
    if (best->end - start + 1 > size) {
      best->start = start + size;
      best->size = best->end - best->start + 1;
    } else {
      blocks_.erase(best);
    }
    if (front < start && !add(front, start - 1)) return false;
    piece = {start, size};
    return true;
  }

  [[nodiscard]] bool give(const Piece& piece) {
    return add(piece.begin, piece.begin + piece.size - 1);
  }

  [[nodiscard]] std::uint64_t address(const Piece& piece) const { return piece.begin; }
  /// Whether nothing is allocated.
  [[nodiscard]] bool whole() const {
    return blocks_.size() == 1 && blocks_.front().start == begin_ &&
           blocks_.front().end == end_ - 1;
  }

 private:
  struct Block {
    std::uint64_t start;
    std::uint64_t end;  // included
    std::uint64_t size;
  };

  [[nodiscard]] bool add(std::uint64_t start, std::uint64_t end) {
    auto next = blocks_.begin();
    for (auto block = blocks_.begin(); block != blocks_.end(); ++block) {
      if (block->start <= end && start <= block->end) return false;
      if (block->end < start) next = std::next(block);
    }
    const auto added = blocks_.insert(next, {start, end, end - start + 1});
    if (added != blocks_.begin())
      merge(std::prev(added));
    else
      merge(added);
    return true;
  }

  /// Merges a block with the one behind it, and that with the next, where they touch.
  void merge(std::list<Block>::iterator block) {
    for (int i = 0; i < 2; ++i) {
      const auto next = std::next(block);
      if (next == blocks_.end()) return;
      if (block->end + 1 == next->start) {
        block->end = next->end;
        block->size = block->end - block->start + 1;
        blocks_.erase(next);
      } else {
        block = next;
      }
    }
  }

  std::uint64_t begin_;
  std::uint64_t end_;
  std::uint64_t page_;
  std::list<Block> blocks_;
};

}  // namespace accelmm::bench
