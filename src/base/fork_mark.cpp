// SPDX-License-Identifier: Apache-2.0
#include "base/fork_mark.hpp"

#include "base/system.hpp"

#include <new>

#include <sys/mman.h>

namespace accelmm {

namespace {

// The kernel makes a page of it.
constexpr ByteCount size(sizeof(std::atomic<std::uint64_t>));

}  // namespace

void ForkMark::Unmap::operator()(std::atomic<std::uint64_t>* word) const noexcept {
  sys::munmap(reinterpret_cast<std::byte*>(word), size);
}

Result<ForkMark> ForkMark::create() {
  const auto page =
      sys::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, FdView(), 0);
  if (!page) return fail(page.error());
  ForkMark mark(new (*page) std::atomic<std::uint64_t>(1));
  if (const auto wiped = sys::madvise(*page, size, MADV_WIPEONFORK); !wiped)
    return fail(wiped.error());
  return mark;
}

}  // namespace accelmm
