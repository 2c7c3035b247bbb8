// SPDX-License-Identifier: Apache-2.0
#include "base/mapping.hpp"

#include "base/system.hpp"

#include <sys/mman.h>
#include <unistd.h>

namespace accelmm {

ByteCount host_page_size() noexcept {
  static const ByteCount size(static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)));
  return size;
}

bool is_whole_pages(std::span<const std::byte> memory) noexcept {
  const Alignment page(host_page_size().value());
  return !memory.empty() && page.divides(memory.size()) &&
         page.divides(reinterpret_cast<std::uintptr_t>(memory.data()));
}

Mapping::Mapping(Mapping&& other) noexcept
    : base_(std::exchange(other.base_, nullptr)),
      mapped_(std::exchange(other.mapped_, ByteCount())),
      bytes_(std::exchange(other.bytes_, {})) {}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  if (this == &other) return *this;
  reset();
  base_ = std::exchange(other.base_, nullptr);
  mapped_ = std::exchange(other.mapped_, ByteCount());
  bytes_ = std::exchange(other.bytes_, {});
  return *this;
}

Result<Mapping> Mapping::create(FdView fd, std::uint64_t fd_offset, ByteCount length, int prot,
                                Alignment page) {
  if (length == ByteCount()) return fail(Errc::invalid_argument, "mapping of no bytes");
  const std::uint64_t before = fd_offset & (page.value() - 1);
  if (length.value() > UINT64_MAX - before)
    return fail(Errc::overflow, "mapping rounds up beyond 64 bits");
  const auto mapped = round_up(ByteCount(before) + length, page);
  if (!mapped) return fail(mapped.error());
  if (mapped->value() > UINT64_MAX - (fd_offset - before))
    return fail(Errc::overflow, "mapping ends beyond 64 bits of its file");
  const auto base = sys::mmap(nullptr, *mapped, prot, MAP_SHARED, fd, fd_offset - before);
  if (!base) return fail(base.error());
  return Mapping(*base, *mapped, std::span(*base + before, length.value()));
}

Result<Mapping> Mapping::reserve(ByteCount length) {
  if (length == ByteCount()) return fail(Errc::invalid_argument, "reservation of no bytes");
  const auto mapped = round_up(length, Alignment(host_page_size().value()));
  if (!mapped) return fail(mapped.error());
  const auto base = sys::mmap(nullptr, *mapped, PROT_NONE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, FdView(), 0);
  if (!base) return fail(base.error());
  return Mapping(*base, *mapped, std::span(*base, length.value()));
}

Result<void> Mapping::exclude_from_fork() {
  ACCELMM_CHECK(base_ != nullptr);
  return sys::madvise(base_, mapped_, MADV_DONTFORK);
}

Result<void> Mapping::move_over(std::byte* target) {
  ACCELMM_CHECK(base_ != nullptr);
  ACCELMM_CHECK(bytes_.data() == base_ && bytes_.size() == mapped_.value());
  if (auto moved = sys::move_mapping(base_, mapped_, target); !moved) return moved;
  base_ = nullptr;
  mapped_ = ByteCount();
  bytes_ = {};
  return {};
}

void Mapping::reset() noexcept {
  if (base_ != nullptr) sys::munmap(base_, mapped_);
  base_ = nullptr;
  mapped_ = ByteCount();
  bytes_ = {};
}

}  // namespace accelmm
