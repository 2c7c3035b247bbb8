// SPDX-License-Identifier: Apache-2.0
#include "base/received_file.hpp"

#include "base/system.hpp"

#include <sys/mman.h>

namespace accelmm {

int protection_of(Access access) noexcept {
  return (allows(access, Access::read) ? PROT_READ : 0) |
         (allows(access, Access::write) ? PROT_WRITE : 0);
}

Result<void> check_received_piece(const FilePiece& piece) {
  const auto status = sys::fstat(piece.fd);
  if (!status) return fail(status.error());
  const auto size = status->st_size < 0 ? 0 : static_cast<std::uint64_t>(status->st_size);
  if (piece.offset > size || piece.length.value() > size - piece.offset)
    return fail(Errc::protocol_error, "a file is shorter than the piece it was sent for");
  return {};
}

Result<Mapping> map_received_piece(const FilePiece& piece, Access access) {
  if (const auto checked = check_received_piece(piece); !checked) return fail(checked.error());
  auto mapping = Mapping::create(piece.fd, piece.offset, piece.length, protection_of(access));
  if (!mapping) return mapping;
  if (const auto excluded = mapping->exclude_from_fork(); !excluded) return fail(excluded.error());
  return mapping;
}

Result<UniqueFd> duplicate_fd(FdView fd) {
  return sys::duplicate(fd);
}

}  // namespace accelmm
