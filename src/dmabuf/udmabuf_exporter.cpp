// SPDX-License-Identifier: Apache-2.0
//
// Each dma-buf is over pages of memory files and nothing else, so that the CPU's own mapping,
// io_uring, O_DIRECT and VFIO go on using the file: a mapping of a dma-buf itself is closed to them
// (docs/dmabuf.md).
#include "dmabuf/udmabuf_exporter.hpp"

#include "base/mapping.hpp"
#include "base/system.hpp"
#include "base/system_dmabuf.hpp"
#include "dmabuf/dma_buf.hpp"
#include "dmabuf/udmabuf_refusal.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

#include <fcntl.h>

namespace accelmm::dmabuf {

namespace {

// Of drivers/dma-buf/udmabuf.c, where the parameters cannot be read.
constexpr std::uint64_t default_size_limit_mb = 64;
constexpr std::uint64_t default_list_limit = 1024;

// Nothing larger can be a file.
constexpr std::uint64_t most_mb = std::numeric_limits<std::int64_t>::max() >> 20;

constexpr Error unexplained{Errc::invalid_argument, "udmabuf refuses the ranges"};

std::uint64_t read_number(const std::string& path, std::uint64_t otherwise) {
  const auto file = sys::open(path, O_RDONLY);
  if (!file) return otherwise;
  std::array<char, 32> text{};
  const auto size = sys::read(file->view(), std::as_writable_bytes(std::span(text)));
  if (!size) return otherwise;
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + *size, number);
  return error == std::errc() && end != text.data() && number > 0 ? number : otherwise;
}

bool is_refusal(Errc code) {
  return code == Errc::invalid_argument || code == static_cast<Errc>(EBADFD);
}

}  // namespace

Result<std::unique_ptr<UdmabufExporter>> UdmabufExporter::open(const Options& options) {
  // Read-only suffices for its ioctls, and writes to nothing by mistake.
  auto device = sys::open(options.device, O_RDONLY);
  if (!device) return fail(device.error());
  return std::unique_ptr<UdmabufExporter>(new UdmabufExporter(std::move(*device), options));
}

UdmabufExporter::UdmabufExporter(UniqueFd device, Options options)
    : device_(std::move(device)), options_(std::move(options)) {
  const PieceLimits limits = read_limits();
  largest_ = limits.largest.value();
  most_ranges_ = limits.most_ranges;
}

PieceLimits UdmabufExporter::read_limits() const {
  const std::uint64_t size_mb =
      read_number(options_.parameters + "/size_limit_mb", default_size_limit_mb);
  const std::uint64_t ranges = read_number(options_.parameters + "/list_limit", default_list_limit);
  return {.largest = ByteCount(std::min(size_mb, most_mb) << 20),
          .most_ranges = static_cast<std::uint32_t>(
              std::min<std::uint64_t>(ranges, std::numeric_limits<std::int32_t>::max()))};
}

Capabilities UdmabufExporter::capabilities() const {
  return {.kind = DescriptorKind::dma_buf,
          .parts = Can::yes,
          .scattered = Can::yes,
          .read_only = Can::no,
          .huge_pages = options_.huge_pages == HugeImportable::allowed ? Can::yes : Can::no,
          .accounted = Can::yes,
          .largest = ByteCount(largest_.load(std::memory_order_relaxed)),
          .most_ranges = most_ranges_.load(std::memory_order_relaxed)};
}

Result<void> UdmabufExporter::check_files(std::span<const FileRange> ranges) const {
  const Alignment page(host_page_size().value());
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    const FileRange& range = ranges[i];
    if (!page.divides(range.offset) || !page.divides(range.length))
      return fail(error_of(UdmabufRefusal::unaligned));
    // Ranges of one file mostly come one after the other.
    if (i > 0 && range.memfd.get() == ranges[i - 1].memfd.get()) continue;
    if (options_.huge_pages == HugeImportable::allowed) continue;
    const auto huge = may_have_huge_folios(range.memfd, range.file_size, folios_);
    // A file that cannot be written cannot be looked at; the kernel refuses it, and for that.
    if (!huge && huge.error().code != Errc::not_permitted) return fail(huge.error());
    if (huge && *huge)
      return fail(Errc::not_supported, "this kernel is not known to share huge pages rightly");
  }
  return {};
}

Result<Piece> UdmabufExporter::make_piece(std::span<const FileRange> ranges,
                                          std::string_view name) const {
  std::vector<sys::MemfdRange> items;
  items.reserve(ranges.size());
  ByteCount length;
  for (const FileRange& range : ranges) {
    items.push_back({range.memfd, range.offset.value(), range.length.value()});
    length += range.length;
  }
  auto fd = items.size() == 1 ? sys::udmabuf_create(device_.view(), items.front())
                              : sys::udmabuf_create_list(device_.view(), items);
  if (!fd) return fail(fd.error());
  if (!name.empty())
    if (const auto named = name_dma_buf(fd->view(), name); !named) return fail(named.error());
  return Piece{std::move(*fd), ByteCount(), length};
}

Result<std::vector<Piece>> UdmabufExporter::try_pieces(const ExportRequest& request,
                                                       const PieceLimits& limits) const {
  const auto plan = plan_pieces(request.ranges, limits);
  if (plan.size() > request.options.most_pieces)
    return fail(Errc::not_supported, "export has too many pieces");
  std::vector<Piece> pieces;
  pieces.reserve(plan.size());
  for (const std::vector<FileRange>& ranges : plan) {
    auto piece = make_piece(ranges, request.options.name);
    if (!piece) return fail(piece.error());
    pieces.push_back(std::move(*piece));
  }
  return pieces;
}

Result<std::vector<Piece>> UdmabufExporter::make_pieces(const ExportRequest& request) {
  if (const auto checked = check_files(request.ranges); !checked) return fail(checked.error());
  const Capabilities known = capabilities();
  auto pieces = try_pieces(request, {known.largest, known.most_ranges});
  if (pieces || !is_refusal(pieces.error().code)) return pieces;
  // Somebody may have lowered the limits meanwhile.
  const PieceLimits limits = read_limits();
  largest_.store(limits.largest.value(), std::memory_order_relaxed);
  most_ranges_.store(limits.most_ranges, std::memory_order_relaxed);
  if (limits.largest != known.largest || limits.most_ranges != known.most_ranges)
    pieces = try_pieces(request, limits);
  if (pieces || !is_refusal(pieces.error().code)) return pieces;
  return fail(explain(request, pieces.error()));
}

// The kernel says EINVAL to everything.
Error UdmabufExporter::explain(const ExportRequest& request, Error error) const {
  const Capabilities can = capabilities();
  const auto plan = plan_pieces(request.ranges, {can.largest, can.most_ranges});
  for (const std::vector<FileRange>& ranges : plan) {
    const auto refusal = diagnose_udmabuf(ranges, {can.largest, can.most_ranges});
    if (!refusal) return refusal.error();
    if (*refusal != UdmabufRefusal::none) return error_of(*refusal);
  }
  return error.code == Errc::invalid_argument ? unexplained : error;
}

}  // namespace accelmm::dmabuf
