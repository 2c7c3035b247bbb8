// SPDX-License-Identifier: Apache-2.0
#include "kernel/vm/photograph.hpp"

#include "kernel/vm/nodes.hpp"

#include <cstdlib>
#include <span>

#include <drm_fourcc.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <xf86drmMode.h>

namespace accelmm::kernel_test {
namespace {

/// A memory of the display's own, shown on it: the left half in one colour, the right in another.
class ShownHalves {
 public:
  ShownHalves(int card, std::uint32_t left, std::uint32_t right) : card_(card) {
    drmModeResPtr resources = drmModeGetResources(card);
    drmModeConnectorPtr connector = drmModeGetConnector(card, resources->connectors[0]);
    mode_ = connector->modes[0];
    std::uint32_t pitch = 0;
    EXPECT_EQ(0, drmModeCreateDumbBuffer(card, mode_.hdisplay, mode_.vdisplay, 32, 0, &handle_,
                                         &pitch, &size_));
    std::uint64_t offset = 0;
    EXPECT_EQ(0, drmModeMapDumbBuffer(card, handle_, &offset));
    void* place = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, card,
                         static_cast<off_t>(offset));
    EXPECT_NE(MAP_FAILED, place);
    const std::span words(static_cast<std::uint32_t*>(place), size_ / 4);
    for (std::size_t at = 0; at < words.size(); ++at)
      words[at] = at % (pitch / 4) < mode_.hdisplay / 2U ? left : right;
    EXPECT_EQ(0, ::munmap(place, size_));
    const std::uint32_t handles[4] = {handle_, 0, 0, 0};
    const std::uint32_t pitches[4] = {pitch, 0, 0, 0};
    const std::uint32_t offsets[4] = {};
    EXPECT_EQ(0, drmModeAddFB2(card, mode_.hdisplay, mode_.vdisplay, DRM_FORMAT_XRGB8888, handles,
                               pitches, offsets, &frame_, 0));
    EXPECT_EQ(0, drmModeSetCrtc(card, resources->crtcs[0], frame_, 0, 0, resources->connectors, 1,
                                &mode_));
    drmModeFreeConnector(connector);
    drmModeFreeResources(resources);
  }
  ShownHalves(const ShownHalves&) = delete;
  ShownHalves& operator=(const ShownHalves&) = delete;
  ~ShownHalves() {
    drmModeRmFB(card_, frame_);
    drmModeDestroyDumbBuffer(card_, handle_);
  }

  [[nodiscard]] const drmModeModeInfo& mode() const { return mode_; }

 private:
  int card_;
  std::uint32_t handle_ = 0;
  std::uint32_t frame_ = 0;
  std::uint64_t size_ = 0;
  drmModeModeInfo mode_{};
};

// The display scans out 16 bits a pixel.
bool near(const Photograph::Pixel& seen, const Photograph::Pixel& wanted) {
  for (std::size_t part = 0; part < seen.size(); ++part)
    if (std::abs(seen[part] - wanted[part]) > 8) return false;
  return true;
}

TEST(Photograph, ShowsWhatTheDisplayScansOut) {
  const UniqueFd card = drm_card("cirrus");
  ASSERT_TRUE(card.valid());
  const ShownHalves halves(card.get(), 0x00d02040, 0x001060f0);
  const auto picture = Photograph::take("halves");
  ASSERT_TRUE(picture.has_value());
  EXPECT_EQ(halves.mode().hdisplay, picture->width());
  EXPECT_EQ(halves.mode().vdisplay, picture->height());
  const std::size_t middle = picture->width() / 2;
  std::size_t wrong = 0;
  for (std::size_t y = 0; y < picture->height(); y += 7)
    for (std::size_t x = 0; x < picture->width(); x += 5) {
      const Photograph::Pixel wanted =
          x < middle ? Photograph::Pixel{0xd0, 0x20, 0x40} : Photograph::Pixel{0x10, 0x60, 0xf0};
      wrong += near(picture->at(x, y), wanted) ? 0U : 1U;
    }
  EXPECT_EQ(0U, wrong);
}

}  // namespace
}  // namespace accelmm::kernel_test
