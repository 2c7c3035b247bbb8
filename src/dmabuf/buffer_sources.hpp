// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "dmabuf/back_ends.hpp"

#include <accelmm/trial_import.hpp>

#include <memory>
#include <vector>

namespace accelmm::dmabuf {

/// The back-ends that make dma-bufs, as sources of a negotiation, which share them.
/// Throws  std::bad_alloc.
[[nodiscard]] std::vector<BufferSource> buffer_sources(const std::shared_ptr<const BackEnds>& from);

}  // namespace accelmm::dmabuf
