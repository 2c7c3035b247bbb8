// SPDX-License-Identifier: Apache-2.0
//
// Timelines of DRM drivers, with fences between them.
#include "base/clock.hpp"
#include "dmabuf/drm_calls.hpp"
#include "kernel/dmabuf/guest.hpp"

#include <accelmm/fence.hpp>

#include <chrono>
#include <thread>

#include <xf86drm.h>

namespace accelmm::dmabuf {
namespace {

using namespace std::chrono_literals;
constexpr std::uint64_t ms = 1'000'000;

Errc errc(const Result<void>& result) {
  return result ? Errc{} : result.error().code;
}

/// Timelines of a GPU's driver: virtio-gpu has them, vgem and cirrus do not.
class DrmTimeline : public testing::Test {
 protected:
  void SetUp() override {
    const std::vector<std::string> nodes = drm_nodes().value();
    for (const std::string& node : nodes) {
      auto device = DrmDevice::open(node, {ByteCount(4096), ByteCount(4096)});
      if (device && drm::capability((*device)->node(), DRM_CAP_SYNCOBJ_TIMELINE).value() == 1)
        gpu_ = std::move(*device);
    }
    ASSERT_NE(gpu_, nullptr) << "no DRM device of this guest has timelines";
  }
  std::shared_ptr<DrmDevice> gpu_;
};

TEST_F(DrmTimeline, PointsAreReachedInOrderAndWaitedFor) {
  const FdView node = gpu_->node();
  const std::uint32_t line = drm::create_syncobj(node).value();
  EXPECT_EQ(0U, drm::reached_point(node, line).value());
  EXPECT_EQ(Errc::timed_out, errc(drm::wait_for_point(node, {line, 5}, monotonic_ns() + 50 * ms)));
  std::thread later([&] {
    std::this_thread::sleep_for(50ms);
    EXPECT_TRUE(drm::signal_point(node, {line, 5}).has_value());
  });
  EXPECT_EQ(Errc{}, errc(drm::wait_for_point(node, {line, 5}, monotonic_ns() + 20'000 * ms)));
  later.join();
  EXPECT_EQ(5U, drm::reached_point(node, line).value());
  drm::destroy_syncobj(node, line);
}

TEST_F(DrmTimeline, APointBecomesAFenceAndAFenceAPoint) {
  const FdView node = gpu_->node();
  const std::uint32_t line = drm::create_syncobj(node).value();
  const std::uint32_t one = drm::create_syncobj(node).value();
  ASSERT_TRUE(drm::signal_point(node, {line, 3}).has_value());
  ASSERT_TRUE(drm::transfer_fence(node, {one, 0}, {line, 3}).has_value());
  auto fence = Fence::adopt(drm::syncobj_fence(node, one).value());
  ASSERT_TRUE(fence.has_value());
  EXPECT_EQ(Errc{}, errc(fence->wait(0)));
  ASSERT_TRUE(drm::set_syncobj_fence(node, one, fence->fd()).has_value());
  ASSERT_TRUE(drm::transfer_fence(node, {line, 9}, {one, 0}).has_value());
  EXPECT_EQ(Errc{}, errc(drm::wait_for_point(node, {line, 9}, monotonic_ns() + 5000 * ms)));
  drm::destroy_syncobj(node, one);
  drm::destroy_syncobj(node, line);
}

TEST(DrmDriver, ADriverWithoutThemSaysSo) {
  const auto vgem = guest::drm("vgem");
  EXPECT_EQ(Errc::not_supported, drm::create_syncobj(vgem->node()).error().code);
}

}  // namespace
}  // namespace accelmm::dmabuf
