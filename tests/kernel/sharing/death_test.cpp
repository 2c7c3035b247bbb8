// SPDX-License-Identifier: Apache-2.0
//
// Each party of a shared dma-buf is killed with SIGKILL in the middle of what it does. The others keep
// the bytes, and when they let go the kernel has no dma-buf and no page more than before.
#include "kernel/dmabuf/guest.hpp"
#include "kernel/dmabuf/sources.hpp"
#include "kernel/dmabuf/vgem.hpp"
#include "kernel/sharing/kernel_memory.hpp"
#include "support/application_process.hpp"
#include "support/driver_process.hpp"

#include <accelmm/drm_display.hpp>
#include <accelmm/fence.hpp>
#include <accelmm/v4l2_camera.hpp>

#include <algorithm>
#include <cstddef>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <drm_fourcc.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

namespace accelmm::kernel_test {
namespace {

using test::ApplicationProcess;
using test::code;
using test::copy_and_wait;
using test::DriverProcess;
using test::Holdings;
using test::require;
using test::value;

constexpr ByteCount size = 2_MiB;
constexpr int deaths = 4;  // of applications, each at another moment

std::byte pattern(std::size_t at, unsigned seed) {
  return static_cast<std::byte>(at * 31 + at / 4096 + seed);
}
void fill(std::span<std::byte> bytes, unsigned seed) {
  for (std::size_t at = 0; at < bytes.size(); ++at) bytes[at] = pattern(at, seed);
}
bool has_pattern(std::span<const std::byte> bytes, unsigned seed) {
  for (std::size_t at = 0; at < bytes.size(); ++at)
    if (bytes[at] != pattern(at, seed)) return false;
  return true;
}

/// Two connected sockets, both close-on-exec.
struct SocketPair {
  SocketPair() {
    int ends[2] = {-1, -1};
    EXPECT_EQ(0, ::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends));
    ours = UniqueFd(ends[0]);
    theirs = UniqueFd(ends[1]);
  }
  UniqueFd ours;
  UniqueFd theirs;
};

/// A party says that it went round once more.
void beat(FdView socket) {
  require(::send(socket.get(), "b", 1, MSG_NOSIGNAL) == 1, "the test listens");
}
/// Waits for that.
[[nodiscard]] bool hears_beats(FdView socket, int beats) {
  for (int i = 0; i < beats; ++i) {
    pollfd entry{socket.get(), POLLIN, 0};
    char letter = 0;
    if (::poll(&entry, 1, 30'000) != 1 || ::recv(socket.get(), &letter, 1, 0) != 1) return false;
  }
  return true;
}

class PartyDeath : public testing::Test {
 protected:
  static test::DriverProcessOptions npu() {
    test::DriverProcessOptions options;
    options.npu.compute_sessions = ComputeSessions::many;
    return options;
  }
  [[nodiscard]] Client connect_here() const {
    return value(Client::connect(here.number(), NodeKind::compute, here_folder.path()));
  }
  [[nodiscard]] Client connect_there() const {
    return value(Client::connect(there.number(), NodeKind::compute, there_folder.path()));
  }
  /// Whether a driver process has let go of what its sessions had.
  static testing::AssertionResult holds_again(const DriverProcess& driver, const Holdings& before) {
    const auto deadline = test::soon();
    while (true) {
      const Holdings now = driver.holdings();
      if (now.fds == before.fds && now.memfd_maps == before.memfd_maps)
        return testing::AssertionSuccess();
      if (std::chrono::steady_clock::now() > deadline)
        return testing::AssertionFailure() << "holds " << now << "; before, " << before;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  }
  /// Whether a device reads a buffer's bytes as they were written.
  static bool device_sees(const Client& client, const Buffer& buffer, unsigned seed) {
    const Buffer target = value(client.allocate(buffer.size()));
    const auto from = value(buffer.map_device(Access::read));
    const auto to = value(target.map_device());
    value(copy_and_wait(client, from.address(), to.address(), buffer.size()));
    return has_pattern(value(target.map_cpu()).bytes(), seed);
  }

  test::TemporaryFolder here_folder;
  test::TemporaryFolder there_folder;
  DriverProcess here{here_folder.path(), npu()};
  DriverProcess there{there_folder.path(), npu()};
  Holdings here_before = here.holdings();
  Holdings there_before = there.holdings();
  KernelMemory before = kernel_memory();
};

TEST_F(PartyDeath, OfTheApplicationThatExportedLeavesTheImporterItsBytes) {
  for (int death = 1; death <= deaths; ++death) {
    SocketPair sockets;
    ApplicationProcess exporter([&] {
      const Client client = connect_here();
      const Buffer buffer = value(client.allocate(size));
      fill(value(buffer.map_cpu()).bytes(), 5);
      value(send_export(sockets.theirs.view(), value(buffer.export_view())));
      while (true) {
        const Buffer other = value(client.allocate(1_MiB));
        const Export view = value(other.export_view());
        const auto from = value(buffer.map_device());
        const auto to = value(other.map_device());
        value(copy_and_wait(client, from.address(), to.address(), 64_KiB));
        beat(sockets.theirs.view());
      }
    });
    {
      const Export view = value(receive_export(sockets.ours.view()));
      ASSERT_TRUE(dmabuf::is_dma_buf(view.pieces.front().fd.view()).value());
      const Client client = connect_there();
      const Buffer taken = value(client.import_view(view));
      ASSERT_TRUE(hears_beats(sockets.ours.view(), death));
      exporter.kill();
      EXPECT_TRUE(exporter.wait().killed());
      EXPECT_TRUE(holds_again(here, here_before)) << "the dead one's driver process";
      EXPECT_TRUE(has_pattern(value(taken.map_cpu()).bytes(), 5));
      EXPECT_TRUE(device_sees(client, taken, 5));
    }
    EXPECT_TRUE(holds_again(there, there_before));
    EXPECT_TRUE(nothing_was_left_since(before)) << "death " << death;
  }
}

TEST_F(PartyDeath, OfTheApplicationThatImportedLeavesTheExporterItsBytes) {
  for (int death = 1; death <= deaths; ++death) {
    SocketPair sockets;
    ApplicationProcess importer([&] {
      const Export view = value(receive_export(sockets.theirs.view()));
      const Client client = connect_there();
      const Buffer target = value(client.allocate(size));
      const auto to = value(target.map_device());
      while (true) {
        const Buffer taken = value(client.import_view(view));
        const auto seen = value(taken.map_cpu(Access::read));
        const auto from = value(taken.map_device(Access::read));
        value(copy_and_wait(client, from.address(), to.address(), 64_KiB));
        beat(sockets.theirs.view());
      }
    });
    {
      const Client client = connect_here();
      const Buffer buffer = value(client.allocate(size));
      const CpuMapping bytes = value(buffer.map_cpu());
      fill(bytes.bytes(), 6);
      value(send_export(sockets.ours.view(), value(buffer.export_view())));
      ASSERT_TRUE(hears_beats(sockets.ours.view(), death));
      importer.kill();
      EXPECT_TRUE(importer.wait().killed());
      EXPECT_TRUE(holds_again(there, there_before)) << "the dead one's driver process";
      EXPECT_TRUE(has_pattern(bytes.bytes(), 6));
      EXPECT_TRUE(device_sees(client, buffer, 6));
    }
    EXPECT_TRUE(holds_again(here, here_before));
    EXPECT_TRUE(nothing_was_left_since(before)) << "death " << death;
  }
}

TEST_F(PartyDeath, OfTheExportersDriverProcessLeavesBothSidesTheBytes) {
  {
    const Client client = connect_here();
    const Client other = connect_there();
    const Buffer buffer = value(client.allocate(size));
    const CpuMapping bytes = value(buffer.map_cpu());
    fill(bytes.bytes(), 7);
    const Export view = value(buffer.export_view());
    const Buffer taken = value(other.import_view(view));
    EXPECT_TRUE(device_sees(client, buffer, 7));
    EXPECT_TRUE(here.kill().killed());
    EXPECT_EQ(Errc::no_device, code(buffer.export_view()));
    EXPECT_TRUE(has_pattern(bytes.bytes(), 7));
    EXPECT_TRUE(device_sees(other, taken, 7));
    // It is still the same memory.
    fill(bytes.bytes(), 8);
    EXPECT_TRUE(device_sees(other, taken, 8));
    EXPECT_EQ(before.dma_bufs + 1, kernel_memory().dma_bufs);
  }
  EXPECT_TRUE(holds_again(there, there_before));
  EXPECT_TRUE(nothing_was_left_since(before));
}

TEST_F(PartyDeath, OfTheImportersDriverProcessLeavesTheExporterItsBytes) {
  {
    const Client client = connect_here();
    const Client other = connect_there();
    const Buffer buffer = value(client.allocate(size));
    fill(value(buffer.map_cpu()).bytes(), 9);
    const Export view = value(buffer.export_view());
    const Buffer taken = value(other.import_view(view));
    const CpuMapping seen = value(taken.map_cpu());
    EXPECT_TRUE(device_sees(other, taken, 9));
    EXPECT_TRUE(there.kill().killed());
    EXPECT_EQ(Errc::no_device, code(taken.map_device()));
    EXPECT_TRUE(has_pattern(seen.bytes(), 9)) << "what was mapped stays mapped";
    EXPECT_TRUE(device_sees(client, buffer, 9));
  }
  EXPECT_TRUE(holds_again(here, here_before));
  EXPECT_TRUE(nothing_was_left_since(before));
}

// --- camera and display ---

constexpr ImageSize vga = {640, 480};
constexpr ByteCount image_size{640 * 4 * 480};
constexpr std::byte unwritten{0xa5};

Agreement vga_image() {
  Agreement made;
  made.size = image_size;
  made.image = AgreedImage{.format = {DRM_FORMAT_XRGB8888, DRM_FORMAT_MOD_LINEAR},
                           .stride = ByteCount(640 * 4),
                           .rows = 480};
  return made;
}

/// A session's buffers for images, as dma-bufs, and one more that nobody else has.
class Images {
 public:
  explicit Images(Client session) : client(std::move(session)) {
    for (int i = 0; i < 4; ++i) {
      buffers.push_back(value(client.allocate(image_size)));
      mappings.push_back(value(buffers.back().map_cpu()));
      std::ranges::fill(bytes(buffers.size() - 1), unwritten);
    }
    for (int i = 0; i < 3; ++i) {
      views.push_back(value(buffers[static_cast<std::size_t>(i)].export_view()));
      fds.push_back(views.back().pieces.front().fd.view());
    }
  }
  [[nodiscard]] std::span<std::byte> bytes(std::size_t at) const { return mappings[at].bytes(); }
  [[nodiscard]] bool is_unwritten(std::size_t at) const {
    return std::ranges::all_of(bytes(at), [](std::byte byte) { return byte == unwritten; });
  }
  [[nodiscard]] std::vector<std::byte> all_bytes() const {
    std::vector<std::byte> all;
    for (std::size_t i = 0; i < 3; ++i) all.insert(all.end(), bytes(i).begin(), bytes(i).end());
    return all;
  }

  Client client;
  std::vector<Buffer> buffers;
  std::vector<CpuMapping> mappings;
  std::vector<Export> views;
  std::vector<FdView> fds;
};

[[noreturn]] void capture(const std::vector<FdView>& buffers, FdView socket) {
  const auto camera = value(V4l2Camera::open(vivid_capture_node()));
  static_cast<void>(value(camera->constraints(vga)));
  value(camera->begin(vga_image(), buffers));
  while (true) {
    const auto frame = value(camera->next(20'000));
    value(camera->give_back(frame));
    beat(socket);
  }
}

[[noreturn]] void show(const std::vector<FdView>& buffers, FdView socket) {
  const auto display = value(DrmDisplay::open_driver("cirrus"));
  static_cast<void>(value(display->constraints(vga)));
  value(display->begin(vga_image(), buffers));
  for (std::size_t next = 0;; next = (next + 1) % buffers.size()) {
    value(display->show(next));
    beat(socket);
  }
}

/// Runs a program of the kernel's device in a process of its own, and kills it after some turns.
void kill_after(int turns, const std::function<void(FdView)>& program) {
  SocketPair sockets;
  ApplicationProcess party([&] { program(sockets.theirs.view()); });
  sockets.theirs.reset();
  EXPECT_TRUE(hears_beats(sockets.ours.view(), turns)) << "it does not work";
  party.kill();
  EXPECT_TRUE(party.wait().killed());
}

TEST_F(PartyDeath, OfACameraProgramEndsItsWritesAndFreesTheCamera) {
  {
    const Images images(connect_here());
    for (const int turns : {1, 3, 4}) {
      for (std::size_t i = 0; i < 3; ++i) std::ranges::fill(images.bytes(i), unwritten);
      kill_after(turns, [&](FdView socket) { capture(images.fds, socket); });
      EXPECT_FALSE(images.is_unwritten(0)) << "it did not capture into our buffers";
      const auto left = images.all_bytes();
      std::this_thread::sleep_for(std::chrono::milliseconds(300));
      EXPECT_EQ(left, images.all_bytes()) << "somebody still writes";
      EXPECT_TRUE(images.is_unwritten(3)) << "a byte of another buffer was written";
      fill(images.bytes(0), 10);
      EXPECT_TRUE(device_sees(images.client, images.buffers[0], 10));
      EXPECT_EQ(before.dma_bufs + 3, kernel_memory().dma_bufs);
    }
  }
  EXPECT_TRUE(holds_again(here, here_before));
  EXPECT_TRUE(nothing_was_left_since(before));
}

TEST_F(PartyDeath, OfADisplayProgramLeavesTheBytesAndFreesTheScreen) {
  {
    const Images images(connect_here());
    for (std::size_t i = 0; i < 3; ++i) fill(images.bytes(i), 11 + static_cast<unsigned>(i));
    for (const int turns : {1, 4}) {
      kill_after(turns, [&](FdView socket) { show(images.fds, socket); });
      for (std::size_t i = 0; i < 3; ++i)
        EXPECT_TRUE(has_pattern(images.bytes(i), 11 + static_cast<unsigned>(i))) << i;
      EXPECT_TRUE(device_sees(images.client, images.buffers[0], 11));
    }
  }
  EXPECT_TRUE(holds_again(here, here_before));
  EXPECT_TRUE(nothing_was_left_since(before)) << "the screen has a buffer yet";
}

// What shows pictures may die with the session whose buffers it shows: nobody is left who could let go.
TEST_F(PartyDeath, OfAllAtOnceLeavesNothing) {
  SocketPair sockets;
  SocketPair pictures;
  ApplicationProcess camera_program([&] {
    std::vector<Export> views;
    std::vector<FdView> fds;
    for (int i = 0; i < 3; ++i) {
      views.push_back(value(receive_export(pictures.theirs.view())));
      fds.push_back(views.back().pieces.front().fd.view());
    }
    capture(fds, sockets.theirs.view());
  });
  ApplicationProcess application([&] {
    const Images images(connect_here());
    for (const Export& view : images.views) value(send_export(pictures.ours.view(), view));
    const Client other = connect_there();
    const Buffer taken = value(other.import_view(images.views[0]));
    const auto there_at = value(taken.map_device());
    ::pause();
  });
  ASSERT_TRUE(hears_beats(sockets.ours.view(), 2));
  EXPECT_LT(before.dma_bufs, kernel_memory().dma_bufs);
  EXPECT_TRUE(here.kill().killed());
  camera_program.kill();
  application.kill();
  EXPECT_TRUE(there.kill().killed());
  EXPECT_TRUE(camera_program.wait().killed());
  EXPECT_TRUE(application.wait().killed());
  EXPECT_TRUE(nothing_was_left_since(before));
}

// --- an end in order ---

TEST_F(PartyDeath, ClosingASessionWaitsForNobodyWhoImportedFromIt) {
  const auto vgem = dmabuf::guest::drm("vgem");
  const Client other = connect_there();
  std::optional<Client> client(connect_here());
  std::optional<Buffer> buffer(value(client->allocate(size)));
  fill(value(buffer->map_cpu()).bytes(), 12);
  const Export view = value(buffer->export_view());
  const Buffer taken = value(other.import_view(view));
  const FdView fd = view.pieces.front().fd.view();
  // A driver of the kernel that works on it for ten seconds.
  const auto object = value(vgem->import(fd));
  const std::uint32_t work =
      dmabuf::guest::begin_work(vgem->node(), object->handle(), Access::write);
  value(buffer->free());
  buffer.reset();
  client.reset();
  EXPECT_TRUE(holds_again(here, here_before)) << "its driver process waits for who imported it";
  const Fence writer = value(Fence::of_dma_buf(fd, Access::read));
  EXPECT_FALSE(writer.outcome().has_value()) << "the driver has ended its work: nothing is shown";
  dmabuf::guest::end_work(vgem->node(), work);
  EXPECT_TRUE(device_sees(other, taken, 12));
}

}  // namespace
}  // namespace accelmm::kernel_test
