// SPDX-License-Identifier: Apache-2.0
#include "dmabuf/exporter.hpp"

namespace accelmm::dmabuf {

namespace {

bool is_whole(const FileRange& range) {
  return range.offset == ByteCount() && range.length == range.file_size;
}

Result<void> check_range(const FileRange& range, const Capabilities& can) {
  if (range.length == ByteCount()) return fail(Errc::invalid_argument, "range is empty");
  if (range.offset > range.file_size || range.length > range.file_size - range.offset)
    return fail(Errc::invalid_argument, "range ends beyond the buffer");
  if (can.parts == Can::no && !is_whole(range))
    return fail(Errc::not_supported, "this exporter's descriptors reach the whole buffer");
  return {};
}

}  // namespace

Result<std::vector<Piece>> Exporter::export_view(const ExportRequest& request) {
  if (request.ranges.empty()) return fail(Errc::invalid_argument, "nothing to export");
  if (!allows(request.options.access, Access::read))
    return fail(Errc::invalid_argument, "exports can at least be read");
  const Capabilities can = capabilities();
  std::uint64_t total = 0;
  for (const FileRange& range : request.ranges) {
    if (const auto checked = check_range(range, can); !checked) return fail(checked.error());
    if (__builtin_add_overflow(total, range.length.value(), &total))
      return fail(Errc::overflow, "ranges are longer than 64 bits");
  }
  if (request.options.access == Access::read && can.read_only == Can::no)
    return fail(Errc::not_supported, "this exporter's descriptors can be written through");
  auto pieces = make_pieces(request);
  if (pieces && pieces->size() > request.options.most_pieces)
    return fail(Errc::not_supported, "export has too many pieces");
  return pieces;
}

}  // namespace accelmm::dmabuf
