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

/// Maps a piece that is not believed: touching what a file does not have would be SIGBUS, so its
/// size is looked at first. Children of fork(2) do not have the mapping.
/// Errors  protocol_error: the file ends before the piece.  Those of Mapping::create().
[[nodiscard]] Result<Mapping> map_received_piece(const FilePiece& piece, Access access);

/// Makes a second descriptor of the same open file.
[[nodiscard]] Result<UniqueFd> duplicate_fd(FdView fd);

}  // namespace accelmm
