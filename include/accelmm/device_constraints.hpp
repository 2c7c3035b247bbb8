// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/constraints.hpp>
#include <accelmm/uapi.h>

namespace accelmm {

/// What a device of ours demands of host memory that others made, by what it says of itself
/// (Client::device_info()): whole pages, as many as its address spaces and its window hold. Its MMU
/// makes one range of scattered pages; without one they must lie together.
[[nodiscard]] Constraints device_constraints(const accelmm_info_device& device);

}  // namespace accelmm
