// SPDX-License-Identifier: Apache-2.0
//
// Replaces operator new and delete of the test binary that includes this (once), so that the k-th
// allocation from now fails, and so that what is not given back is counted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace accelmm::test {

struct HeapState {
  std::int64_t live = 0;         // blocks taken and not given back
  std::int64_t calls = 0;        // allocations so far, failed ones too
  std::int64_t fail_after = -1;  // that many succeed, the next fails; below 0: none fails
};
inline HeapState heap;

/// While it lives, the allocation after `successes` others fails, once.
class FailingNew {
 public:
  explicit FailingNew(std::int64_t successes) { heap.fail_after = successes; }
  FailingNew(const FailingNew&) = delete;
  FailingNew& operator=(const FailingNew&) = delete;
  ~FailingNew() { heap.fail_after = -1; }
  /// Whether the failure was met.
  [[nodiscard]] bool happened() const { return heap.fail_after < 0; }
};

[[nodiscard]] inline void* take_block(std::size_t size, std::align_val_t alignment = {}) noexcept {
  ++heap.calls;
  if (heap.fail_after >= 0 && heap.fail_after-- == 0) return nullptr;
  const auto multiple = static_cast<std::size_t>(alignment);
  void* block = multiple > alignof(std::max_align_t)
                    ? std::aligned_alloc(multiple, (size + multiple - 1) / multiple * multiple)
                    : std::malloc(size == 0 ? 1 : size);
  if (block != nullptr) ++heap.live;
  return block;
}

// Not inlined: where g++ sees free() take what operator new returned, it warns of a mismatch.
[[gnu::noinline]] inline void give_block(void* block) noexcept {
  if (block != nullptr) --heap.live;
  std::free(block);
}

}  // namespace accelmm::test

// NOLINTBEGIN(misc-definitions-in-headers): one translation unit a binary includes this.
void* operator new(std::size_t size) {
  void* block = accelmm::test::take_block(size);
  if (block == nullptr) throw std::bad_alloc();
  return block;
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  return accelmm::test::take_block(size);
}
void* operator new[](std::size_t size) {
  return operator new(size);
}
void* operator new[](std::size_t size, const std::nothrow_t& tag) noexcept {
  return operator new(size, tag);
}
void* operator new(std::size_t size, std::align_val_t alignment) {
  void* block = accelmm::test::take_block(size, alignment);
  if (block == nullptr) throw std::bad_alloc();
  return block;
}
void* operator new[](std::size_t size, std::align_val_t alignment) {
  return operator new(size, alignment);
}
void* operator new(std::size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  return accelmm::test::take_block(size, alignment);
}
void* operator new[](std::size_t size, std::align_val_t alignment,
                     const std::nothrow_t& tag) noexcept {
  return operator new(size, alignment, tag);
}
void operator delete(void* block, std::align_val_t) noexcept {
  accelmm::test::give_block(block);
}
void operator delete(void* block, std::size_t, std::align_val_t) noexcept {
  accelmm::test::give_block(block);
}
void operator delete[](void* block, std::align_val_t) noexcept {
  accelmm::test::give_block(block);
}
void operator delete[](void* block, std::size_t, std::align_val_t) noexcept {
  accelmm::test::give_block(block);
}
void operator delete(void* block) noexcept {
  accelmm::test::give_block(block);
}
void operator delete(void* block, std::size_t) noexcept {
  accelmm::test::give_block(block);
}
void operator delete[](void* block) noexcept {
  accelmm::test::give_block(block);
}
void operator delete[](void* block, std::size_t) noexcept {
  accelmm::test::give_block(block);
}
void operator delete(void* block, const std::nothrow_t&) noexcept {
  accelmm::test::give_block(block);
}
void operator delete[](void* block, const std::nothrow_t&) noexcept {
  accelmm::test::give_block(block);
}
// NOLINTEND(misc-definitions-in-headers)
