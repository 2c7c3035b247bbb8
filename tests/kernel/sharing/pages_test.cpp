// SPDX-License-Identifier: Apache-2.0
//
// Nothing copies what is shared: at each hop it is the same file, and the same page frames.
#include "dmabuf/dma_buf.hpp"
#include "kernel/sharing/kernel_memory.hpp"
#include "kernel/sharing/physical_memory.hpp"
#include "support/application_process.hpp"
#include "support/driver_process.hpp"

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <sys/socket.h>

namespace accelmm::kernel_test {
namespace {

using test::copy_and_wait;
using test::DriverProcess;
using test::value;

constexpr ByteCount size = 256_KiB;

void fill(std::span<std::byte> bytes, unsigned seed) {
  for (std::size_t at = 0; at < bytes.size(); ++at)
    bytes[at] = static_cast<std::byte>(at * 31 + at / 4096 + seed);
}

Frames frames_of(const CpuMapping& mapping) {
  return frames_at(::getpid(), reinterpret_cast<std::uint64_t>(mapping.bytes().data()), size);
}

Export sent_and_received(const Export& view) {
  int ends[2];
  EXPECT_EQ(0, ::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends));
  const UniqueFd here(ends[0]);
  const UniqueFd there(ends[1]);
  value(send_export(here.view(), view));
  return value(receive_export(there.view()));
}

class Pages : public testing::Test {
 protected:
  static test::DriverProcessOptions npu() {
    test::DriverProcessOptions options;
    options.npu.compute_sessions = ComputeSessions::many;
    return options;
  }
  static Client connect(const DriverProcess& driver, const test::TemporaryFolder& folder) {
    return value(Client::connect(driver.number(), NodeKind::compute, folder.path()));
  }
  static FileId file_of(const Export& view) { return file_id(view.pieces.front().fd.view()); }

  test::TemporaryFolder here_folder;
  test::TemporaryFolder there_folder;
  DriverProcess here{here_folder.path(), npu()};
  DriverProcess there{there_folder.path(), npu()};
  Client maker = connect(here, here_folder);
  Client neighbour = connect(here, here_folder);
  Client stranger = connect(there, there_folder);
};

TEST_F(Pages, AreTheSameFilesAndFramesAtEachHop) {
  const Buffer made = value(maker.allocate(size));
  const CpuMapping in = value(made.map_cpu());
  fill(in.bytes(), 1);
  const FileId memfd = file_at(in.bytes().data());
  const Frames frames = frames_of(in);
  ASSERT_TRUE(are_all_there(frames));

  // The driver process's window, once its device has been to each page.
  const auto at = value(made.map_device());
  value(copy_and_wait(maker, at.address(), at.address(), size));
  const Area window = area_of_file(here.pid(), memfd);
  ASSERT_NE(0U, window.begin) << "the driver process does not have " << memfd;
  EXPECT_EQ(frames, frames_at(here.pid(), window.begin, size));

  // From hand to hand it is one dma-buf.
  const Export view = value(made.export_view());
  const FileId dma_buf = file_of(view);
  EXPECT_NE(memfd, dma_buf);
  const Export received = sent_and_received(view);
  EXPECT_EQ(dma_buf, file_of(received));

  // Where it came from, it is the memory file.
  const Buffer back = value(neighbour.import_view(received));
  const CpuMapping back_bytes = value(back.map_cpu());
  EXPECT_EQ(memfd, file_at(back_bytes.bytes().data()));
  fill(back_bytes.bytes(), 2);
  EXPECT_EQ(frames, frames_of(back_bytes));

  // Elsewhere it is the dma-buf: for the client, for its driver process, and for who gets it next.
  const Buffer taken = value(stranger.import_view(received));
  const CpuMapping seen = value(taken.map_cpu());
  EXPECT_EQ(dma_buf, file_at(seen.bytes().data()));
  EXPECT_NE(0U, area_of_file(there.pid(), dma_buf).begin);
  EXPECT_EQ(dma_buf, file_of(value(taken.export_view())));
  EXPECT_EQ(frames, frames_of(in)) << "pages were moved";
}

// Of a dma-buf's mapping pagemap says nothing (VM_PFNMAP). So what is written through it is looked for
// in the frames themselves.
TEST_F(Pages, OfADmaBufAreTheFramesOfItsMemoryFile) {
  const PhysicalMemory memory;
  const Buffer made = value(maker.allocate(size));
  const CpuMapping in = value(made.map_cpu());
  fill(in.bytes(), 3);
  const Frames frames = frames_of(in);
  ASSERT_TRUE(are_all_there(frames));
  EXPECT_TRUE(std::ranges::equal(in.bytes(), memory.read(frames)));

  const Buffer taken = value(stranger.import_view(value(made.export_view())));
  const CpuMapping seen = value(taken.map_cpu());
  EXPECT_TRUE(std::ranges::equal(in.bytes(), seen.bytes()));
  fill(seen.bytes(), 4);
  EXPECT_EQ(Frames(frames.size(), 0), frames_of(seen)) << "then they can be compared at once";
  EXPECT_TRUE(std::ranges::equal(seen.bytes(), memory.read(frames))) << "a CPU's";

  // And what a device of the other driver process writes.
  const Buffer source = value(stranger.allocate(size));
  const CpuMapping source_bytes = value(source.map_cpu());
  fill(source_bytes.bytes(), 5);
  const auto from = value(source.map_device());
  const auto to = value(taken.map_device());
  value(copy_and_wait(stranger, from.address(), to.address(), size));
  EXPECT_TRUE(std::ranges::equal(source_bytes.bytes(), memory.read(frames))) << "a device's";
  EXPECT_NE(frames, frames_of(source_bytes));
}

}  // namespace
}  // namespace accelmm::kernel_test
