// SPDX-License-Identifier: Apache-2.0
#include <accelmm/check.hpp>
#include <accelmm/heap_resource.hpp>

#include <new>

namespace accelmm {

void* HeapResource::do_allocate(std::size_t bytes, std::size_t alignment) {
  const auto piece = heap_.allocate(ByteCount(bytes == 0 ? 1 : bytes), Alignment(alignment));
  if (!piece) throw std::bad_alloc();
  return piece->pointer;
}

void HeapResource::do_deallocate(void* pointer, std::size_t /*bytes*/, std::size_t /*alignment*/) {
  const bool freed = heap_.free(pointer).has_value();
  ACCELMM_CHECK(freed);
}

bool HeapResource::do_is_equal(const std::pmr::memory_resource& other) const noexcept {
  const auto* same = dynamic_cast<const HeapResource*>(&other);
  return same != nullptr && &same->heap_ == &heap_;
}

}  // namespace accelmm
