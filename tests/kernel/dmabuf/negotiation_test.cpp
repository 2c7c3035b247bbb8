// SPDX-License-Identifier: Apache-2.0
#include "base/mapping.hpp"
#include "kernel/dmabuf/sources.hpp"

#include <accelmm/buffer_sources.hpp>
#include <accelmm/drm_display.hpp>
#include <accelmm/trial_import.hpp>
#include <accelmm/v4l2_camera.hpp>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <drm_fourcc.h>
#include <gtest/gtest.h>

namespace accelmm::kernel_test {
namespace {

constexpr ImageSize vga = {640, 480};

// What our NPU needs, by hand: the MMU's pages.
Participant npu() {
  Constraints wanted;
  wanted.size_divisor = 4096;
  wanted.offset_divisor = 4096;
  wanted.needs = {Use::cpu_map};
  return {"npu", wanted};
}

// The page frames behind a memory file, by /proc/self/pagemap (which shows none of a dma-buf's mapping).
std::vector<std::uint64_t> page_frames(FdView file, ByteCount size) {
  void* const seen = ::mmap(nullptr, size.value(), PROT_READ, MAP_SHARED, file.get(), 0);
  if (seen == MAP_FAILED) return {};
  std::vector<std::uint64_t> entries(size.value() / 4096);
  unsigned sum = 0;
  for (std::size_t page = 0; page < entries.size(); ++page)
    sum += static_cast<const volatile std::uint8_t*>(seen)[page * 4096];
  const UniqueFd pagemap = opened("/proc/self/pagemap", O_RDONLY);
  const auto length = static_cast<ssize_t>(entries.size() * sizeof entries[0]);
  const auto offset =
      static_cast<off_t>(reinterpret_cast<std::uintptr_t>(seen) / 4096 * sizeof entries[0]);
  EXPECT_EQ(length,
            ::pread(pagemap.get(), entries.data(), static_cast<std::size_t>(length), offset))
      << sum;
  EXPECT_EQ(0, ::munmap(seen, size.value()));
  for (std::uint64_t& entry : entries) {
    EXPECT_NE(0U, entry >> 63) << "not present";
    entry &= (std::uint64_t{1} << 55) - 1;
  }
  return entries;
}

v4l2_pix_format format_of(const std::string& node) {
  const UniqueFd camera = opened(node);
  v4l2_format format{};
  format.type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
  EXPECT_EQ(0, ::ioctl(camera.get(), VIDIOC_G_FMT, &format));
  return format.fmt.pix;
}

class Negotiation : public ::testing::Test {
 protected:
  void SetUp() override {
    auto opened_camera = V4l2Camera::open(vivid_capture_node());
    ASSERT_TRUE(opened_camera) << opened_camera.error().what;
    camera = *std::move(opened_camera);
    auto opened_display = DrmDisplay::open_driver("cirrus");
    ASSERT_TRUE(opened_display) << opened_display.error().what << errno;
    display = *std::move(opened_display);
  }
  std::expected<Settlement, Refusal> settled(std::vector<BufferSource> sources,
                                             ImageSize image = vga) {
    const std::vector<SharingDevice*> devices = {camera.get(), display.get()};
    const std::vector<Participant> others = {npu()};
    return settle({.devices = devices, .participants = others, .sources = sources, .image = image},
                  trials);
  }

