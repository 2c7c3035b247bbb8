// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "dmabuf/exporter.hpp"
#include "dmabuf/shared_file.hpp"

#include <accelmm/access.hpp>
#include <accelmm/error.hpp>
#include <accelmm/import_needs.hpp>
#include <accelmm/units.hpp>

#include <vector>

namespace accelmm::dmabuf {

/// A piece of memory that was exported to us.
struct ImportedPiece {
  SharedFile file;
  ByteCount offset;
  ByteCount length;
};

/// Memory that was exported to us: pieces, one after the other.
struct Import {
  std::vector<ImportedPiece> pieces;  ///< at least one
  ByteCount length;
  Access access;  ///< what can be done with all of it
};

/// Takes what somebody exported as memory of ours, without a copy.
///
/// Errors  invalid_argument: no pieces, one that is no range of its file or not whole pages, a
///         memfd that is not sealed against shrinking and growing.  not_supported: neither a memfd
///         nor a dma-buf, or not what is needed.  not_permitted: writing is needed and forbidden.
///         overflow.  Any value of fstat(2), fstatfs(2), lseek(2).
/// The descriptors are consumed either way.
[[nodiscard]] Result<Import> import_view(std::vector<Piece> pieces, const ImportNeeds& needs = {});

}  // namespace accelmm::dmabuf
