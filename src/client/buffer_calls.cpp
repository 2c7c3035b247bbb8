// SPDX-License-Identifier: Apache-2.0
#include "client/buffer_calls.hpp"

#include "base/mapping.hpp"
#include "base/received_file.hpp"
#include "client/pieces.hpp"
#include "dmabuf/cpu_access.hpp"
#include "dmabuf/dma_buf.hpp"

#include <array>
#include <limits>
#include <new>
#include <optional>
#include <utility>

namespace accelmm {

namespace {

Result<void> check_view(const View& view, Access access) {
  if (view.range.empty()) return fail(Errc::invalid_argument, "no bytes of a buffer");
  if (!is_valid(access)) return fail(Errc::invalid_argument, "no such access");
  return {};
}

std::uint32_t to_wire(Access access) {
  return static_cast<std::uint32_t>(access);
}

template <class Choice>
std::uint32_t flag_if(Choice choice, Choice chosen, std::uint32_t flag) {
  return choice == chosen ? flag : 0;
}

accelmm_backing_request backing_to_wire(const BackingRequest& request) {
  return {.pages = std::to_underlying(request.pages),
          .node_rule = std::to_underlying(request.nodes.rule),
          .nodes = request.nodes.nodes.bits,
          .flags = flag_if(request.rule, BackingRule::exact, ACCELMM_BACKING_EXACT) |
                   flag_if(request.lock, MemoryLock::locked, ACCELMM_BACKING_LOCK) |
                   flag_if(request.dumps, CoreDumps::excluded, ACCELMM_BACKING_NO_DUMP) |
                   flag_if(request.zero_on_free, ZeroOnFree::yes, ACCELMM_BACKING_ZERO_ON_FREE) |
                   flag_if(request.prefault, PrefaultPages::yes, ACCELMM_BACKING_PREFAULT) |
                   flag_if(request.importable, Importable::needed, ACCELMM_BACKING_IMPORTABLE),
          .reserved = 0};
}

std::optional<Errc> refusal_from_wire(std::int32_t status) {
  if (status == 0) return std::nullopt;
  return static_cast<Errc>(-status);
}

bool is_refusal(std::int32_t status) {
  constexpr std::int32_t largest_errno = 4095;  // what the kernel itself keeps free for them
  return status <= 0 && status >= -largest_errno;
}

// What a driver process says of a new mapping of `size` bytes.
Result<NewMapping> check_mapping(std::uint64_t at, const accelmm_point& wire, ByteCount size,
                                 DevicePlacement placement) {
  const DeviceAddr address(at);
  if (!make_range(address, size))
    return fail(Errc::protocol_error, "mapping ends beyond all device addresses");
  if (placement.rule() == ACCELMM_PLACE_FIXED && address != placement.address())
    return fail(Errc::protocol_error, "mapped at another address than the fixed one");
  const auto point = point_from_wire(wire);
  if (!point) return fail(point.error());
  return NewMapping{.address = address, .point = *point};
}

}  // namespace

Result<AllocationRequest> make_request(ByteCount size, const BufferOptions& options) {
  if (options.domain != Domain::host && options.domain != Domain::device)
    return fail(Errc::invalid_argument, "no such domain");
  AllocationRequest request{.size = size,
                            .domain = static_cast<std::uint32_t>(options.domain),
                            .flags = 0,
                            .backing = backing_to_wire(options.backing)};
  if (options.layout == Layout::contiguous) request.flags |= ACCELMM_ALLOC_CONTIGUOUS;
  switch (options.cpu) {
    case CpuVisibility::by_domain:
      return request;
    case CpuVisibility::visible:
      request.flags |= ACCELMM_ALLOC_CPU_VISIBLE;
      return request;
    case CpuVisibility::read_only:
      request.flags |= ACCELMM_ALLOC_CPU_READ_ONLY;
      // Only device memory needs to be asked to be visible at all.
      if (options.domain == Domain::device) request.flags |= ACCELMM_ALLOC_CPU_VISIBLE;
      return request;
  }
  return fail(Errc::invalid_argument, "no such visibility");
}

Result<NewBuffer> allocate_buffer(ClientLink& link, const AllocationRequest& request) {
  accelmm_alloc args = {.size = request.size.value(),
                        .domain = request.domain,
                        .flags = request.flags,
                        .handle = 0,
                        .backing = request.backing};
  if (const auto done = link.ioctl_alone(ACCELMM_IOCTL_ALLOC, args); !done)
    return fail(done.error());
  if (args.size == 0 || args.size < request.size.value())
    return fail(Errc::protocol_error, "less was allocated than asked for");
  return NewBuffer{
      .handle = args.handle, .size = ByteCount(args.size), .access = Access::read_write};
}

Result<void> free_buffer(ClientLink& link, std::uint64_t handle) {
  accelmm_free args = {.handle = handle};
  return link.ioctl_alone(ACCELMM_IOCTL_FREE, args);
}

Result<CpuPiece> request_cpu_map(ClientLink& link, const View& view, Access access) {
  if (const auto checked = check_view(view, access); !checked) return fail(checked.error());
  const ByteCount length = view.range.size();
  accelmm_map_cpu args = {.handle = view.handle,
                          .offset = view.range.begin.value(),
                          .length = length.value(),
                          .access = to_wire(access),
                          .fd = 0,
                          .fd_offset = 0};
  auto fds = link.ioctl_with_fds(ACCELMM_IOCTL_MAP_CPU, args);
  if (!fds) return fail(fds.error());
  if (fds->size() != 1 || args.fd != 0)
    return fail(Errc::protocol_error, "MAP_CPU gives exactly one descriptor");
  if (args.length != length.value())
    return fail(Errc::protocol_error, "another length than asked for was mapped");
  return CpuPiece{.fd = std::move(fds->front()), .offset = args.fd_offset};
}

Result<CpuMapping> map_cpu(ClientLink& link, const View& view, Access access) try {
  auto piece = request_cpu_map(link, view, access);
  if (!piece) return fail(piece.error());
  auto mapping = map_received_piece({piece->fd.view(), piece->offset, view.range.size()}, access);
  if (!mapping) return fail(mapping.error());
  const auto shared = dmabuf::is_dma_buf(piece->fd.view());
  if (!shared) return fail(shared.error());
  auto brackets = *shared ? dmabuf::CpuBrackets::create(std::move(piece->fd)) : nullptr;
  return CpuMapping(std::move(*mapping), std::move(brackets));
} catch (const std::bad_alloc&) {
  return fail(Errc::no_memory, "no memory for a mapping");
}

Result<NewMapping> map_device(ClientLink& link, const View& view, Access access,
                              DevicePlacement placement) {
  if (const auto checked = check_view(view, access); !checked) return fail(checked.error());
  accelmm_map_device args = {.handle = view.handle,
                             .offset = view.range.begin.value(),
                             .length = view.range.size().value(),
                             .address = placement.address().value(),
                             .placement = placement.rule(),
                             .access = to_wire(access),
                             .point = {}};
  if (const auto done = link.ioctl_alone(ACCELMM_IOCTL_MAP_DEVICE, args); !done)
    return fail(done.error());
  return check_mapping(args.address, args.point, view.range.size(), placement);
}

Result<NewMapping> map_memory(ClientLink& link, std::span<std::byte> memory, Access access,
                              DevicePlacement placement) {
  if (!is_whole_pages(memory)) return fail(Errc::invalid_argument, "memory is not whole pages");
  if (!is_valid(access)) return fail(Errc::invalid_argument, "no such access");
  accelmm_map_memory args = {.memory = reinterpret_cast<std::uintptr_t>(memory.data()),
                             .length = memory.size(),
                             .address = placement.address().value(),
                             .placement = placement.rule(),
                             .access = to_wire(access),
                             .point = {}};
  if (const auto done = link.ioctl_alone(ACCELMM_IOCTL_MAP_MEMORY, args); !done)
    return fail(done.error());
  return check_mapping(args.address, args.point, ByteCount(memory.size()), placement);
}

Result<Point> unmap_device(ClientLink& link, DeviceAddr address) {
  accelmm_unmap_device args = {.address = address.value(), .point = {}};
  if (const auto done = link.ioctl_alone(ACCELMM_IOCTL_UNMAP_DEVICE, args); !done)
    return fail(done.error());
  return point_from_wire(args.point);
}

Result<Export> export_view(ClientLink& link, const View& view) {
  if (const auto checked = check_view(view, Access::read); !checked) return fail(checked.error());
  accelmm_export args = {};
  args.handle = view.handle;
  args.offset = view.range.begin.value();
  args.length = view.range.size().value();
  auto fds = link.ioctl_with_fds(ACCELMM_IOCTL_EXPORT, args);
  if (!fds) return fail(fds.error());
  const auto used = pieces_in_use(args.pieces, args.count);
  if (!used) return fail(used.error());
  auto view_pieces = pieces_from_wire(*used, std::move(*fds));
  if (!view_pieces) return view_pieces;
  if (view_pieces->size() != view.range.size())
    return fail(Errc::protocol_error, "another length than asked for was exported");
  return view_pieces;
}

Result<accelmm_backing> read_backing(ClientLink& link, std::uint64_t handle,
                                     std::uint64_t deadline_ns) {
  accelmm_backing args = {};
  args.handle = handle;
  args.deadline_ns = deadline_ns;
  if (const auto done = link.ioctl_alone(ACCELMM_IOCTL_BACKING, args); !done)
    return fail(done.error());
  if (args.pages < ACCELMM_PAGES_BASE || args.pages > ACCELMM_PAGES_HUGE_1G ||
      args.prefault > ACCELMM_PREFAULT_FAILED)
    return fail(Errc::protocol_error, "backing of a kind that does not exist");
  for (const std::int32_t status : {args.refused_pages, args.refused_nodes, args.refused_lock,
                                    args.refused_dump, args.refused_prefault, args.refused_sample})
    if (!is_refusal(status)) return fail(Errc::protocol_error, "refusal that is no errno");
  return args;
}

BackingReport report_from_wire(const accelmm_backing& backing) noexcept {
  return {.pages = static_cast<PageSize>(backing.pages),
          .page_size = ByteCount(backing.page_size),
          .populated = ByteCount(backing.populated),
          .prefault = static_cast<PrefaultState>(backing.prefault),
          .prefaulted = ByteCount(backing.prefaulted),
          .locked = ByteCount(backing.locked),
          .sample = {.taken = backing.samples,
                     .present = backing.samples_present,
                     .huge = backing.samples_huge,
                     .nodes = {backing.nodes}},
          .refused = {.pages = refusal_from_wire(backing.refused_pages),
                      .nodes = refusal_from_wire(backing.refused_nodes),
                      .lock = refusal_from_wire(backing.refused_lock),
                      .dumps = refusal_from_wire(backing.refused_dump),
                      .prefault = refusal_from_wire(backing.refused_prefault),
                      .sample = refusal_from_wire(backing.refused_sample)}};
}

Result<NewBuffer> import_pieces(ClientLink& link, std::span<const PieceView> pieces) {
  accelmm_import args = {};
  std::array<FdView, ACCELMM_MAX_PIECES> fds;
  const auto total = pieces_to_wire(pieces, args.pieces, fds);
  if (!total) return fail(total.error());
  args.count = static_cast<std::uint32_t>(pieces.size());
  const auto used = std::span(fds).first(pieces.size());
  if (const auto done = link.ioctl_alone(ACCELMM_IOCTL_IMPORT, args, used); !done)
    return fail(done.error());
  if (args.size < total->value()) return fail(Errc::protocol_error, "less was imported than given");
  if (args.access == 0 || args.access > (ACCELMM_ACCESS_READ | ACCELMM_ACCESS_WRITE))
    return fail(Errc::protocol_error, "import with an unknown access");
  return NewBuffer{.handle = args.handle,
                   .size = ByteCount(args.size),
                   .access = static_cast<Access>(args.access)};
}

}  // namespace accelmm
