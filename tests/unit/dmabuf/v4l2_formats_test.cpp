// SPDX-License-Identifier: Apache-2.0
#include "dmabuf/v4l2_formats.hpp"

#include "dmabuf/format_name.hpp"

#include <drm_fourcc.h>
#include <gtest/gtest.h>
#include <linux/videodev2.h>

namespace accelmm::test {
namespace {

// By the byte orders that both headers' comments give.
TEST(V4l2Formats, NamesAreOfTheSameBytesInMemory) {
  EXPECT_EQ(std::uint32_t{DRM_FORMAT_XRGB8888}, v4l2::drm_format(V4L2_PIX_FMT_XBGR32))
      << "B, G, R, X";
  EXPECT_EQ(std::uint32_t{DRM_FORMAT_BGRX8888}, v4l2::drm_format(V4L2_PIX_FMT_XRGB32))
      << "X, R, G, B";
  EXPECT_EQ(std::uint32_t{DRM_FORMAT_BGR888}, v4l2::drm_format(V4L2_PIX_FMT_RGB24)) << "R, G, B";
  EXPECT_EQ(std::uint32_t{DRM_FORMAT_XBGR8888}, v4l2::drm_format(V4L2_PIX_FMT_RGBX32))
      << "R, G, B, X";
  EXPECT_EQ(std::uint32_t{DRM_FORMAT_R8}, v4l2::drm_format(V4L2_PIX_FMT_GREY));
  EXPECT_EQ(std::nullopt, v4l2::drm_format(V4L2_PIX_FMT_MJPEG)) << "compressed";
}

TEST(V4l2Formats, EachIsFoundBothWays) {
  for (const std::uint32_t format : {DRM_FORMAT_XRGB8888, DRM_FORMAT_RGB565, DRM_FORMAT_YUYV,
                                     DRM_FORMAT_NV12, DRM_FORMAT_YUV420}) {
    const auto pixel_format = v4l2::pixel_format_of(format);
    ASSERT_TRUE(pixel_format);
    EXPECT_EQ(format, v4l2::drm_format(*pixel_format));
  }
  EXPECT_EQ(std::nullopt, v4l2::pixel_format_of(DRM_FORMAT_XRGB2101010));
}

TEST(FormatNames, SayFourccsAsLettersWhereTheyAreLetters) {
  EXPECT_EQ("XR24 linear", dmabuf::name_of({DRM_FORMAT_XRGB8888, DRM_FORMAT_MOD_LINEAR}));
  EXPECT_EQ("R8 linear", dmabuf::name_of({DRM_FORMAT_R8, DRM_FORMAT_MOD_LINEAR}));
  EXPECT_EQ("0x1 of any modifier", dmabuf::name_of({1, {}}));
  EXPECT_EQ("0x20202020 linear", dmabuf::name_of({0x20202020, DRM_FORMAT_MOD_LINEAR}));
  EXPECT_EQ("any format of the driver's own modifier",
            dmabuf::name_of({{}, DRM_FORMAT_MOD_INVALID}));
  EXPECT_EQ("NV12 of modifier 0x100000000000001",
            dmabuf::name_of({DRM_FORMAT_NV12, I915_FORMAT_MOD_X_TILED}));
}

}  // namespace
}  // namespace accelmm::test
