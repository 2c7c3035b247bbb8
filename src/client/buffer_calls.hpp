// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/mapping.hpp"
#include "client/link.hpp"

#include <accelmm/buffer.hpp>
#include <accelmm/error.hpp>

#include <cstdint>
#include <span>

namespace accelmm {

/// The ioctls about buffers, on bare handles: what Buffer and the C ABI are made of. Arguments that
/// only the driver process can judge are left to it; replies are checked here.

/// What to allocate, in the terms of accelmm_alloc.
struct AllocationRequest {
  ByteCount size;
  std::uint32_t domain;  ///< ACCELMM_DOMAIN_*
  std::uint32_t flags;   ///< ACCELMM_ALLOC_*
  accelmm_backing_request backing = {};
};
/// Errors  invalid_argument: an enumerator that does not exist.
[[nodiscard]] Result<AllocationRequest> make_request(ByteCount size, const BufferOptions& options);

/// A piece of a buffer.
struct View {
  std::uint64_t handle;
  BufferRange range;
};

/// A new handle and its memory.
struct NewBuffer {
  std::uint64_t handle;
  ByteCount size;
  Access access;
};

/// A new device mapping.
struct NewMapping {
  DeviceAddr address;
  Point point;
};

/// Export::Piece with a borrowed descriptor.
struct PieceView {
  FdView fd;
  std::uint64_t offset;
  ByteCount length;
};

[[nodiscard]] Result<NewBuffer> allocate_buffer(ClientLink& link, const AllocationRequest& request);
[[nodiscard]] Result<void> free_buffer(ClientLink& link, std::uint64_t handle);
/// What MAP_CPU answers: bytes of a file, as many as were asked for.
struct CpuPiece {
  UniqueFd fd;
  std::uint64_t offset;
};
[[nodiscard]] Result<CpuPiece> request_cpu_map(ClientLink& link, const View& view, Access access);
[[nodiscard]] Result<CpuMapping> map_cpu(ClientLink& link, const View& view, Access access);
[[nodiscard]] Result<NewMapping> map_device(ClientLink& link, const View& view, Access access,
                                            DevicePlacement placement);
/// Of memory of this process that is in no buffer.
[[nodiscard]] Result<NewMapping> map_memory(ClientLink& link, std::span<std::byte> memory,
                                            Access access, DevicePlacement placement);
[[nodiscard]] Result<Point> unmap_device(ClientLink& link, DeviceAddr address);
[[nodiscard]] Result<Export> export_view(ClientLink& link, const View& view);
/// The reply is checked: it names kinds and states that exist.
[[nodiscard]] Result<accelmm_backing> read_backing(ClientLink& link, std::uint64_t handle,
                                                   std::uint64_t deadline_ns);
[[nodiscard]] BackingReport report_from_wire(const accelmm_backing& backing) noexcept;
[[nodiscard]] Result<NewBuffer> import_pieces(ClientLink& link, std::span<const PieceView> pieces);

}  // namespace accelmm
