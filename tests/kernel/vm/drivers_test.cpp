// SPDX-License-Identifier: Apache-2.0
#include "kernel/vm/nodes.hpp"

#include <cstdint>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <linux/dma-heap.h>
#include <linux/udmabuf.h>
#include <linux/vfio.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <xf86drmMode.h>

/// What each driver of the guest does at least: a test that needs one can then blame itself. Asked
/// of the kernel without the library.
namespace accelmm::kernel_test {
namespace {

constexpr std::size_t page_bytes = 4096;
constexpr long dmabuf_magic = 0x444d4142;

bool is_dmabuf(int fd) {
  struct statfs found{};
  return ::fstatfs(fd, &found) == 0 && found.f_type == dmabuf_magic;
}

UniqueFd memfd_of(std::size_t bytes, int seals) {
  UniqueFd fd(::memfd_create("guest", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  EXPECT_EQ(0, ::ftruncate(fd.get(), static_cast<off_t>(bytes)));
  EXPECT_EQ(0, ::fcntl(fd.get(), F_ADD_SEALS, seals));
  return fd;
}

UniqueFd udmabuf_of(const UniqueFd& memory, std::size_t bytes) {
  const UniqueFd node = opened("/dev/udmabuf");
  udmabuf_create request{};
  request.memfd = static_cast<std::uint32_t>(memory.get());
  request.flags = UDMABUF_FLAGS_CLOEXEC;
  request.size = bytes;
  return UniqueFd(::ioctl(node.get(), UDMABUF_CREATE, &request));
}

TEST(Drivers, UdmabufShowsTheBytesOfASealedMemfd) {
  const UniqueFd memory = memfd_of(2 * page_bytes, F_SEAL_SHRINK);
  const UniqueFd buffer = udmabuf_of(memory, 2 * page_bytes);
  ASSERT_TRUE(buffer.valid()) << errno;
  EXPECT_TRUE(is_dmabuf(buffer.get()));
  void* seen = ::mmap(nullptr, 2 * page_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, buffer.get(), 0);
  ASSERT_NE(MAP_FAILED, seen);
  static_cast<std::uint8_t*>(seen)[page_bytes] = 0x5a;
  std::uint8_t byte = 0;
  EXPECT_EQ(1, ::pread(memory.get(), &byte, 1, page_bytes));
  EXPECT_EQ(0x5a, byte);
  EXPECT_EQ(0, ::munmap(seen, 2 * page_bytes));
}

TEST(Drivers, UdmabufRefusesAMemfdThatMayShrink) {
  const UniqueFd memory = memfd_of(page_bytes, 0);
  EXPECT_FALSE(udmabuf_of(memory, page_bytes).valid());
  EXPECT_EQ(EINVAL, errno);
}

TEST(Drivers, TheSystemHeapGivesADmabuf) {
  const UniqueFd heap = opened("/dev/dma_heap/system", O_RDONLY);
  ASSERT_TRUE(heap.valid());
  dma_heap_allocation_data request{};
  request.len = page_bytes;
  request.fd_flags = O_RDWR | O_CLOEXEC;
  ASSERT_EQ(0, ::ioctl(heap.get(), DMA_HEAP_IOCTL_ALLOC, &request));
  EXPECT_TRUE(is_dmabuf(UniqueFd(static_cast<int>(request.fd)).get()));
}

TEST(Drivers, VgemImportsADmabufAndExportsTheSameOne) {
  const UniqueFd card = drm_card("vgem");
  ASSERT_TRUE(card.valid());
  const UniqueFd memory = memfd_of(page_bytes, F_SEAL_SHRINK);
  const UniqueFd buffer = udmabuf_of(memory, page_bytes);
  std::uint32_t handle = 0;
  ASSERT_EQ(0, drmPrimeFDToHandle(card.get(), buffer.get(), &handle));
  int exported = -1;
  ASSERT_EQ(0, drmPrimeHandleToFD(card.get(), handle, DRM_CLOEXEC | DRM_RDWR, &exported));
  const UniqueFd again(exported);
  struct stat ours{};
  struct stat theirs{};
  ASSERT_EQ(0, ::fstat(buffer.get(), &ours));
  ASSERT_EQ(0, ::fstat(again.get(), &theirs));
  EXPECT_EQ(ours.st_ino, theirs.st_ino);
  EXPECT_EQ(0, drmCloseBufferHandle(card.get(), handle));
}

TEST(Drivers, VividIsACameraThatTakesDmabufs) {
  const UniqueFd camera = video_node("vivid", V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING);
  ASSERT_TRUE(camera.valid());
  v4l2_requestbuffers request{};
  request.count = 1;
  request.type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
  request.memory = V4L2_MEMORY_DMABUF;
  EXPECT_EQ(0, ::ioctl(camera.get(), VIDIOC_REQBUFS, &request)) << errno;
  EXPECT_TRUE(video_node("vivid", V4L2_CAP_VIDEO_OUTPUT).valid());
}

TEST(Drivers, CirrusIsADisplay) {
  const UniqueFd card = drm_card("cirrus");
  ASSERT_TRUE(card.valid());
  drmModeResPtr resources = drmModeGetResources(card.get());
  ASSERT_NE(nullptr, resources);
  EXPECT_GE(resources->count_crtcs, 1);
  ASSERT_GE(resources->count_connectors, 1);
  drmModeConnectorPtr connector = drmModeGetConnector(card.get(), resources->connectors[0]);
  ASSERT_NE(nullptr, connector);
  EXPECT_EQ(DRM_MODE_CONNECTED, connector->connection);
  drmModeFreeConnector(connector);
  drmModeFreeResources(resources);
}

TEST(Drivers, VfioHasTheEduDeviceInAGroupOfItsOwnBehindAnIommu) {
  const std::filesystem::path edu = pci_device("0x1234", "0x11e8");
  ASSERT_FALSE(edu.empty());
  EXPECT_EQ("vfio-pci", std::filesystem::read_symlink(edu / "driver").filename());
  const auto group_folder = std::filesystem::canonical(edu / "iommu_group");
  const auto devices = std::filesystem::directory_iterator(group_folder / "devices");
  EXPECT_EQ(1, std::distance(begin(devices), end(devices)));
  const UniqueFd group = opened("/dev/vfio/" + group_folder.filename().string());
  ASSERT_TRUE(group.valid());
  vfio_group_status status{};
  status.argsz = sizeof status;
  ASSERT_EQ(0, ::ioctl(group.get(), VFIO_GROUP_GET_STATUS, &status));
  EXPECT_NE(0U, status.flags & VFIO_GROUP_FLAGS_VIABLE);
  const UniqueFd container = opened("/dev/vfio/vfio");
  ASSERT_TRUE(container.valid());
  EXPECT_EQ(1, ::ioctl(container.get(), VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU));
}

}  // namespace
}  // namespace accelmm::kernel_test
