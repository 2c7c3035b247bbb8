// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/extent.hpp>
#include <accelmm/page_allocator.hpp>
#include <accelmm/units.hpp>

#include <cstddef>
#include <cstdint>
#include <mutex>

namespace accelmm {

/// Extents whose end waits for a point of a timeline: freed by their owner, and still in use by a
/// device until it has reached the point.
///
/// Whoever allocates makes an Entry along with what it describes; so that adding one needs no memory
/// and cannot fail.
/// Owns      nothing but its head: the entries are the callers'.
/// Units     points are values of one monotonic counter; they may be added in any order.
/// Threads   any.
/// Lifetime  an entry stays where it is, alive, until it was taken. Destroying this with entries in
///           it is allowed.
/// Invariant an entry taken has a point <= the one asked for, and none of those left has.
/// Cost      add O(1); a take O(log entries), amortised.
/// Source    Fredman, Sedgewick, Sleator, Tarjan: The pairing heap, Algorithmica 1986.
class DeferredFrees {
 public:
  /// Room for one extent that waits.
  class Entry {
   public:
    Entry() = default;
    Entry(const Entry&) = delete;
    Entry& operator=(const Entry&) = delete;

    [[nodiscard]] const Extent& extent() const { return extent_; }
    [[nodiscard]] std::uint64_t point() const { return point_; }
    /// The next of a batch; null at its end. The entry may be destroyed after this was read.
    [[nodiscard]] Entry* next() const { return sibling_; }

   private:
    friend class DeferredFrees;
    Extent extent_;
    std::uint64_t point_ = 0;
    Entry* child_ = nullptr;
    Entry* sibling_ = nullptr;
  };

  DeferredFrees() = default;
  DeferredFrees(const DeferredFrees&) = delete;
  DeferredFrees& operator=(const DeferredFrees&) = delete;

  /// Makes an extent wait. Pre: the entry waits for nothing.
  void add(Entry& entry, Extent extent, std::uint64_t point) noexcept;

  /// Takes at most `limit` entries whose points are at most `reached`, lowest first, as a list;
  /// null if there are none.
  [[nodiscard]] Entry* take_reached(std::uint64_t reached, std::size_t limit) noexcept;

  /// Frees what has been reached into the allocator it came from, in batches. Returns the bytes.
  /// Pre  every extent waiting here is allocated there.
  ByteCount retire(std::uint64_t reached, PageAllocator& pages) noexcept;

  /// What waits.
  [[nodiscard]] ByteCount pending() const;
  [[nodiscard]] std::size_t entries() const;

 private:
  [[nodiscard]] static Entry* meld(Entry* a, Entry* b) noexcept;
  [[nodiscard]] static Entry* meld_all(Entry* siblings) noexcept;

  mutable std::mutex lock_;
  Entry* root_ = nullptr;  // the lowest point
  ByteCount pending_;
  std::size_t entries_ = 0;
};

}  // namespace accelmm
