// SPDX-License-Identifier: Apache-2.0
#include "mm/heap/heap_units.hpp"

#include <accelmm/check.hpp>
#include <accelmm/heap_source.hpp>

namespace accelmm {

Result<SpanHeapSource> SpanHeapSource::create(std::span<std::byte> memory,
                                              std::optional<DeviceAddr> address,
                                              Contents contents) {
  const auto begin = reinterpret_cast<std::uintptr_t>(memory.data());
  if (memory.empty() || !mm::heap_page.divides(begin) || !mm::heap_page.divides(memory.size()))
    return fail(Errc::invalid_argument, "memory of a heap is whole pages of 4 KiB");
  if (address && !unit.divides(address->value() - begin))
    return fail(Errc::invalid_argument, "device address and pointer are not congruent");
  return SpanHeapSource(HeapChunk{.pointer = memory.data(),
                                  .size = ByteCount(memory.size()),
                                  .address = address,
                                  .contents = contents});
}

SpanHeapSource::SpanHeapSource(SpanHeapSource&& other) noexcept : chunk_(other.chunk_) {
  ACCELMM_CHECK(!other.given_);
}

HeapRange SpanHeapSource::range() const noexcept {
  const auto begin = reinterpret_cast<std::uintptr_t>(chunk_.pointer);
  const std::uintptr_t before = begin & (unit.value() - 1);
  return {
      .base = chunk_.pointer - before, .size = ByteCount(before) + chunk_.size, .present = nullptr};
}

Result<HeapChunk> SpanHeapSource::grow(ByteCount size, Alignment alignment) {
  const auto place = mm::aligned_place(chunk_, size, alignment);
  const auto begin = reinterpret_cast<std::uintptr_t>(chunk_.pointer);
  const bool congruent = !chunk_.address || alignment.divides(chunk_.address->value() - begin);
  if (!place || !congruent) return fail(Errc::no_memory, "the memory has no such place");
  if (given_.exchange(true)) return fail(Errc::no_memory, "the memory is in use");
  return chunk_;
}

void SpanHeapSource::give_back(const HeapChunk& chunk) {
  ACCELMM_CHECK(chunk.pointer == chunk_.pointer && given_);
  // What was handed out may have been written to.
  chunk_.contents = Contents::unknown;
  given_ = false;
}

}  // namespace accelmm
