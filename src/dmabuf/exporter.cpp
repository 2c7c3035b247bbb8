// SPDX-License-Identifier: Apache-2.0
#include "dmabuf/exporter.hpp"

#include "dmabuf/memfd_exporter.hpp"

namespace accelmm::dmabuf {

Result<std::vector<Piece>> Exporter::export_view(const Source& source) {
  if (source.length == ByteCount(0)) return fail(Errc::invalid_argument, "range is empty");
  if (source.offset > source.memfd_size || source.length > source.memfd_size - source.offset)
    return fail(Errc::invalid_argument, "range ends beyond the buffer");
  const ExporterCapabilities can = capabilities();
  const bool whole = source.offset == ByteCount(0) && source.length == source.memfd_size;
  if (can.parts == ExporterCapabilities::Parts::whole_only && !whole)
    return fail(Errc::not_supported, "this exporter's descriptors reach the whole buffer");
  if (source.length > can.largest)
    return fail(Errc::not_supported, "range exceeds what this exporter can do");
  return make_pieces(source);
}

Exporter& default_exporter() {
  static MemfdExporter exporter;  // stateless
  return exporter;
}

}  // namespace accelmm::dmabuf
