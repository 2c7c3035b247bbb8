// SPDX-License-Identifier: Apache-2.0
#include "dmabuf/importer.hpp"

#include "base/mapping.hpp"
#include "dmabuf/buffer_info.hpp"

namespace accelmm::dmabuf {

namespace {

Result<void> check_range(const Piece& piece, const SharedFile& file, Alignment alignment) {
  if (piece.length == ByteCount()) return fail(Errc::invalid_argument, "piece of no bytes");
  if (piece.offset > file.size() || piece.length > file.size() - piece.offset)
    return fail(Errc::invalid_argument, "piece ends beyond its file");
  const Alignment page(host_page_size().value());
  if (!page.divides(piece.offset) || !page.divides(piece.length))
    return fail(Errc::invalid_argument, "piece is not whole pages");
  if (!alignment.divides(piece.offset) || !alignment.divides(piece.length))
    return fail(Errc::not_supported, "piece is not aligned as the importer needs");
  return {};
}

// Memory files and udmabufs of them are cached like all of a process's memory, and so is the
// system heap's. What others export may need more, and nothing tells.
bool is_coherent(const SharedFile& file) {
#if defined(__x86_64__)
  if (file.kind() == DescriptorKind::memory_file) return true;
  const auto info = buffer_info(file.fd());
  if (!info) return false;
  return info->exporter == "udmabuf" || info->exporter == "system";
#else
  return file.kind() == DescriptorKind::memory_file;
#endif
}

// One page is one run wherever it lies; more may be anything. Nor can an address be told.
Result<void> check_unknowns(const Import& view, const ImportNeeds& needs) {
  const std::uint64_t pages = view.length.value() / host_page_size().value();
  if (pages > needs.most_segments)
    return fail(Errc::not_supported, "nothing shows that the memory is in so few segments");
  if (needs.address_bits < 64)
    return fail(Errc::not_supported, "nothing shows that the memory is below the address limit");
  return {};
}

}  // namespace

Result<Import> import_view(std::vector<Piece> pieces, const ImportNeeds& needs) {
  if (pieces.empty()) return fail(Errc::invalid_argument, "nothing to import");
  Import view{.pieces = {}, .length = {}, .access = Access::read_write};
  view.pieces.reserve(pieces.size());
  std::uint64_t length = 0;
  for (Piece& piece : pieces) {
    auto file = SharedFile::adopt(std::move(piece.fd));
    if (!file) return fail(file.error());
    if (const auto checked = check_range(piece, *file, needs.alignment); !checked)
      return fail(checked.error());
    if (needs.coherence == ImportNeeds::Coherence::always && !is_coherent(*file))
      return fail(Errc::not_supported, "nothing shows that the memory needs no brackets");
    if (!allows(file->access(), Access::write)) view.access = Access::read;
    if (__builtin_add_overflow(length, piece.length.value(), &length))
      return fail(Errc::overflow, "pieces are longer than 64 bits");
    view.pieces.push_back({std::move(*file), piece.offset, piece.length});
  }
  view.length = ByteCount(length);
  if (!allows(view.access, needs.access)) return fail(Errc::not_permitted, "memory is read-only");
  if (const auto known = check_unknowns(view, needs); !known) return fail(known.error());
  return view;
}

}  // namespace accelmm::dmabuf
