// SPDX-License-Identifier: Apache-2.0
#include "capi/guarded.hpp"
#include "capi/session.hpp"
#include "capi/view.hpp"
#include "client/buffer_calls.hpp"
#include "client/pieces.hpp"

#include <array>
#include <cstddef>
#include <span>
#include <utility>

namespace accelmm {

namespace {

// Gives the descriptors of an export to the caller. Cannot fail.
void give_to_c(Export view, accelmm_shared_view& shared) noexcept {
  shared = {};
  for (Export::Piece& piece : view.pieces)
    shared.pieces[shared.count++] = {.fd = piece.fd.release(),
                                     .reserved = 0,
                                     .offset = piece.offset,
                                     .length = piece.length.value()};
}

// Runs `use` with the pieces that a caller lends.
template <class Use>
int with_pieces_of(const accelmm_shared_view& shared, Use use) {
  if (shared.count > ACCELMM_MAX_PIECES || shared.reserved != 0) return -EINVAL;
  std::array<PieceView, ACCELMM_MAX_PIECES> pieces;
  for (std::size_t i = 0; i < shared.count; ++i) {
    const accelmm_shared_piece& piece = shared.pieces[i];
    if (piece.reserved != 0) return -EINVAL;
    pieces[i] = {FdView(piece.fd), piece.offset, ByteCount(piece.length)};
  }
  return use(std::span<const PieceView>(pieces).first(shared.count));
}

}  // namespace

}  // namespace accelmm

extern "C" {

int accelmm_buffer_export(accelmm_session* session, const struct accelmm_view* view,
                          struct accelmm_shared_view* shared) {
  using namespace accelmm;
  if (shared != nullptr) shared->count = 0;
  if (session == nullptr || view == nullptr || shared == nullptr) return -EINVAL;
  return guarded([&] {
    const auto piece = view_from_c(*view);
    if (!piece) return to_c(piece.error());
    auto exported = export_view(*session->link, *piece);
    if (!exported) return to_c(exported.error());
    give_to_c(std::move(*exported), *shared);
    return 0;
  });
}

int accelmm_buffer_import(accelmm_session* session, const struct accelmm_shared_view* shared,
                          struct accelmm_buffer* buffer) {
  using namespace accelmm;
  if (session == nullptr || shared == nullptr || buffer == nullptr) return -EINVAL;
  return guarded([&] {
    return with_pieces_of(*shared, [&](std::span<const PieceView> pieces) {
      const auto made = import_pieces(*session->link, pieces);
      if (!made) return to_c(made.error());
      *buffer = buffer_to_c(*made);
      return 0;
    });
  });
}

int accelmm_shared_view_send(int socket, const struct accelmm_shared_view* shared) {
  using namespace accelmm;
  if (shared == nullptr) return -EINVAL;
  return guarded([&] {
    return with_pieces_of(*shared, [&](std::span<const PieceView> pieces) {
      return to_c(send_pieces(FdView(socket), pieces));
    });
  });
}

int accelmm_shared_view_receive(int socket, struct accelmm_shared_view* shared) {
  using namespace accelmm;
  if (shared == nullptr) return -EINVAL;
  shared->count = 0;
  return guarded([&] {
    auto received = receive_export(FdView(socket));
    if (!received) return to_c(received.error());
    give_to_c(std::move(*received), *shared);
    return 0;
  });
}

}  // extern "C"
