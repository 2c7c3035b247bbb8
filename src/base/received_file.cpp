// SPDX-License-Identifier: Apache-2.0
#include "base/received_file.hpp"

#include "base/system.hpp"

#include <bit>

#include <linux/magic.h>
#include <sys/mman.h>

namespace accelmm {

namespace {

/// Errors  as check_received_piece().
Result<struct stat> status_of(const FilePiece& piece) {
  auto status = sys::fstat(piece.fd);
  if (!status) return status;
  const auto size = status->st_size < 0 ? 0 : static_cast<std::uint64_t>(status->st_size);
  if (piece.offset > size || piece.length.value() > size - piece.offset)
    return fail(Errc::protocol_error, "a file is shorter than the piece it was sent for");
  return status;
}

// What a file is mapped in. Files of a pool of huge pages are mapped, and unmapped, in whole pages of
// the pool; others may name a large block too, for which nothing needs to be rounded.
Result<Alignment> mapped_page(FdView fd, const struct stat& status) {
  const Alignment host(host_page_size().value());
  const auto block = static_cast<std::uint64_t>(status.st_blksize);
  if (block <= host.value() || !std::has_single_bit(block)) return host;
  const auto magic = sys::file_system_magic(fd);
  if (!magic) return fail(magic.error());
  return *magic == HUGETLBFS_MAGIC ? Alignment(block) : host;
}

}  // namespace

int protection_of(Access access) noexcept {
  return (allows(access, Access::read) ? PROT_READ : 0) |
         (allows(access, Access::write) ? PROT_WRITE : 0);
}

Result<void> check_received_piece(const FilePiece& piece) {
  const auto status = status_of(piece);
  if (!status) return fail(status.error());
  return {};
}

Result<Mapping> map_received_piece(const FilePiece& piece, Access access) {
  const auto status = status_of(piece);
  if (!status) return fail(status.error());
  const auto page = mapped_page(piece.fd, *status);
  if (!page) return fail(page.error());
  auto mapping =
      Mapping::create(piece.fd, piece.offset, piece.length, protection_of(access), *page);
  if (!mapping) return mapping;
  if (const auto excluded = mapping->exclude_from_fork(); !excluded) return fail(excluded.error());
  return mapping;
}

Result<UniqueFd> duplicate_fd(FdView fd) {
  return sys::duplicate(fd);
}

}  // namespace accelmm
