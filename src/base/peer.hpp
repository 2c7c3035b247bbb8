// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/transport.hpp>

namespace accelmm {

/// This process, as a peer of itself.
[[nodiscard]] Peer own_peer();

}  // namespace accelmm
