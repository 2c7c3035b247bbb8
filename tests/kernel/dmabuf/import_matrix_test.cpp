// SPDX-License-Identifier: Apache-2.0
#include "kernel/dmabuf/sources.hpp"

#include <accelmm/drm_display.hpp>
#include <accelmm/trial_import.hpp>
#include <accelmm/v4l2_camera.hpp>

#include <cerrno>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <drm_fourcc.h>
#include <gtest/gtest.h>

namespace accelmm::kernel_test {
namespace {

constexpr ImageSize hd = {1280, 720};

// 3.6 MB: more than lies together by luck.
Agreement hd_image() {
  Agreement made;
  made.size = ByteCount(1280 * 4 * 720);
  made.image = AgreedImage{.format = {DRM_FORMAT_XRGB8888, DRM_FORMAT_MOD_LINEAR},
                           .stride = ByteCount(1280 * 4),
                           .rows = 720};
  return made;
}

/// A DRM device without a screen: PRIME import alone.
class PrimeImporter final : public SharingDevice {
 public:
  explicit PrimeImporter(const std::string& driver) : name_(driver), node_(drm_card(driver)) {}
  [[nodiscard]] const std::string& name() const override { return name_; }
  Result<Constraints> constraints(const ImageSize& /*size*/) override { return Constraints{}; }
  Result<void> try_import(FdView buffer, const Agreement& /*agreement*/) override {
    std::uint32_t handle = 0;
    if (drmPrimeFDToHandle(node_.get(), buffer.get(), &handle) != 0)
      return fail_errno(errno, "PRIME_FD_TO_HANDLE");
    if (drmCloseBufferHandle(node_.get(), handle) != 0) return fail_errno(errno, "GEM_CLOSE");
    return {};
  }

