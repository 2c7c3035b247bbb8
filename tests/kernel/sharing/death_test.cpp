// SPDX-License-Identifier: Apache-2.0
//
// Each party of a shared dma-buf is killed in the middle; the others go on, and nothing is left in the
// kernel.
#include "base/mapping.hpp"
#include "base/system.hpp"
#include "kernel/dmabuf/guest.hpp"
#include "kernel/sharing/kernel_buffers.hpp"
#include "support/npu_host.hpp"

#include <algorithm>
#include <array>
#include <csignal>
#include <functional>

#include <sys/prctl.h>
#include <sys/wait.h>

namespace accelmm::test {
namespace {

constexpr ByteCount size = 256_KiB;

/// A process that does something with its end of a socket, and then waits to be killed.
class Party {
 public:
  explicit Party(const std::function<void(FdView)>& body) {
    auto ends = sys::socket_pair().value();
    pid_ = ::fork();
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      ends.first.reset();
      try {
        body(ends.second.view());
      } catch (const std::exception& error) {
        std::fprintf(stderr, "party: %s\n", error.what());
      }
      ::_exit(1);
    }
    socket_ = std::move(ends.first);
  }
  Party(const Party&) = delete;
  Party& operator=(const Party&) = delete;
  ~Party() { kill(); }

  [[nodiscard]] FdView socket() const { return socket_.view(); }
  void kill() {
    if (pid_ == 0) return;
    EXPECT_EQ(0, ::kill(pid_, SIGKILL));
    EXPECT_EQ(pid_, ::waitpid(pid_, nullptr, 0));
    pid_ = 0;
  }

 private:
  pid_t pid_ = 0;
  UniqueFd socket_;
};

void wait_to_be_killed() {
  while (true) ::pause();
}

void mark(const Buffer& buffer) {
  const CpuMapping view = value(buffer.map_cpu());
  std::ranges::fill(view.bytes(), std::byte{0x42});
}

bool is_marked(const Export& view) {
  const auto seen = value(Mapping::create(view.pieces.front().fd.view(), 0, size, PROT_READ));
  return std::ranges::all_of(seen.bytes(), [](std::byte byte) { return byte == std::byte{0x42}; });
}

TEST(SharingDeath, ADriverProcessThatIsKilledLeavesItsExportsToTheirHolders) {
  const std::size_t before = count_dma_bufs();
  {
    Party driver([](FdView socket) {
      NpuHost host;
      host.add();
      const Client client = host.connect();
      const Buffer buffer = value(client.allocate(size));
      mark(buffer);
      value(send_export(socket, value(buffer.export_view())));
      wait_to_be_killed();
    });
    const Export view = value(receive_export(driver.socket()));
    ASSERT_TRUE(dmabuf::is_dma_buf(view.pieces.front().fd.view()).value());
    NpuHost host;
    host.add();
    const Client client = host.connect();
    const Buffer taken = value(client.import_view(view));
    const auto vgem = dmabuf::guest::drm("vgem");
    const auto object = value(vgem->import(view.pieces.front().fd.view()));
    driver.kill();
    EXPECT_TRUE(is_marked(view));
    const Buffer target = value(client.allocate(size));
    const auto from = value(taken.map_device());
    const auto to = value(target.map_device());
    value(copy_and_wait(client, from.address(), to.address(), size));
    EXPECT_EQ(std::byte{0x42}, value(target.map_cpu()).bytes()[size.value() - 1]);
  }
  EXPECT_TRUE(dma_bufs_become(before));
}

TEST(SharingDeath, AnApplicationThatIsKilledLeavesNothingBehind) {
  const std::size_t before = count_dma_bufs();
  {
    NpuHost host;
    host.add();
    Party application([&](FdView socket) {
      const Client client = value(Client::connect(0, NodeKind::compute, host.directory()));
      const Buffer buffer = value(client.allocate(size));
      mark(buffer);
      value(send_export(socket, value(buffer.export_view())));
      wait_to_be_killed();
    });
    const Client watcher = host.connect();
    {
      const Export view = value(receive_export(application.socket()));
      EXPECT_EQ(before + 1, count_dma_bufs());
      const Buffer taken = value(watcher.import_view(view));
      application.kill();
      EXPECT_TRUE(is_marked(view));
      EXPECT_EQ(std::byte{0x42}, value(taken.map_cpu()).bytes()[0]);
    }
    const auto deadline = soon();
    while (value(watcher.usage()).host_used != 0 && std::chrono::steady_clock::now() < deadline)
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    EXPECT_EQ(0U, value(watcher.usage()).host_used);
    EXPECT_TRUE(dma_bufs_become(before));
  }
}

TEST(SharingDeath, AnImporterThatIsKilledLeavesTheBufferToItsMaker) {
  const std::size_t before = count_dma_bufs();
  {
    NpuHost host;
    host.add();
    const Client client = host.connect();
    const Buffer buffer = value(client.allocate(size));
    const Export view = value(buffer.export_view());
    Party importer([](FdView socket) {
      const Export received = value(receive_export(socket));
      NpuHost other;
      other.add();
      const Client theirs = other.connect();
      const Buffer taken = value(theirs.import_view(received));
      mark(taken);
      const auto mapped = value(taken.map_device());
      const std::array<std::byte, 1> done{};
      value(sys::send_packet(socket, done, {}));
      wait_to_be_killed();
    });
    value(send_export(importer.socket(), view));
    std::array<std::byte, 1> done{};
    ASSERT_EQ(1U, value(sys::receive_packet(importer.socket(), done, 0)).size);
    importer.kill();
    EXPECT_TRUE(is_marked(view));
    EXPECT_EQ(before + 1, count_dma_bufs());
  }
  EXPECT_TRUE(dma_bufs_become(before));
}

}  // namespace
}  // namespace accelmm::test
