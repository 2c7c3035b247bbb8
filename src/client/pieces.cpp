// SPDX-License-Identifier: Apache-2.0
#include "client/pieces.hpp"

#include "base/packet.hpp"
#include "base/received_file.hpp"

#include <array>
#include <cstddef>
#include <limits>
#include <new>
#include <type_traits>
#include <utility>

namespace accelmm {

namespace {

// What send_export() sends between applications; descriptor i of the packet is that of piece i.
//
//  0       4       8
//  | magic | count | pieces, 24 bytes each; those from `count` on are zero
struct ExportPacket {
  std::uint32_t magic;
  std::uint32_t count;
  std::array<accelmm_piece, ACCELMM_MAX_PIECES> pieces;
};
static_assert(sizeof(ExportPacket) == 8 + ACCELMM_MAX_PIECES * sizeof(accelmm_piece));
static_assert(std::is_trivially_copyable_v<ExportPacket>);

constexpr std::uint32_t export_magic = 0x58454341;  // "ACEX" in the order of the bytes

Result<void> check_piece(const accelmm_piece& piece, std::size_t fd_count) {
  if (piece.fd >= fd_count)
    return fail(Errc::protocol_error, "piece of a descriptor that is not there");
  if (piece.reserved != 0) return fail(Errc::protocol_error, "piece with a reserved field set");
  if (piece.length == 0) return fail(Errc::protocol_error, "piece of no bytes");
  if (piece.length > std::numeric_limits<std::uint64_t>::max() - piece.offset)
    return fail(Errc::protocol_error, "piece ends beyond 64 bits");
  return {};
}

Result<ByteCount> add_length(ByteCount total, ByteCount length) {
  if (length.value() > std::numeric_limits<std::uint64_t>::max() - total.value())
    return fail(Errc::overflow, "pieces together are longer than 64 bits");
  return total + length;
}

}  // namespace

Result<std::span<const accelmm_piece>> pieces_in_use(
    std::span<const accelmm_piece, ACCELMM_MAX_PIECES> pieces, std::uint32_t count) {
  if (count == 0 || count > pieces.size())
    return fail(Errc::protocol_error, "export of no pieces, or of more than there is room for");
  return pieces.first(count);
}

Result<Export> pieces_from_wire(std::span<const accelmm_piece> pieces,
                                std::vector<UniqueFd> fds) try {
  Export view;
  view.pieces.reserve(pieces.size());
  // Where in `view` a descriptor went; a later piece that names it gets a duplicate.
  std::array<std::size_t, ACCELMM_MAX_FDS> owner;
  owner.fill(pieces.size());
  if (fds.size() > owner.size()) return fail(Errc::protocol_error, "too many descriptors");
  ByteCount total;
  for (const accelmm_piece& piece : pieces) {
    if (const auto checked = check_piece(piece, fds.size()); !checked) return fail(checked.error());
    const auto sum = add_length(total, ByteCount(piece.length));
    if (!sum) return fail(Errc::protocol_error, sum.error().what);
    total = *sum;
    UniqueFd fd = std::move(fds[piece.fd]);
    if (!fd.valid()) {
      auto copy = duplicate_fd(view.pieces[owner[piece.fd]].fd.view());
      if (!copy) return fail(copy.error());
      fd = std::move(*copy);
    } else {
      owner[piece.fd] = view.pieces.size();
    }
    view.pieces.push_back({std::move(fd), piece.offset, ByteCount(piece.length)});
  }
  for (const UniqueFd& fd : fds)
    if (fd.valid()) return fail(Errc::protocol_error, "descriptor that no piece names");
  return view;
} catch (const std::bad_alloc&) {
  return fail(Errc::no_memory, "no memory for an export");
}

Result<ByteCount> pieces_to_wire(std::span<const PieceView> pieces,
                                 std::span<accelmm_piece, ACCELMM_MAX_PIECES> into,
                                 std::span<FdView, ACCELMM_MAX_PIECES> fds) {
  if (pieces.empty() || pieces.size() > into.size())
    return fail(Errc::invalid_argument, "no pieces, or more than a message takes");
  ByteCount total;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const PieceView& piece = pieces[i];
    if (piece.length == ByteCount()) return fail(Errc::invalid_argument, "piece of no bytes");
    if (piece.length.value() > std::numeric_limits<std::uint64_t>::max() - piece.offset)
      return fail(Errc::overflow, "piece ends beyond 64 bits");
    const auto sum = add_length(total, piece.length);
    if (!sum) return sum;
    total = *sum;
    fds[i] = piece.fd;
    into[i] = {.fd = static_cast<std::uint32_t>(i),
               .reserved = 0,
               .offset = piece.offset,
               .length = piece.length.value()};
  }
  return total;
}

Result<void> send_pieces(FdView socket, std::span<const PieceView> pieces) {
  ExportPacket packet = {};
  packet.magic = export_magic;
  packet.count = static_cast<std::uint32_t>(pieces.size());
  std::array<FdView, ACCELMM_MAX_PIECES> fds;
  if (const auto total = pieces_to_wire(pieces, packet.pieces, fds); !total)
    return fail(total.error());
  return send_packet_to(socket, std::as_bytes(std::span(&packet, 1)),
                        std::span(fds).first(pieces.size()));
}

Result<void> send_export(FdView socket, const Export& view) {
  return with_views(
      view, [socket](std::span<const PieceView> pieces) { return send_pieces(socket, pieces); });
}

Result<Export> receive_export(FdView socket) {
  ExportPacket packet = {};
  auto fds =
      receive_packet_from(socket, std::as_writable_bytes(std::span(&packet, 1)), ACCELMM_MAX_FDS);
  if (!fds) return fail(fds.error());
  if (packet.magic != export_magic) return fail(Errc::protocol_error, "packet of something else");
  const auto used = pieces_in_use(packet.pieces, packet.count);
  if (!used) return fail(used.error());
  return pieces_from_wire(*used, std::move(*fds));
}

ByteCount Export::size() const {
  ByteCount total;
  for (const Piece& piece : pieces) total += piece.length;
  return total;
}

}  // namespace accelmm
