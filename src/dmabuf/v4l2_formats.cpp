// SPDX-License-Identifier: Apache-2.0
#include "dmabuf/v4l2_formats.hpp"

#include <algorithm>
#include <array>

#include <drm_fourcc.h>
#include <linux/videodev2.h>

namespace accelmm::v4l2 {

namespace {

struct Pair {
  std::uint32_t v4l2;
  std::uint32_t drm;
};

// V4L2 names bytes in the order of memory, DRM bits from the highest of a little-endian word: RGB24 is
// R, G, B in memory and BGR888 there. Of two V4L2 names for the same bytes the first is used back.
constexpr std::array pairs = {
    Pair{V4L2_PIX_FMT_XBGR32, DRM_FORMAT_XRGB8888}, Pair{V4L2_PIX_FMT_ABGR32, DRM_FORMAT_ARGB8888},
    Pair{V4L2_PIX_FMT_RGBX32, DRM_FORMAT_XBGR8888}, Pair{V4L2_PIX_FMT_RGBA32, DRM_FORMAT_ABGR8888},
    Pair{V4L2_PIX_FMT_XRGB32, DRM_FORMAT_BGRX8888}, Pair{V4L2_PIX_FMT_ARGB32, DRM_FORMAT_BGRA8888},
    Pair{V4L2_PIX_FMT_RGB24, DRM_FORMAT_BGR888},    Pair{V4L2_PIX_FMT_BGR24, DRM_FORMAT_RGB888},
    Pair{V4L2_PIX_FMT_RGB565, DRM_FORMAT_RGB565},   Pair{V4L2_PIX_FMT_YUYV, DRM_FORMAT_YUYV},
    Pair{V4L2_PIX_FMT_UYVY, DRM_FORMAT_UYVY},       Pair{V4L2_PIX_FMT_YVYU, DRM_FORMAT_YVYU},
    Pair{V4L2_PIX_FMT_VYUY, DRM_FORMAT_VYUY},       Pair{V4L2_PIX_FMT_NV12, DRM_FORMAT_NV12},
    Pair{V4L2_PIX_FMT_NV21, DRM_FORMAT_NV21},       Pair{V4L2_PIX_FMT_NV16, DRM_FORMAT_NV16},
    Pair{V4L2_PIX_FMT_NV61, DRM_FORMAT_NV61},       Pair{V4L2_PIX_FMT_NV24, DRM_FORMAT_NV24},
    Pair{V4L2_PIX_FMT_YUV420, DRM_FORMAT_YUV420},   Pair{V4L2_PIX_FMT_YVU420, DRM_FORMAT_YVU420},
    Pair{V4L2_PIX_FMT_YUV422P, DRM_FORMAT_YUV422},  Pair{V4L2_PIX_FMT_GREY, DRM_FORMAT_R8},
};

}  // namespace

std::optional<std::uint32_t> drm_format(std::uint32_t pixel_format) {
  const auto* const found = std::ranges::find(pairs, pixel_format, &Pair::v4l2);
  if (found == pairs.end()) return std::nullopt;
  return found->drm;
}

std::optional<std::uint32_t> pixel_format_of(std::uint32_t drm_format) {
  const auto* const found = std::ranges::find(pairs, drm_format, &Pair::drm);
  if (found == pairs.end()) return std::nullopt;
  return found->v4l2;
}

}  // namespace accelmm::v4l2
