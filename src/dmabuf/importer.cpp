// SPDX-License-Identifier: Apache-2.0
#include "dmabuf/importer.hpp"

namespace accelmm::dmabuf {

Result<SealedMemfd> import_view(std::vector<Piece> pieces) {
  if (pieces.empty()) return fail(Errc::invalid_argument, "nothing to import");
  if (pieces.size() > 1) return fail(Errc::not_supported, "imports of several pieces");
  auto memfd = SealedMemfd::adopt(std::move(pieces.front().fd));
  if (!memfd) return memfd;
  const ByteCount offset = pieces.front().offset;
  const ByteCount length = pieces.front().length;
  if (offset > memfd->size() || length > memfd->size() - offset || length == ByteCount(0))
    return fail(Errc::invalid_argument, "piece ends beyond its file");
  if (offset != ByteCount(0) || length != memfd->size())
    return fail(Errc::not_supported, "imports of a part of a memfd");
  return memfd;
}

}  // namespace accelmm::dmabuf
