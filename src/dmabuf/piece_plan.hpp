// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "dmabuf/exporter.hpp"

#include <vector>

namespace accelmm::dmabuf {

/// What one dma-buf may be made of.
struct PieceLimits {
  ByteCount largest;          ///< whole pages, at least one
  std::uint32_t most_ranges;  ///< at least 1
};

/// Ranges of files, one after the other, as pieces within the limits.
///
/// What follows directly on what is before it in its file is joined to it; what is longer than a
/// piece may be is cut at whole pieces. The order of the bytes stays, and so does what is there
/// twice.
/// Cost    O(ranges + pieces).
/// Pre     no range is empty, and all are whole pages of the same size that `largest` is.
[[nodiscard]] std::vector<std::vector<FileRange>> plan_pieces(std::span<const FileRange> ranges,
                                                              const PieceLimits& limits);

}  // namespace accelmm::dmabuf
