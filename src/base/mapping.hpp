// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>
#include <accelmm/units.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

namespace accelmm {

/// The page size of the host's MMU: what offsets and lengths of mappings are rounded to.
[[nodiscard]] ByteCount host_page_size() noexcept;

/// Whether it is some bytes, from the beginning of a page to the end of one.
[[nodiscard]] bool is_whole_pages(std::span<const std::byte> memory) noexcept;

/// Owns a mapped range of this process's addresses.
///
/// Owns      the address range; not the descriptor it was made from, which may be closed.
/// Threads   externally synchronised.
/// Lifetime  move-only; the destructor unmaps. An empty one owns nothing.
class Mapping {
 public:
  Mapping() = default;
  Mapping(Mapping&& other) noexcept;
  Mapping& operator=(Mapping&& other) noexcept;
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() { reset(); }

  /// Maps [fd_offset, fd_offset + length) of a file, shared. Neither needs to be a multiple of the
  /// page size: the rounding stays inside, and bytes() is exactly what was asked for. Errors
  /// invalid_argument: length is 0.  overflow: the range ends beyond 64 bits.  Any value of
  /// mmap(2).
  /// `page`  what the file is mapped in: the host's page, or a larger one of a pool of huge pages.
  [[nodiscard]] static Result<Mapping> create(FdView fd, std::uint64_t fd_offset, ByteCount length,
                                              int prot,
                                              Alignment page = Alignment(host_page_size().value()));

  /// Takes addresses and no memory: every access to them faults until something is mapped there.
  /// Errors  as create().
  [[nodiscard]] static Result<Mapping> reserve(ByteCount length);

  /// The bytes asked for; what may be done with them is what `prot` said.
  [[nodiscard]] std::span<std::byte> bytes() const noexcept { return bytes_; }
  [[nodiscard]] bool valid() const noexcept { return !bytes_.empty(); }

  /// Leaves the range out of children that fork(2) makes.
  [[nodiscard]] Result<void> exclude_from_fork();

  /// Puts the pages over other addresses, in the place of what is mapped there, and gives them up:
  /// this is empty then. Pre     whole pages; the two ranges are apart.
  /// Errors  any value of mremap(2): this is as it was.
  [[nodiscard]] Result<void> move_over(std::byte* target);

  /// Unmaps now. All pointers into bytes() dangle.
  void reset() noexcept;

 private:
  Mapping(std::byte* base, ByteCount mapped, std::span<std::byte> bytes)
      : base_(base), mapped_(mapped), bytes_(bytes) {}

  std::byte* base_ = nullptr;  // page-aligned, at or below bytes_
  ByteCount mapped_;           // whole pages
  std::span<std::byte> bytes_;
};

}  // namespace accelmm
