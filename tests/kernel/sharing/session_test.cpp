// SPDX-License-Identifier: Apache-2.0
//
// Sessions that share with each other, and with drivers of the kernel, by real dma-bufs.
#include "base/clock.hpp"
#include "base/mapping.hpp"
#include "kernel/dmabuf/guest.hpp"
#include "kernel/dmabuf/vgem.hpp"
#include "kernel/sharing/kernel_buffers.hpp"
#include "support/census.hpp"
#include "support/npu_host.hpp"

#include <accelmm/fence.hpp>
#include <accelmm/fence_watch.hpp>

#include <algorithm>
#include <chrono>
#include <future>
#include <thread>

namespace accelmm::test {
namespace {

using dmabuf::guest::drm;
using namespace std::chrono_literals;

constexpr ByteCount size = 256_KiB;

FileIdentity identity(FdView fd) {
  struct stat status = {};
  EXPECT_EQ(0, ::fstat(fd.get(), &status));
  return {status.st_dev, status.st_ino};
}

bool is_dma_buf(FdView fd) {
  return dmabuf::is_dma_buf(fd).value();
}

void fill(std::span<std::byte> bytes, unsigned seed) {
  for (std::size_t at = 0; at < bytes.size(); ++at)
    bytes[at] = static_cast<std::byte>(at * 31 + at / 4096 + seed);
}

Export view_of(FdView fd, ByteCount length) {
  Export view;
  view.pieces.push_back({duplicate(fd).value(), 0, length});
  return view;
}

class Sharing : public testing::Test {
 protected:
  Sharing() {
    host.add();
    host.add();
  }
  NpuHost host;
};

TEST_F(Sharing, TheRuntimeSaysHowItShares) {
  EXPECT_EQ("udmabuf, memfd", describe(host.runtime().sharing()));
}

TEST_F(Sharing, AnExportIsADmaBufAndComesBackAsTheSameBuffer) {
  const Client first = host.connect(0);
  const Client second = host.connect(1);
  const Buffer made = value(first.allocate(size));
  const CpuMapping in = value(made.map_cpu());
  fill(in.bytes(), 3);
  const Export view = value(made.export_view());
  ASSERT_EQ(1U, view.pieces.size());
  EXPECT_TRUE(is_dma_buf(view.pieces.front().fd.view()));
  EXPECT_EQ(identity(view.pieces.front().fd.view()),
            identity(value(made.export_view()).pieces.front().fd.view()))
      << "exported twice it is one dma-buf";
  const auto before = value(second.usage()).host_used;
  const Buffer taken = value(second.import_view(view));
  EXPECT_EQ(before, value(second.usage()).host_used) << "it costs nothing";
  const Buffer target = value(second.allocate(size));
  const auto from = value(taken.map_device());
  const auto to = value(target.map_device());
  value(copy_and_wait(second, from.address(), to.address(), size));
  EXPECT_TRUE(std::ranges::equal(in.bytes(), value(target.map_cpu()).bytes()));
}

TEST_F(Sharing, APartReachesNoByteMoreAndOtherDevicesWorkOnIt) {
  const Client first = host.connect(0);
  const Client second = host.connect(1);
  const Buffer made = value(first.allocate(size));
  const CpuMapping in = value(made.map_cpu());
  fill(in.bytes(), 4);
  const Export view = value(made.export_view({BufferOffset(8192), BufferOffset(24576)}));
  ASSERT_EQ(1U, view.pieces.size());
  const FdView fd = view.pieces.front().fd.view();
  EXPECT_EQ(16384, ::lseek(fd.get(), 0, SEEK_END));
  const Buffer taken = value(second.import_view(view));
  EXPECT_EQ(16_KiB, taken.size());
  const CpuMapping seen = value(taken.map_cpu());
  EXPECT_TRUE(std::ranges::equal(in.bytes().subspan(8192, 16384), seen.bytes()));
  const Buffer target = value(second.allocate(16_KiB));
  fill(value(target.map_cpu()).bytes(), 99);
  const auto from = value(target.map_device());
  const auto to = value(taken.map_device());
  value(copy_and_wait(second, from.address(), to.address(), 16_KiB));
  EXPECT_TRUE(std::ranges::equal(value(target.map_cpu()).bytes(), in.bytes().subspan(8192, 16384)));
  const auto before = static_cast<std::byte>((8191 * 31 + 1 + 4) % 256);
  EXPECT_EQ(before, in.bytes()[8191]);
}

TEST_F(Sharing, MemoryOfAHeapAndOfAGpuIsWorkedOnInPlace) {
  const Client client = host.connect();
  auto heap = value(dmabuf::guest::system_heap()->allocate(size, Access::read_write, "heap"));
  auto dumb = value(drm("vgem")->allocate(size, Access::read_write, "dumb"));
  for (const dmabuf::DmaBuf* foreign : {&heap.buffer, &dumb.buffer}) {
    const Buffer taken = value(client.import_view(view_of(foreign->fd(), size)));
    const Buffer again = value(client.import_view(view_of(foreign->fd(), size)));
    const Export passed_on = value(taken.export_view());
    EXPECT_EQ(foreign->identity(), identity(passed_on.pieces.front().fd.view()));
    const Buffer source = value(client.allocate(size));
    fill(value(source.map_cpu()).bytes(), 5);
    const auto from = value(source.map_device());
    const auto to = value(taken.map_device());
    value(copy_and_wait(client, from.address(), to.address(), size));
    EXPECT_TRUE(
        std::ranges::equal(value(source.map_cpu()).bytes(), value(again.map_cpu()).bytes()));
    const auto theirs = value(Mapping::create(foreign->fd(), 0, size, PROT_READ));
    EXPECT_TRUE(std::ranges::equal(value(source.map_cpu()).bytes(), theirs.bytes()));
  }
}

TEST_F(Sharing, TheSameBufferImportedTwiceIsOne) {
  const Client client = host.connect();
  auto heap = value(dmabuf::guest::system_heap()->allocate(size, Access::read_write, "heap"));
  const auto none = value(client.usage()).host_used;
  const Buffer one = value(client.import_view(view_of(heap.buffer.fd(), size)));
  const auto once = value(client.usage()).host_used;
  EXPECT_EQ(none + size.value(), once);
  {
    const Buffer two = value(client.import_view(view_of(heap.buffer.fd(), size)));
    EXPECT_EQ(once, value(client.usage()).host_used);
  }
  EXPECT_EQ(once, value(client.usage()).host_used) << "held by the other handle";
}

TEST_F(Sharing, AReadOnlyHeapBufferCannotBeWrittenByADevice) {
  const Client client = host.connect();
  auto heap = value(dmabuf::guest::system_heap()->allocate(size, Access::read, "heap"));
  const Buffer taken = value(client.import_view(view_of(heap.buffer.fd(), size)));
  EXPECT_EQ(Access::read, taken.access());
  EXPECT_EQ(Errc::not_permitted, code(taken.map_device(Access::read_write)));
  EXPECT_EQ(Errc::not_permitted, code(taken.map_cpu(Access::read_write)));
  EXPECT_EQ(no_error, code(taken.map_device(Access::read)));
}

TEST_F(Sharing, WhatIsReadOnlyForCpusLeavesAsASealedFile) {
  const Client client = host.connect();
  const Buffer buffer = value(client.allocate(size, {.cpu = CpuVisibility::read_only}));
  const Export view = value(buffer.export_view());
  EXPECT_FALSE(is_dma_buf(view.pieces.front().fd.view()));
  EXPECT_FALSE(
      Mapping::create(view.pieces.front().fd.view(), 0, size, PROT_READ | PROT_WRITE).has_value());
}

TEST_F(Sharing, DeviceMemoryThatCpusSeeIsExportedToo) {
  const Client first = host.connect(0);
  const Client second = host.connect(1);
  const Buffer made =
      value(first.allocate(size, {.domain = Domain::device, .cpu = CpuVisibility::visible}));
  fill(value(made.map_cpu()).bytes(), 6);
  const Export view = value(made.export_view());
  EXPECT_TRUE(is_dma_buf(view.pieces.front().fd.view()));
  const Buffer taken = value(second.import_view(view));
  const Buffer target = value(second.allocate(size));
  const auto from = value(taken.map_device());
  const auto to = value(target.map_device());
  value(copy_and_wait(second, from.address(), to.address(), size));
  EXPECT_TRUE(std::ranges::equal(value(made.map_cpu()).bytes(), value(target.map_cpu()).bytes()));
}

TEST_F(Sharing, ALargeBufferIsSeveralDmaBufsAndOneBufferAgain) {
  // Another driver process, as far as memory is concerned.
  NpuHost other;
  other.add();
  const dmabuf::guest::Parameter limit("size_limit_mb", "1");
  const Client first = host.connect();
  const Client second = other.connect();
  const Buffer made = value(first.allocate(3_MiB + 64_KiB));
  const CpuMapping in = value(made.map_cpu());
  fill(in.bytes(), 7);
  const Export view = value(made.export_view());
  ASSERT_EQ(4U, view.pieces.size());
  const auto none = value(second.usage()).host_used;
  {
    const Buffer taken = value(second.import_view(view));
    ASSERT_EQ(made.size(), taken.size());
    const Buffer target = value(second.allocate(made.size()));
    const auto from = value(taken.map_device());
    const auto to = value(target.map_device());
    value(copy_and_wait(second, from.address(), to.address(), made.size()));
    EXPECT_TRUE(std::ranges::equal(in.bytes(), value(target.map_cpu()).bytes()));
    EXPECT_EQ(Errc::not_supported, code(taken.map_cpu())) << "it lies in four files";
    const CpuMapping part =
        value(taken.map_cpu({BufferOffset(1U << 20), BufferOffset(2U << 20)}, Access::read));
    EXPECT_TRUE(std::ranges::equal(in.bytes().subspan(1U << 20, 1U << 20), part.bytes()));
  }
  EXPECT_EQ(none, value(second.usage()).host_used);
  // Back where it was made, it is what it was.
  const Buffer back = value(first.import_view(view));
  fill(value(back.map_cpu()).bytes(), 8);
  EXPECT_EQ(std::byte{8}, in.bytes()[0]);
}

TEST_F(Sharing, MoreDmaBufsThanACallCarriesLeaveAsOneMemoryFile) {
  const dmabuf::guest::Parameter limit("size_limit_mb", "1");
  const Client client = host.connect();
  const Buffer buffer = value(client.allocate(16_MiB));
  const Export view = value(buffer.export_view());
  ASSERT_EQ(1U, view.pieces.size());
  EXPECT_FALSE(is_dma_buf(view.pieces.front().fd.view()));
}

TEST_F(Sharing, ExportsOutliveTheirSessionAndNothingIsLeft) {
  const std::size_t dma_bufs = count_dma_bufs();
  const std::size_t fds = count_fds();
  {
    Export view;
    {
      const Client client = host.connect();
      const Buffer buffer = value(client.allocate(size));
      fill(value(buffer.map_cpu()).bytes(), 9);
      view = value(buffer.export_view());
    }
    EXPECT_EQ(dma_bufs + 1, count_dma_bufs());
    const auto seen = value(Mapping::create(view.pieces.front().fd.view(), 0, size, PROT_READ));
    std::vector<std::byte> expected(size.value());
    fill(expected, 9);
    EXPECT_TRUE(std::ranges::equal(expected, seen.bytes()));
  }
  EXPECT_TRUE(dma_bufs_become(dma_bufs));
  const auto deadline = soon();
  while (count_fds() != fds && std::chrono::steady_clock::now() < deadline)
    std::this_thread::sleep_for(10ms);
  EXPECT_EQ(fds, count_fds());
}

/// A camera: vgem, which writes a picture into a dma-buf 300 ms after it said that it would.
class Camera {
 public:
  Camera(FdView buffer, std::span<std::byte> memory) : object_(value(vgem_->import(buffer))) {
    const std::uint32_t fence =
        dmabuf::guest::begin_work(vgem_->node(), object_->handle(), Access::write);
    thread_ = std::thread([this, memory, fence] {
      std::this_thread::sleep_for(300ms);
      std::ranges::fill(memory, std::byte{0x77});
      dmabuf::guest::end_work(vgem_->node(), fence);
    });
  }
  ~Camera() { thread_.join(); }
  Camera(const Camera&) = delete;
  Camera& operator=(const Camera&) = delete;