 private:
  std::string name_;
  UniqueFd node_;
};

using Verdicts = std::map<std::pair<std::string, std::string>, int>;  // {source, importer}: errno

// Each source's buffer to each importer, through the trial that negotiation makes.
Verdicts matrix(const std::vector<BufferSource>& sources,
                const std::vector<SharingDevice*>& importers) {
  Verdicts found;
  TrialImports trials;
  for (const BufferSource& source : sources) {
    const auto buffer = source.allocate(hd_image().size);
    EXPECT_TRUE(buffer) << source.description.heap << ": " << (buffer ? "" : buffer.error().what);
    if (!buffer) continue;
    for (SharingDevice* const importer : importers) {
      const auto verdict =
          trials.try_import(*importer, source.description, buffer->view(), hd_image());
      const int code = verdict ? 0 : static_cast<int>(verdict.error().code);
      found[{source.description.heap, importer->name()}] = code;
      std::fprintf(stderr, "%-16s -> %-36s %s\n", source.description.heap.c_str(),
                   importer->name().c_str(), code == 0 ? "ok" : strerrorname_np(code));
    }
  }
  return found;
}

std::unique_ptr<V4l2Camera> vivid() {
  auto opened_camera = V4l2Camera::open(vivid_capture_node());
  EXPECT_TRUE(opened_camera);
  if (!opened_camera) return nullptr;
  EXPECT_TRUE((*opened_camera)->constraints(hd));
  return *std::move(opened_camera);
}

// What was measured on Debian's 6.12 without the library, for the drivers that the guest has.
TEST(ImportMatrix, EveryExporterOfTheGuestServesVividCirrusAndVgem) {
  const auto camera = vivid();
  const auto display = DrmDisplay::open_driver("cirrus");
  ASSERT_TRUE(camera != nullptr && display) << "no camera or display";
  ASSERT_TRUE((*display)->constraints(hd));
  PrimeImporter vgem("vgem");
  const std::vector<BufferSource> sources = {udmabuf_source(), system_heap_source(),
                                             expbuf_source(vivid_capture_node()),
                                             dumb_source("cirrus"), dumb_source("vgem")};
  const auto found = matrix(sources, {camera.get(), display->get(), &vgem});
  EXPECT_EQ(15U, found.size());
  for (const auto& [pair, code] : found) EXPECT_EQ(0, code) << pair.first << " -> " << pair.second;
}

// PRIME import is announced by it as by the others.
TEST(ImportMatrix, VirtioGpuServesAllAndTakesItsOwnAlone) {
  const auto camera = vivid();
  const auto display = DrmDisplay::open_driver("cirrus");
  ASSERT_TRUE(camera != nullptr && display) << "no camera or display";
  ASSERT_TRUE((*display)->constraints(hd));
  PrimeImporter vgem("vgem");
  PrimeImporter gpu("virtio_gpu");
  Verdicts found = matrix({dumb_source("virtio_gpu")}, {camera.get(), display->get(), &vgem, &gpu});
  const auto taken =
      matrix({udmabuf_source(), system_heap_source(), expbuf_source(vivid_capture_node()),
              dumb_source("cirrus"), dumb_source("vgem")},
             {&gpu});
  found.insert(taken.begin(), taken.end());
  const std::string own = "virtio_gpu dumb";
  const Verdicts expected = {{{own, camera->name()}, 0},
                             {{own, (*display)->name()}, 0},
                             {{own, vgem.name()}, 0},
                             {{own, gpu.name()}, 0},
                             {{"udmabuf", gpu.name()}, ENODEV},
                             {{"system", gpu.name()}, ENODEV},
                             {{"EXPBUF", gpu.name()}, ENODEV},
                             {{"cirrus dumb", gpu.name()}, ENODEV},
                             {{"vgem dumb", gpu.name()}, ENODEV}};
  EXPECT_EQ(expected, found);
}

TEST(ImportMatrix, ACameraOfContiguousMemoryTakesItsOwnAndNoScatteredPages) {
  reload_vivid(1);
  auto camera = vivid();
  ASSERT_NE(nullptr, camera);
  const std::vector<BufferSource> sources = {udmabuf_source(), system_heap_source(),
                                             dumb_source("cirrus"), dumb_source("vgem"),
                                             expbuf_source(vivid_capture_node())};
  const auto found = matrix(sources, {camera.get()});
  const std::string name = camera->name();
  camera.reset();
  reload_vivid(0);
  const Verdicts expected = {{{"udmabuf", name}, EFAULT},
                             {{"system", name}, EFAULT},
                             {{"cirrus dumb", name}, EFAULT},
                             {{"vgem dumb", name}, EFAULT},
                             {{"EXPBUF", name}, 0}};
  EXPECT_EQ(expected, found);
}

TEST(ImportMatrix, WhatIsNoDmabufIsTakenByNobody) {
  const auto camera = vivid();
  const auto display = DrmDisplay::open_driver("cirrus");
  ASSERT_TRUE(camera != nullptr && display);
  ASSERT_TRUE((*display)->constraints(hd));
  const UniqueFd memory = sealed_memory(hd_image().size);
  EXPECT_EQ(Errc::invalid_argument, camera->try_import(memory.view(), hd_image()).error().code);
  EXPECT_EQ(Errc::invalid_argument, (*display)->try_import(memory.view(), hd_image()).error().code);
}

TEST(ImportMatrix, ABufferSmallerThanTheImageIsRefused) {
  const auto camera = vivid();
  const auto display = DrmDisplay::open_driver("cirrus");
  ASSERT_TRUE(camera != nullptr && display);
  ASSERT_TRUE((*display)->constraints(hd));
  const auto small = udmabuf_source().allocate(ByteCount(hd_image().size.value() - 4096));
  ASSERT_TRUE(small);
  EXPECT_EQ(Errc::invalid_argument, camera->try_import(small->view(), hd_image()).error().code);
  EXPECT_EQ(Errc::invalid_argument, (*display)->try_import(small->view(), hd_image()).error().code);
}

}  // namespace
}  // namespace accelmm::kernel_test
