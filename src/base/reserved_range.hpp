// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/process_mark.hpp"

#include <accelmm/access.hpp>
#include <accelmm/error.hpp>
#include <accelmm/extent.hpp>
#include <accelmm/fd.hpp>
#include <accelmm/units.hpp>

#include <cstddef>
#include <cstdint>
#include <span>

namespace accelmm {

/// Addresses of this process in which pieces of files come and go. Where none is, every access
/// faults.
///
/// Owns      the addresses; not the files, whose descriptors may be closed when they are placed.
/// Threads   several threads may place and remove in different parts at once.
/// Lifetime  move-only; the destructor unmaps everything, but in a forked child nothing: pieces are
///           not there, and the child may have put something else in their place.
class ReservedRange {
 public:
  /// Takes addresses that begin at a multiple of `alignment`.
  /// Errors  invalid_argument: size is 0.  overflow.  Any value of mmap(2).
  [[nodiscard]] static Result<ReservedRange> create(ByteCount size, Alignment alignment);

  ReservedRange(ReservedRange&& other) noexcept;
  ReservedRange& operator=(ReservedRange&&) = delete;
  ~ReservedRange();

  [[nodiscard]] std::byte* base() const noexcept { return base_; }
  [[nodiscard]] ByteCount size() const noexcept { return size_; }

  /// Puts [fd_offset, fd_offset + extent.length) of a file there. Children of fork(2) do not have
  /// it.
  /// Pre     whole pages of the host, inside the range.
  /// Errors  any value of mmap(2), madvise(2): it may be there all the same, and is to be removed.
  [[nodiscard]] Result<void> place(Extent extent, FdView fd, std::uint64_t fd_offset,
                                   Access access);
  /// Takes what is there away.
  /// Errors  any value of mmap(2): it is still there.
  [[nodiscard]] Result<void> remove(Extent extent);

 private:
  ReservedRange(std::span<std::byte> mapped, std::byte* base, ByteCount size)
      : mapped_(mapped), base_(base), size_(size) {}

  std::span<std::byte> mapped_;  // whole pages
  std::byte* base_;
  ByteCount size_;
  ProcessMark maker_;
};

}  // namespace accelmm
