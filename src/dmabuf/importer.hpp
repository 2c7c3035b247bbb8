// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "dmabuf/exporter.hpp"
#include "mm/backing/sealed_memfd.hpp"

#include <vector>

namespace accelmm::dmabuf {

/// Takes what somebody exported as memory of ours, without a copy: exactly one sealed memfd, whole.
///
/// Errors  invalid_argument: not sealed against shrinking and growing, or a range that is not the
/// file's.
///         not_supported: not a memfd, a part of one, or more than one piece.
/// The descriptors are consumed either way.
[[nodiscard]] Result<SealedMemfd> import_view(std::vector<Piece> pieces);

}  // namespace accelmm::dmabuf
