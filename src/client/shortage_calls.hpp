// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "client/link.hpp"

#include <accelmm/device_heap.hpp>
#include <accelmm/error.hpp>
#include <accelmm/uapi.h>
#include <accelmm/units.hpp>

#include <cstdint>

namespace accelmm {

/// Asks why a request of device memory fails, or would; size 0: the last that failed.
/// Errors  protocol_error: more owners than there is room for.
[[nodiscard]] Result<accelmm_shortage> read_shortage(ClientLink& link, ByteCount size,
                                                     std::uint32_t flags);

/// Moves device memory.
[[nodiscard]] Result<accelmm_defragment> make_room(ClientLink& link, ByteCount budget,
                                                   ByteCount run);

/// The same as the heap of the driver process tells it.
[[nodiscard]] Shortage from_wire(const accelmm_shortage& shortage);

}  // namespace accelmm
