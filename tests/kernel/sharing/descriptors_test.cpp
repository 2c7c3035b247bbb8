// SPDX-License-Identifier: Apache-2.0
//
// Descriptors: what happens when there is room for none at each step of sharing, in the application and
// in the driver process; and that no program which is started gets one of ours.
#include "dmabuf/dma_buf.hpp"
#include "dmabuf/dma_heap.hpp"
#include "kernel/bus/edu_machine.hpp"
#include "kernel/dmabuf/guest.hpp"
#include "kernel/dmabuf/sources.hpp"
#include "kernel/sharing/kernel_memory.hpp"
#include "support/census.hpp"
#include "support/descriptor_room.hpp"
#include "support/driver_process.hpp"

#include <accelmm/drm_display.hpp>
#include <accelmm/fence.hpp>
#include <accelmm/fence_watch.hpp>
#include <accelmm/v4l2_camera.hpp>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include <gtest/gtest.h>

namespace accelmm::kernel_test {
namespace {

using test::code;
using test::copy_and_wait;
using test::DriverProcess;
using test::value;

constexpr ByteCount size = 64_KiB;
// More than one life has descriptors, in any process.
constexpr int too_much_room = 40;

class Descriptors : public testing::Test {
 protected:
  /// A buffer's life from its making here to a device's work on it there.
  [[nodiscard]] Result<void> live() const {
    auto made = from.allocate(size);
    if (!made) return fail(made.error());
    auto bytes = made->map_cpu();
    if (!bytes) return fail(bytes.error());
    std::ranges::fill(bytes->bytes(), std::byte{0x3c});
    auto view = made->export_view();
    if (!view) return fail(view.error());
    EXPECT_TRUE(dmabuf::is_dma_buf(view->pieces.front().fd.view()).value_or(false));
    auto taken = to.import_view(*view);
    if (!taken) return fail(taken.error());
    auto seen = taken->map_cpu();
    if (!seen) return fail(seen.error());
    EXPECT_EQ(std::byte{0x3c}, seen->bytes().back());
    auto passed_on = taken->export_view();
    if (!passed_on) return fail(passed_on.error());
    auto back = from.import_view(*passed_on);
    if (!back) return fail(back.error());
    auto at = taken->map_device();
    if (!at) return fail(at.error());
    return copy_and_wait(to, at->address(), at->address() + ByteCount(32768), 32_KiB);
  }

  struct Held {
    std::size_t ours;
    std::size_t here;
    std::size_t there;
    std::uint64_t books;
    bool operator==(const Held&) const = default;
    friend std::ostream& operator<<(std::ostream& out, const Held& held) {
      return out << held.ours << ", " << held.here << ", " << held.there << " fds, " << held.books
                 << " bytes in books";
    }
  };
  [[nodiscard]] Held held() const {
    return {test::count_fds(), here.holdings().fds, there.holdings().fds,
            value(from.usage()).host_used + value(to.usage()).host_used};
  }

  /// Gives a process room for no descriptor, for one, and so on, until a life comes to its end.
  void live_with_ever_more_room(pid_t process) {
    ASSERT_TRUE(live());
    const Held before = held();
    const KernelMemory memory = kernel_memory();
    int failures = 0;
    for (int more = 0; more < too_much_room; ++more) {
      Result<void> lived;
      {
        const test::DescriptorRoom room(process, more);
        lived = live();
      }
      EXPECT_EQ(before, held()) << more;
      EXPECT_TRUE(nothing_was_left_since(memory)) << more;
      if (lived) break;
      ++failures;
      EXPECT_EQ(Errc::too_many_files, lived.error().code) << more << ": " << lived.error().what;
      EXPECT_TRUE(live()) << more << ": it does not work any more";
    }
    std::printf("%d steps failed\n", failures);
    EXPECT_GT(failures, 1);
    EXPECT_LT(failures, too_much_room);
  }

