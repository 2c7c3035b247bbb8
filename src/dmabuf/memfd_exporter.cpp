// SPDX-License-Identifier: Apache-2.0
#include "dmabuf/memfd_exporter.hpp"

#include "base/system.hpp"

#include <fcntl.h>

namespace accelmm::dmabuf {

namespace {

// A descriptor that can be written through is wider than a read-only export, whatever mode it was
// opened in: a holder opens it again. Only seals last.
Result<void> check_seals(FdView memfd, Access access) {
  const auto seals = sys::get_seals(memfd);
  if (!seals) {
    if (seals.error().code != Errc::invalid_argument) return fail(seals.error());
    return fail(Errc::not_supported, "not a memory file");
  }
  if ((*seals & F_SEAL_SHRINK) == 0)
    return fail(Errc::invalid_argument, "memory file is not sealed against shrinking");
  const bool write_sealed = (*seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) != 0;
  if (write_sealed && allows(access, Access::write))
    return fail(Errc::not_permitted, "memory file is sealed against writing");
  if (!write_sealed && !allows(access, Access::write))
    return fail(Errc::not_supported, "memory file is not sealed against writing");
  return {};
}

}  // namespace

Result<std::vector<Piece>> MemfdExporter::make_pieces(const ExportRequest& request) {
  std::vector<Piece> pieces;
  pieces.reserve(request.ranges.size());
  for (const FileRange& range : request.ranges) {
    if (const auto checked = check_seals(range.memfd, request.options.access); !checked)
      return fail(checked.error());
    auto fd = duplicate(range.memfd);
    if (!fd) return fail(fd.error());
    pieces.push_back({std::move(*fd), range.offset, range.length});
  }
  return pieces;
}

}  // namespace accelmm::dmabuf
