// SPDX-License-Identifier: Apache-2.0
#include "kernel/dmabuf/sources.hpp"
#include "support/failing_calls.hpp"

#include <accelmm/drm_display.hpp>
#include <accelmm/v4l2_camera.hpp>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include <drm_fourcc.h>
#include <gtest/gtest.h>

namespace accelmm::kernel_test {
namespace {

using test::FailingCall;

constexpr ImageSize vga = {640, 480};

Agreement vga_image() {
  Agreement made;
  made.size = ByteCount(640 * 4 * 480);
  made.image = AgreedImage{.format = {DRM_FORMAT_XRGB8888, DRM_FORMAT_MOD_LINEAR},
                           .stride = ByteCount(640 * 4),
                           .rows = 480};
  return made;
}

std::size_t open_files() {
  const auto files = std::filesystem::directory_iterator("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(files), end(files)));
}

// The dma-bufs of the whole guest, by debugfs.
std::string dma_bufs() {
  std::ifstream info("/sys/kernel/debug/dma_buf/bufinfo");
  std::string last;
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("Total")) last = line;
  }
  return last;
}

class Adapters : public ::testing::Test {
 protected:
  void SetUp() override {
    for (int i = 0; i < 3; ++i) {
      auto made = udmabuf_source().allocate(vga_image().size);
      ASSERT_TRUE(made);
      views.push_back(made->view());
      buffers.push_back(*std::move(made));
    }
  }
  std::vector<UniqueFd> buffers;
  std::vector<FdView> views;
};

TEST_F(Adapters, ACameraSaysWhatTryFmtAnswers) {
  auto camera = V4l2Camera::open(vivid_capture_node());
  ASSERT_TRUE(camera);
  const auto wanted = (*camera)->constraints(vga);
  ASSERT_TRUE(wanted) << wanted.error().what;
  EXPECT_TRUE(is_well_formed(*wanted));
  const auto& images = *wanted->images;
  EXPECT_GE(images.size(), 10U);
  const auto& packed = images.at({DRM_FORMAT_YUYV, DRM_FORMAT_MOD_LINEAR});
  EXPECT_EQ(ByteCount(640 * 2), packed.min_stride);
  EXPECT_EQ(ByteCount(640 * 2 * 480), packed.min_size);
  EXPECT_EQ(480U, packed.rows);
  EXPECT_GT(packed.max_stride, packed.min_stride) << "vivid pads lines where it is asked to";
  const auto& planar = images.at({DRM_FORMAT_NV12, DRM_FORMAT_MOD_LINEAR});
  EXPECT_EQ(720U, planar.rows);
  EXPECT_GE(wanted->counts.camping, 2U);
}

TEST_F(Adapters, ADisplaySaysWhatItsPlaneShowsAndItsLimits) {
  auto display = DrmDisplay::open_driver("cirrus");
  ASSERT_TRUE(display);
  const auto wanted = (*display)->constraints(vga);
  ASSERT_TRUE(wanted) << wanted.error().what;
  EXPECT_TRUE(is_well_formed(*wanted));
  const auto& image = wanted->images->at({DRM_FORMAT_XRGB8888, DRM_FORMAT_MOD_LINEAR});
  EXPECT_EQ(ByteCount(640 * 4), image.min_stride);
  EXPECT_EQ(480U, image.rows);
  EXPECT_EQ(Errc::not_supported, (*display)->constraints({16384, 16384}).error().code);
}

TEST_F(Adapters, NodesOfAnotherKindAreRefused) {
  EXPECT_EQ(Errc::no_entry, V4l2Camera::open("/dev/video63").error().code);
  EXPECT_EQ(Errc::unknown_ioctl, V4l2Camera::open("/dev/null").error().code);
  EXPECT_FALSE(DrmDisplay::open("/dev/null"));
  EXPECT_FALSE(DrmDisplay::open_driver("vgem")) << "it has no screen";
  EXPECT_EQ(Errc::no_device, DrmDisplay::open_driver("none").error().code);
}

// The kernel has one handle for a buffer that is imported twice, and closes it at the first close.
TEST_F(Adapters, ABufferThatIsShownTwiceOutlivesItsTrialAndItsTwin) {
  auto opened_display = DrmDisplay::open_driver("cirrus");
  ASSERT_TRUE(opened_display);
  DrmDisplay& display = **opened_display;
  ASSERT_TRUE(display.constraints(vga));
  const std::vector<FdView> twice = {views[0], views[0]};
  ASSERT_TRUE(display.begin(vga_image(), twice));
  ASSERT_TRUE(display.try_import(views[0], vga_image()));
  EXPECT_EQ(Errc::busy, display.begin(vga_image(), twice).error().code);
  EXPECT_TRUE(display.show(1));
  EXPECT_TRUE(display.show(0));
  EXPECT_EQ(Errc::invalid_argument, display.show(2).error().code);
  EXPECT_TRUE(display.end());
  EXPECT_TRUE(display.begin(vga_image(), twice)) << "nothing was left behind";
}

TEST_F(Adapters, AScreenWithoutAModeOfThatSizeShowsNothing) {
  auto display = DrmDisplay::open_driver("cirrus");
  ASSERT_TRUE(display);
  ASSERT_TRUE((*display)->constraints({600, 400}));
  ASSERT_TRUE((*display)->begin(vga_image(), views));
  EXPECT_EQ(Errc::not_supported, (*display)->show(0).error().code);
}

// Everything that a camera does, until something fails.
Result<void> use_camera(const std::vector<FdView>& views) {
  auto camera = V4l2Camera::open(vivid_capture_node());
  if (!camera) return fail(camera.error());
  if (auto wanted = (*camera)->constraints(vga); !wanted) return fail(wanted.error());
  if (auto tried = (*camera)->try_import(views[0], vga_image()); !tried) return tried;
  if (auto begun = (*camera)->begin(vga_image(), views); !begun) return begun;
  const auto frame = (*camera)->next(5000);
  if (!frame) return fail(frame.error());
  if (auto given = (*camera)->give_back(*frame); !given) return given;
  return (*camera)->end();
}

Result<void> use_display(const std::vector<FdView>& views) {
  auto display = DrmDisplay::open_driver("cirrus");
  if (!display) return fail(display.error());
  if (auto wanted = (*display)->constraints(vga); !wanted) return fail(wanted.error());
  if (auto tried = (*display)->try_import(views[0], vga_image()); !tried) return tried;
  if (auto begun = (*display)->begin(vga_image(), views); !begun) return begun;
  if (auto shown = (*display)->show(0); !shown) return shown;
  return (*display)->end();
}

// Lets each call fail in turn. What fails must be told, and leave nothing.
template <class Use>
void fail_each_call(Use use) {
  ASSERT_TRUE(use());
  const std::size_t files = open_files();
  const std::string held = dma_bufs();
  long calls = 0;
  {
    const FailingCall counting(0, 0);
    ASSERT_TRUE(use());
    calls = counting.calls();
  }
  ASSERT_GT(calls, 10);
  for (long k = 1; k <= calls; ++k) {
    Result<void> used;
    {
      const FailingCall failing(k, EIO);
      used = use();
    }
    EXPECT_FALSE(used) << k;
    EXPECT_EQ(files, open_files()) << k;
    EXPECT_EQ(held, dma_bufs()) << k;
  }
  EXPECT_TRUE(use()) << "what failed left something behind";
}

TEST_F(Adapters, ACallThatFailsOfACameraIsToldAndLeavesNothing) {
  fail_each_call([&] { return use_camera(views); });
}

TEST_F(Adapters, ACallThatFailsOfADisplayIsToldAndLeavesNothing) {
  fail_each_call([&] { return use_display(views); });
}

}  // namespace
}  // namespace accelmm::kernel_test