 private:
  std::shared_ptr<dmabuf::DrmDevice> vgem_ = drm("vgem");
  std::unique_ptr<dmabuf::DrmDevice::Object> object_;
  std::thread thread_;
};

TEST_F(Sharing, WhatOthersHoldIsListedUntilTheyLetGo) {
  const Client client = host.connect(1);
  const Buffer buffer = value(client.allocate(size));
  const Buffer visible =
      value(client.allocate(64_KiB, {.domain = Domain::device, .cpu = CpuVisibility::visible}));
  EXPECT_TRUE(value(host.runtime().exports()).empty());
  {
    const Export part = value(buffer.export_view({BufferOffset(8192), BufferOffset(16384)}));
    const Export device = value(visible.export_view());
    auto list = value(host.runtime().exports());
    ASSERT_EQ(2U, list.size());
    EXPECT_EQ(identity(part.pieces.front().fd.view()),
              (FileIdentity{list[0].device, list[0].inode}));
    EXPECT_EQ(8_KiB, list[0].offset);
    EXPECT_EQ(8_KiB, list[0].length);
    EXPECT_TRUE(list[0].name.starts_with("accelmm1:session")) << list[0].name;
    EXPECT_EQ(identity(device.pieces.front().fd.view()),
              (FileIdentity{list[1].device, list[1].inode}));
    EXPECT_EQ(64_KiB, list[1].length);
  }
  EXPECT_TRUE(value(host.runtime().exports()).empty());
}

TEST_F(Sharing, AnAccessToWhatWasImportedWaitsForItsDriverAndOneToOurOwnForNobody) {
  const Client client = host.connect();
  auto heap = value(dmabuf::guest::system_heap()->allocate(64_KiB, Access::read_write, "heap"));
  const auto theirs = value(Mapping::create(heap.buffer.fd(), 0, 64_KiB, PROT_READ | PROT_WRITE));
  const Buffer taken = value(client.import_view(view_of(heap.buffer.fd(), 64_KiB)));
  const CpuMapping mapping = value(taken.map_cpu());
  {
    const Camera camera(heap.buffer.fd(), theirs.bytes());
    const auto early = mapping.begin_access(Access::read, monotonic_ns() + 20'000'000);
    ASSERT_FALSE(early.has_value());
    EXPECT_EQ(Errc::timed_out, early.error().code);
    EXPECT_EQ(std::byte{}, mapping.bytes()[0]);
    auto access = value(mapping.begin_access(Access::read, monotonic_ns() + 20'000'000'000));
    EXPECT_EQ(std::byte{0x77}, mapping.bytes()[0]);
    value(access.end());
    EXPECT_EQ(Errc::invalid_argument, access.end().error().code);
  }
  EXPECT_EQ(Errc::invalid_argument, mapping.begin_access(static_cast<Access>(0)).error().code);

  const Buffer own = value(client.allocate(64_KiB));
  const CpuMapping own_bytes = value(own.map_cpu());
  const Camera camera(value(own.export_view()).pieces.front().fd.view(), own_bytes.bytes());
  EXPECT_TRUE(own_bytes.begin_access(Access::read_write, 0).has_value());
}

TEST_F(Sharing, AJobThatWaitsForTheCamerasFenceSeesThePictureAndOneThatDoesNotMissesIt) {
  const Client client = host.connect();
  const Buffer frame = value(client.allocate(64_KiB));
  const Buffer waited = value(client.allocate(64_KiB));
  const Buffer hasty = value(client.allocate(64_KiB));
  const CpuMapping picture = value(frame.map_cpu());
  const Export view = value(frame.export_view());
  const auto from = value(frame.map_device());
  const auto to_waited = value(waited.map_device());
  const auto to_hasty = value(hasty.map_device());
  const auto watch = value(FenceWatch::create());
  std::promise<Result<void>> copied;
  {
    const Camera camera(view.pieces.front().fd.view(), picture.bytes());
    watch->wait(
        value(Fence::of_dma_buf(view.pieces.front().fd.view(), Access::read)),
        Completion([&](Result<void> ended) {
          copied.set_value(
              ended ? copy_and_wait(client, from.address(), to_waited.address(), 64_KiB) : ended);
        }),
        monotonic_ns() + 20'000'000'000);
    value(copy_and_wait(client, from.address(), to_hasty.address(), 64_KiB));
    value(copied.get_future().get());
  }
  const auto all = [](const Buffer& buffer, std::byte expected) {
    const CpuMapping seen = value(buffer.map_cpu());
    return std::ranges::all_of(seen.bytes(), [=](std::byte byte) { return byte == expected; });
  };
  EXPECT_TRUE(all(waited, std::byte{0x77}));
  EXPECT_TRUE(all(hasty, std::byte{}));
}

}  // namespace
}  // namespace accelmm::test
