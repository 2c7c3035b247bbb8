// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/dmabuf.hpp>
#include <accelmm/error.hpp>
#include <accelmm/trial_import.hpp>

#include <vector>

namespace accelmm {

/// What this machine makes dma-bufs from, for settle().
struct BufferSources {
  /// Memory files through udmabuf, then heaps, then the DRM node. Each gives zeroed memory of whole
  /// pages, and keeps open what it is had from.
  /// Errors of `allocate`  invalid_argument: no whole pages.  no_memory.  over_quota.  Those of the
  ///         kernel.
  std::vector<BufferSource> sources;
  std::vector<SharingBackEnd> report;  ///< all that were looked for
};

/// Looks for sources as the policy allows. Its `largest_sourced` holds for each buffer of a heap or a
/// DRM node; how many there are is up to who has their descriptors, and not counted.
/// Errors  no_memory. No source at all is no error.
[[nodiscard]] Result<BufferSources> find_buffer_sources(const SharingPolicy& policy = {}) noexcept;

}  // namespace accelmm