  test::TemporaryFolder here_folder;
  test::TemporaryFolder there_folder;
  DriverProcess here{here_folder.path()};
  DriverProcess there{there_folder.path()};
  Client from = value(Client::connect(here.number(), NodeKind::compute, here_folder.path()));
  Client to = value(Client::connect(there.number(), NodeKind::compute, there_folder.path()));
};

TEST_F(Descriptors, WithoutRoomInTheApplicationEachStepFailsAndLeavesNothing) {
  live_with_ever_more_room(::getpid());
}

TEST_F(Descriptors, WithoutRoomInTheExportersDriverEachStepFailsAndLeavesNothing) {
  live_with_ever_more_room(here.pid());
}

TEST_F(Descriptors, WithoutRoomInTheImportersDriverEachStepFailsAndLeavesNothing) {
  live_with_ever_more_room(there.pid());
}

// --- close-on-exec ---

/// What a program that is started now has open: its own look at it, one line each.
std::set<std::string> inherited() {
  std::set<std::string> targets;
  FILE* const helper = ::popen("readlink /proc/self/fd/*", "r");
  char line[256];
  while (std::fgets(line, sizeof line, helper) != nullptr) targets.insert(line);
  EXPECT_NE(-1, ::pclose(helper));
  return targets;
}

/// How many descriptors of this process show a text.
int count_of(const std::string& text) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code closed;
    if (std::filesystem::read_symlink(entry.path(), closed).string().find(text) !=
        std::string::npos)
      ++count;
  }
  return count;
}

/// Numbers of descriptors from 3 on which a program that is started would get.
std::set<std::string> inheritable() {
  std::set<std::string> found;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    const int fd = std::stoi(entry.path().filename());
    std::error_code closed;
    if (fd > 2 && test::is_inheritable("/proc/self", fd))
      found.insert(std::filesystem::read_symlink(entry.path(), closed));
  }
  return found;
}

TEST(CloseOnExec, NoStartedProgramGetsADescriptorOfAnyKind) {
  const auto before = inheritable();
  const auto pipes = [](const std::set<std::string>& targets) {
    std::set<std::string> others;
    for (const std::string& target : targets)
      if (!target.starts_with("pipe:") && !target.starts_with("/proc/")) others.insert(target);
    return others;
  };
  const auto had = pipes(inherited());

  test::NpuHost host;
  host.add();
  const Client client = host.connect();
  const Buffer buffer = value(client.allocate(1_MiB));
  const CpuMapping bytes = value(buffer.map_cpu());
  const Export view = value(buffer.export_view());
  const FdView events = value(client.event_fd());
  ASSERT_TRUE(events.valid());
  const FdView dma_buf = view.pieces.front().fd.view();
  const auto heap = dmabuf::guest::system_heap();
  const auto heap_buffer = value(heap->allocate(1_MiB, Access::read_write, "heap"));
  const auto vgem = dmabuf::guest::drm("vgem");
  const auto object = value(vgem->import(dma_buf));
  const auto udmabuf = dmabuf::guest::udmabuf();
  const auto edu = value(open_edu());
  const auto interrupt = value(edu->interrupt());
  const auto registers = value(edu->region(0));
  const Fence kernel_fence = value(Fence::of_dma_buf(dma_buf, Access::read_write));
  const auto user_fence = value(Fence::create());
  const auto watch = value(FenceWatch::create());
  const auto camera = value(V4l2Camera::open(vivid_capture_node()));
  const auto display = value(DrmDisplay::open_driver("cirrus"));

  // Each kind is there, so that the rest says something.
  for (const char* kind :
       {"/dmabuf:", "/memfd:", "/dev/udmabuf", "/dev/dma_heap/system", "/dev/dri/card",
        "/dev/vfio/vfio", "vfio-device", "/dev/video", "sync_file", "[eventfd]", "socket:"})
    EXPECT_GT(count_of(kind), 0) << kind;
  EXPECT_EQ(before, inheritable());
  EXPECT_EQ(had, pipes(inherited()));
}

}  // namespace
}  // namespace accelmm::kernel_test
