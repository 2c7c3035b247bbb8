// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>

namespace accelmm::v4l2 {

/// The fourcc of drm_fourcc.h for one of V4L2 with the same bytes in memory; nothing: none is known.
[[nodiscard]] std::optional<std::uint32_t> drm_format(std::uint32_t pixel_format);
/// The other way.
[[nodiscard]] std::optional<std::uint32_t> pixel_format_of(std::uint32_t drm_format);

}  // namespace accelmm::v4l2
