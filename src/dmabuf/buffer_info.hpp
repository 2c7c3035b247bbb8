// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>
#include <accelmm/units.hpp>

#include <cstdint>
#include <string>
#include <string_view>

namespace accelmm::dmabuf {

/// What the kernel says about a dma-buf in /proc/self/fdinfo.
struct BufferInfo {
  ByteCount size;
  std::uint64_t holders = 0;  ///< descriptors in all processes, mappings, importers
  std::string exporter;       ///< "udmabuf", "system", "drm", ...
  std::string name;           ///< empty: it has none
};

/// Reads such a text. Lines that are not known are passed over: kernels add some.
/// Errors  protocol_error: no size, count or exporter, or a number that is none.
[[nodiscard]] Result<BufferInfo> parse_buffer_info(std::string_view text);

/// Errors  not_supported: not a dma-buf.  Any value of open(2), read(2): /proc may be missing.
[[nodiscard]] Result<BufferInfo> buffer_info(FdView buffer);

}  // namespace accelmm::dmabuf