  std::unique_ptr<V4l2Camera> camera;
  std::unique_ptr<DrmDisplay> display;
  TrialImports trials;
};

TEST_F(Negotiation, VividCirrusAndTheNpuAgreeOnAnImageInUdmabufs) {
  const auto found = settled({system_heap_source(), udmabuf_source()});
  ASSERT_TRUE(found) << found.error().text;
  EXPECT_EQ(1U, found->source) << "udmabuf is charged, the system heap is not";
  ASSERT_TRUE(found->agreement.image);
  const AgreedImage& image = *found->agreement.image;
  EXPECT_EQ(std::uint64_t{DRM_FORMAT_MOD_LINEAR}, image.format.modifier);
  EXPECT_EQ(480U, image.rows);
  EXPECT_GE(found->agreement.size.value(), image.stride.value() * 480);
  EXPECT_EQ(0U, found->agreement.size.value() % 4096);
  EXPECT_EQ(4U, found->agreement.count) << "two for the camera, two for the display";
}

TEST_F(Negotiation, SourcesThatTheLibraryFindsServeAsThoseOfTheKernelsOwnCalls) {
  const UniqueFd card = drm_card("vgem");
  const std::string node =
      std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(card.get()));
  const auto there = find_buffer_sources({.dma_heaps = {"system", "none"}, .drm_node = node});
  ASSERT_TRUE(there) << there.error().what;
  ASSERT_EQ(3U, there->sources.size()) << describe(there->report);
  EXPECT_EQ("udmabuf", there->sources[0].description.heap);
  EXPECT_EQ("system", there->sources[1].description.heap);
  EXPECT_EQ("vgem", there->sources[2].description.heap);
  for (const BufferSource& source : there->sources) {
    const auto made = source.allocate(8_KiB);
    ASSERT_TRUE(made) << source.description.heap << ": " << made.error().what;
    const Mapping bytes = Mapping::create(made->view(), 0, 8_KiB, PROT_READ | PROT_WRITE).value();
    EXPECT_TRUE(std::ranges::all_of(bytes.bytes(), [](std::byte b) { return b == std::byte{0}; }));
    EXPECT_EQ(Errc::invalid_argument, source.allocate(4097_B).error().code);
    EXPECT_FALSE(source.allocate(source.description.largest + 4_KiB));
  }
  const auto found = settled(there->sources);
  ASSERT_TRUE(found) << found.error().text;
  EXPECT_EQ(0U, found->source);
  const auto frame = there->sources[found->source].allocate(found->agreement.size);
  ASSERT_TRUE(frame) << frame.error().what;
  EXPECT_TRUE(camera->try_import(frame->view(), found->agreement));
  EXPECT_TRUE(display->try_import(frame->view(), found->agreement));
}

TEST_F(Negotiation, AFrameArrivesInTheNegotiatedBuffers) {
  const auto found = settled({udmabuf_source()});
  ASSERT_TRUE(found) << found.error().text;
  const Agreement& agreement = found->agreement;
  std::vector<UniqueFd> memory;
  std::vector<UniqueFd> buffers;
  std::vector<FdView> views;
  for (std::uint32_t i = 0; i < agreement.count; ++i) {
    memory.push_back(sealed_memory(agreement.size));
    auto buffer = make_udmabuf(agreement.size, memory.back().view());
    ASSERT_TRUE(buffer);
    buffers.push_back(*std::move(buffer));
    views.push_back(buffers.back().view());
  }
  const auto frames_before = page_frames(memory.front().view(), agreement.size);
  EXPECT_NE(0U, frames_before.front());
  ASSERT_TRUE(camera->begin(agreement, views));
  EXPECT_EQ(Errc::busy, camera->try_import(views.front(), agreement).error().code);
  std::set<std::uint32_t> filled;
  const std::vector<std::uint8_t> nothing(4096);
  for (int frames = 0; frames < 8; ++frames) {
    const auto frame = camera->next(5000);
    ASSERT_TRUE(frame) << frame.error().what;
    EXPECT_EQ(agreement.image->stride.value() * 480, frame->used.value());
    filled.insert(frame->buffer);
    // Through the memfd, not the dma-buf: the same pages. vivid's colour bars fill each of them, with
    // more than one colour in a line.
    std::vector<std::uint8_t> bytes(frame->used.value());
    ASSERT_EQ(static_cast<ssize_t>(bytes.size()),
              ::pread(memory[frame->buffer].get(), bytes.data(), bytes.size(), 0));
    for (std::size_t page = 0; page + 4096 <= bytes.size(); page += 4096)
      ASSERT_NE(0, ::memcmp(bytes.data() + page, nothing.data(), 4096)) << page;
    EXPECT_NE(0, ::memcmp(bytes.data(), bytes.data() + bytes.size() / 480 / 2, 64));
    ASSERT_TRUE(camera->give_back(*frame));
  }
  EXPECT_EQ(agreement.count, filled.size()) << "each buffer had its turn";
  EXPECT_EQ(frames_before, page_frames(memory.front().view(), agreement.size))
      << "no page was replaced";
  EXPECT_TRUE(camera->end());
}

TEST_F(Negotiation, TheTrialLeavesTheCameraAsItWas) {
  const auto before = format_of(vivid_capture_node());
  const auto first = settled({udmabuf_source()}, {1280, 720});
  ASSERT_TRUE(first) << first.error().text;
  const auto after = format_of(vivid_capture_node());
  EXPECT_EQ(before.pixelformat, after.pixelformat);
  EXPECT_EQ(before.width, after.width);
  EXPECT_EQ(before.height, after.height);
  EXPECT_EQ(before.bytesperline, after.bytesperline);
  EXPECT_NE(720U, after.height) << "the trial was in the format that the camera had already";
  auto other = V4l2Camera::open(vivid_capture_node());
  ASSERT_TRUE(other);
  TrialImports fresh;
  const std::vector<SharingDevice*> devices = {other->get()};
  const std::vector<BufferSource> sources = {udmabuf_source()};
  EXPECT_TRUE(
      settle({.devices = devices, .participants = {}, .sources = sources, .image = vga}, fresh))
      << "no room for buffers is left behind";
}

TEST_F(Negotiation, AnImageThatTheDisplayDoesNotTakeIsItsRefusal) {
  const auto found = settled({udmabuf_source()}, {3840, 2160});
  ASSERT_FALSE(found);
  EXPECT_NE(std::string::npos, found.error().text.find("display cirrus")) << found.error().text;
}

TEST_F(Negotiation, ACameraOfContiguousMemoryRefusesScatteredPagesByName) {
  camera.reset();
  reload_vivid(1);
  auto contiguous = V4l2Camera::open(vivid_capture_node());
  ASSERT_TRUE(contiguous);
  const std::string name = (*contiguous)->name();
  const std::vector<SharingDevice*> devices = {contiguous->get()};
  const std::vector<BufferSource> sources = {udmabuf_source()};
  // 1280 x 720 x 4 is 3.6 MB: too much to be contiguous by luck.
  const auto found = settle(
      {.devices = devices, .participants = {}, .sources = sources, .image = {1280, 720}}, trials);
  contiguous->reset();
  reload_vivid(0);
  ASSERT_FALSE(found);
  EXPECT_EQ(Errc::not_supported, found.error().code);
  EXPECT_EQ("no memory serves all: " + name +
                " refused a buffer of udmabuf: it wants contiguous memory, and the buffer's pages "
                "are scattered "
                "(Bad address)",
            found.error().text);
}

}  // namespace
}  // namespace accelmm::kernel_test
