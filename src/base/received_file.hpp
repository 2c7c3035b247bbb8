// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/mapping.hpp"

#include <accelmm/access.hpp>
#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>
#include <accelmm/units.hpp>

#include <cstdint>

namespace accelmm {

/// A piece of a file that came from another process, with what that process said about it.
struct FilePiece {
  FdView fd;
  std::uint64_t offset;
  ByteCount length;
};

/// PROT_* for mmap(2).
[[nodiscard]] int protection_of(Access access) noexcept;

/// Looks whether a file that is not believed has the piece: touching what it does not have would be
/// SIGBUS.
/// Errors  protocol_error: the file ends before the piece.  Any value of fstat(2).
[[nodiscard]] Result<void> check_received_piece(const FilePiece& piece);

/// Maps a piece that is not believed: touching what a file does not have would be SIGBUS, so its
/// size is looked at first. Children of fork(2) do not have the mapping.
/// Errors  protocol_error: the file ends before the piece.  Those of Mapping::create().
[[nodiscard]] Result<Mapping> map_received_piece(const FilePiece& piece, Access access);

/// Makes a second descriptor of the same open file.
[[nodiscard]] Result<UniqueFd> duplicate_fd(FdView fd);

}  // namespace accelmm
