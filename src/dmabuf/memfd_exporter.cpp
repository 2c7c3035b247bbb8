// SPDX-License-Identifier: Apache-2.0
#include "dmabuf/memfd_exporter.hpp"

namespace accelmm::dmabuf {

Result<std::vector<Piece>> MemfdExporter::make_pieces(const Source& source) {
  auto fd = duplicate(source.memfd);
  if (!fd) return fail(fd.error());
  std::vector<Piece> pieces;
  pieces.push_back({std::move(*fd), source.offset, source.length});
  return pieces;
}

}  // namespace accelmm::dmabuf
