// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/heap.hpp>

#include <cstddef>
#include <memory_resource>

namespace accelmm {

/// A Heap for containers of the standard library.
///
/// The standard's interface has no other way to say that memory is short: allocate() throws
/// std::bad_alloc, whatever the heap's error was. deallocate() of what is no live piece, or whose
/// canaries are damaged, stops the program.
/// Owns      nothing: the heap must outlive it.
/// Threads   any.
class HeapResource final : public std::pmr::memory_resource {
 public:
  explicit HeapResource(Heap& heap) noexcept : heap_(heap) {}
  [[nodiscard]] Heap& heap() const noexcept { return heap_; }

 private:
  void* do_allocate(std::size_t bytes, std::size_t alignment) override;
  void do_deallocate(void* pointer, std::size_t bytes, std::size_t alignment) override;
  [[nodiscard]] bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override;

  Heap& heap_;
};

}  // namespace accelmm
