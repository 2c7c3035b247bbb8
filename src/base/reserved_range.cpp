// SPDX-License-Identifier: Apache-2.0
#include "base/reserved_range.hpp"

#include "base/mapping.hpp"
#include "base/received_file.hpp"
#include "base/system.hpp"

#include <accelmm/check.hpp>

#include <utility>

#include <sys/mman.h>

namespace accelmm {

namespace {

constexpr int nowhere = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;

}  // namespace

Result<ReservedRange> ReservedRange::create(ByteCount size, Alignment alignment) {
  if (size == ByteCount()) return fail(Errc::invalid_argument, "range of no bytes");
  if (size.value() > UINT64_MAX - alignment.value())
    return fail(Errc::overflow, "range ends beyond 64 bits");
  const auto mapped =
      round_up(size + ByteCount(alignment.value()), Alignment(host_page_size().value()));
  if (!mapped) return fail(mapped.error());
  const auto begin = sys::mmap(nullptr, *mapped, PROT_NONE, nowhere, FdView(), 0);
  if (!begin) return fail(begin.error());
  const std::uint64_t skip =
      (0 - reinterpret_cast<std::uintptr_t>(*begin)) & (alignment.value() - 1);
  return ReservedRange(std::span(*begin, mapped->value()), *begin + skip, size);
}

ReservedRange::ReservedRange(ReservedRange&& other) noexcept
    : mapped_(std::exchange(other.mapped_, {})),
      base_(other.base_),
      size_(other.size_),
      maker_(other.maker_) {}

ReservedRange::~ReservedRange() {
  if (mapped_.empty() || maker_.in_forked_child()) return;
  sys::munmap(mapped_.data(), ByteCount(mapped_.size()));
}

Result<void> ReservedRange::place(Extent extent, FdView fd, std::uint64_t fd_offset,
                                  Access access) {
  ACCELMM_CHECK(extent.offset.value() <= size_.value() &&
                extent.length.value() <= size_.value() - extent.offset.value());
  std::byte* const at = base_ + extent.offset.value();
  const auto mapped =
      sys::mmap(at, extent.length, protection_of(access), MAP_SHARED | MAP_FIXED, fd, fd_offset);
  if (!mapped) return fail(mapped.error());
  return sys::madvise(at, extent.length, MADV_DONTFORK);
}

Result<void> ReservedRange::remove(Extent extent) {
  const auto mapped = sys::mmap(base_ + extent.offset.value(), extent.length, PROT_NONE,
                                nowhere | MAP_FIXED, FdView(), 0);
  if (!mapped) return fail(mapped.error());
  return {};
}

}  // namespace accelmm
