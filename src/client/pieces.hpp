// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "client/buffer_calls.hpp"

#include <accelmm/buffer.hpp>
#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>
#include <accelmm/uapi.h>
#include <accelmm/units.hpp>

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace accelmm {

/// Lists of {descriptor, offset, length} between this process and a packet, where descriptors are
/// numbers of their places beside it.

/// The first `count` of the pieces in a packet.
/// Errors  protocol_error: none, or more than there is room for.
[[nodiscard]] Result<std::span<const accelmm_piece>> pieces_in_use(
    std::span<const accelmm_piece, ACCELMM_MAX_PIECES> pieces, std::uint32_t count);

/// Joins the pieces of a packet with the descriptors that came beside it. Pieces that share a
/// descriptor get one each.
/// Errors  protocol_error: a descriptor that did not come or that no piece names, a piece of no
///         bytes or that ends beyond 64 bits, a reserved field that is set. Descriptors are closed.
[[nodiscard]] Result<Export> pieces_from_wire(std::span<const accelmm_piece> pieces,
                                              std::vector<UniqueFd> fds);

/// Writes pieces and their descriptors into a packet. Returns the bytes they have together.
/// Errors  invalid_argument: none or too many pieces, or one of no bytes.  overflow.
[[nodiscard]] Result<ByteCount> pieces_to_wire(std::span<const PieceView> pieces,
                                               std::span<accelmm_piece, ACCELMM_MAX_PIECES> into,
                                               std::span<FdView, ACCELMM_MAX_PIECES> fds);

/// What send_export() and receive_export() do, with borrowed descriptors to send.
[[nodiscard]] Result<void> send_pieces(FdView socket, std::span<const PieceView> pieces);

/// Runs `use` with the pieces of an export, borrowed.
template <class Use>
auto with_views(const Export& view, Use use) {
  std::array<PieceView, ACCELMM_MAX_PIECES> pieces;
  const std::size_t count = view.pieces.size();
  // Too many are refused as none are, by pieces_to_wire().
  if (count > pieces.size()) return use(std::span<const PieceView>());
  for (std::size_t i = 0; i < count; ++i)
    pieces[i] = {view.pieces[i].fd.view(), view.pieces[i].offset, view.pieces[i].length};
  return use(std::span<const PieceView>(pieces).first(count));
}

}  // namespace accelmm
