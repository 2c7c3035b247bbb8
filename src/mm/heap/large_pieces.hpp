// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "mm/heap/heap_units.hpp"

#include <accelmm/extent.hpp>
#include <accelmm/units.hpp>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <memory>

namespace accelmm::mm {

/// Which large pieces are live: for each page of the range how many pages the piece has that begins
/// there, or 0. Who exchanges that number for 0 is the one who frees the piece.
///
/// Owns     4 bytes a page, zeroed memory that comes untouched from the kernel.
/// Threads  any.
class LargePieces {
 public:
  explicit LargePieces(ByteCount range)
      : count_(range.value() >> heap_page.log2()),
        pages_(static_cast<std::atomic<std::uint32_t>*>(
            std::calloc(count_, sizeof(std::atomic<std::uint32_t>)))) {}
  [[nodiscard]] bool exists() const { return pages_ != nullptr; }
  [[nodiscard]] ByteCount bytes() const {
    return ByteCount(count_ * sizeof(std::atomic<std::uint32_t>));
  }

  void enter(Extent piece) {
    at(piece.offset.value()).store(pages_of(piece.length), std::memory_order_release);
  }
  /// The length of the live piece that begins there, 0 if none does.
  [[nodiscard]] ByteCount find(std::uint64_t offset) const {
    if (!heap_page.divides(offset) || offset >> heap_page.log2() >= count_) return {};
    return bytes_of(at(offset).load(std::memory_order_acquire));
  }
  /// Ends a piece. Returns its length, 0 if none is live there.
  [[nodiscard]] ByteCount leave(std::uint64_t offset) {
    // Looked at first, so that a wrong offset makes the kernel find no page for it.
    if (find(offset).value() == 0) return {};
    return bytes_of(at(offset).exchange(0, std::memory_order_acq_rel));
  }
  /// Calls `f(Extent)` for each piece that begins in the extent, lowest first.
  template <class F>
  void for_each(Extent extent, F f) const {
    const std::uint64_t end = extent.end().value() >> heap_page.log2();
    const std::atomic<std::uint32_t>* const pages = pages_.get();
    for (std::uint64_t page = extent.offset.value() >> heap_page.log2(); page < end; ++page)
      if (const std::uint32_t count = pages[page].load(std::memory_order_relaxed); count != 0)
        f(Extent{.offset = RegionOffset(page << heap_page.log2()), .length = bytes_of(count)});
  }
  /// Changes a piece's length. Returns false if it does not have the old one any more.
  [[nodiscard]] bool change(std::uint64_t offset, ByteCount before, ByteCount after) {
    std::uint32_t expected = pages_of(before);
    return at(offset).compare_exchange_strong(expected, pages_of(after));
  }

 private:
  struct Free {
    void operator()(std::atomic<std::uint32_t>* pages) const { std::free(pages); }
  };
  [[nodiscard]] static std::uint32_t pages_of(ByteCount length) {
    return static_cast<std::uint32_t>(length.value() >> heap_page.log2());
  }
  [[nodiscard]] static ByteCount bytes_of(std::uint32_t pages) {
    return ByteCount(std::uint64_t{pages} << heap_page.log2());
  }
  [[nodiscard]] std::atomic<std::uint32_t>& at(std::uint64_t offset) const {
    return pages_[offset >> heap_page.log2()];
  }

  std::uint64_t count_;
  std::unique_ptr<std::atomic<std::uint32_t>[], Free> pages_;
};

static_assert(heap_largest_range >> heap_page.log2() <= std::uint64_t{1} << 32);

}  // namespace accelmm::mm
