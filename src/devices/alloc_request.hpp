// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "devices/region.hpp"

#include <accelmm/error.hpp>
#include <accelmm/uapi.h>
#include <accelmm/units.hpp>

#include <cstdint>

namespace accelmm::devices {

/// What an application asks of a region. Sizes, kinds of pages and rules of nodes are checked where
/// they are used.
/// Errors  invalid_argument: unknown flags or domain, or some that contradict each other.
[[nodiscard]] Result<Region::Request> request_of(const accelmm_alloc& args);

/// The same for device memory, of its size and ACCELMM_ALLOC_* alone, and the flags of a request.
[[nodiscard]] Result<Region::Request> device_request(ByteCount size, std::uint32_t flags);
[[nodiscard]] std::uint32_t wire_flags(const Region::Request& request);

}  // namespace accelmm::devices
