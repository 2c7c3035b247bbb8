// SPDX-License-Identifier: Apache-2.0
//
// Fences of a driver: vgem's, which a test attaches to a dma-buf and signals; and CPU access that
// waits for them.
#include "base/clock.hpp"
#include "base/mapping.hpp"
#include "base/system_dmabuf.hpp"
#include "dmabuf/cpu_access.hpp"
#include "dmabuf/deadline.hpp"
#include "kernel/dmabuf/guest.hpp"
#include "kernel/dmabuf/vgem.hpp"

#include <accelmm/fence.hpp>

#include <atomic>
#include <chrono>
#include <csignal>
#include <thread>

#include <poll.h>
#include <sys/epoll.h>

namespace accelmm::dmabuf {
namespace {

using namespace std::chrono_literals;
constexpr std::uint64_t ms = 1'000'000;

Errc errc(const Result<void>& result) {
  return result ? Errc{} : result.error().code;
}

short seen(FdView fd) {
  pollfd entry{fd.get(), POLLIN | POLLOUT, 0};
  EXPECT_LE(0, ::poll(&entry, 1, 0));
  return entry.revents;
}

/// A dma-buf of ours, and vgem as the driver that works on it.
class DriverFence : public testing::Test {
 protected:
  DriverFence() {
    const FileRange range{file_.view(), 64_KiB, ByteCount(), 64_KiB};
    pieces_ = guest::udmabuf()->export_view({.ranges = std::span(&range, 1)}).value();
    object_ = vgem_->import(fd()).value();
  }
  [[nodiscard]] FdView fd() const { return pieces_.front().fd.view(); }

  /// The driver begins to read, or to write, the buffer.
  [[nodiscard]] std::uint32_t begin_work(Access access) const {
    return guest::begin_work(vgem_->node(), object_->handle(), access);
  }
  void end_work(std::uint32_t fence) const { guest::end_work(vgem_->node(), fence); }
  /// The driver writes `value` into the first byte 300 ms from now, and says so by its fence.
  [[nodiscard]] std::thread write_later(std::byte value) const {
    const std::uint32_t fence = begin_work(Access::write);
    return std::thread([this, fence, value] {
      std::this_thread::sleep_for(300ms);
      view_.bytes()[0] = value;
      end_work(fence);
    });
  }

  UniqueFd file_ = guest::memfd(64_KiB);
  Mapping view_ = Mapping::create(file_.view(), 0, 64_KiB, PROT_READ | PROT_WRITE).value();
  std::vector<Piece> pieces_;
  std::shared_ptr<DrmDevice> vgem_ = guest::drm("vgem");
  std::unique_ptr<DrmDevice::Object> object_;
};

TEST_F(DriverFence, WithTheWaitTheBytesAreRightWithoutItTheyAreNot) {
  std::thread driver = write_later(std::byte{42});
  EXPECT_EQ(std::byte{}, view_.bytes()[0]) << "read without a wait";
  const auto fence = Fence::of_dma_buf(fd(), Access::read);
  ASSERT_TRUE(fence.has_value());
  EXPECT_EQ(Fence::Kind::kernel, fence->kind());
  EXPECT_TRUE(fence->wait(monotonic_ns() + 20'000 * ms).has_value());
  EXPECT_EQ(std::byte{42}, view_.bytes()[0]) << "read after the wait";
  driver.join();
}

TEST_F(DriverFence, ACpuAccessWaitsForTheDriver) {
  std::thread driver = write_later(std::byte{43});
  const auto brackets = CpuBrackets::create(duplicate(fd()).value());
  auto access = brackets->begin(Access::read, monotonic_ns() + 20'000 * ms);
  ASSERT_TRUE(access.has_value()) << access.error().what;
  EXPECT_EQ(std::byte{43}, view_.bytes()[0]);
  EXPECT_TRUE(access->end().has_value());
  driver.join();
}

TEST_F(DriverFence, ACpuAccessEndsItsWaitAtTheDeadline) {
  const std::uint32_t fence = begin_work(Access::write);
  const auto brackets = CpuBrackets::create(duplicate(fd()).value());
  const std::uint64_t begin = monotonic_ns();
  const auto access = brackets->begin(Access::read, begin + 100 * ms);
  ASSERT_FALSE(access.has_value());
  EXPECT_EQ(Errc::timed_out, access.error().code);
  EXPECT_GE(monotonic_ns(), begin + 100 * ms);
  EXPECT_FALSE(brackets->covers(Access::read));
  end_work(fence);
}

// What DMA_BUF_IOCTL_SYNC itself does, which is why the wait comes first.
TEST_F(DriverFence, TheKernelsOwnBracketWaitsWithoutALimit) {
  std::thread driver = write_later(std::byte{44});
  ASSERT_TRUE(sys::dma_buf_sync(fd(), Access::read, sys::SyncEdge::start).has_value());
  EXPECT_EQ(std::byte{44}, view_.bytes()[0]);
  EXPECT_TRUE(sys::dma_buf_sync(fd(), Access::read, sys::SyncEdge::end).has_value());
  driver.join();
}

TEST_F(DriverFence, ReadersWaitForTheWriterAndWritersForAll) {
  EXPECT_EQ(POLLIN | POLLOUT, seen(fd())) << "nobody works on it";
  const std::uint32_t reads = begin_work(Access::read);
  EXPECT_EQ(POLLIN, seen(fd())) << "a driver reads";
  EXPECT_EQ(Errc{}, errc(Fence::of_dma_buf(fd(), Access::read)->wait(0)));
  EXPECT_EQ(Errc::timed_out, errc(Fence::of_dma_buf(fd(), Access::write)->wait(0)));
  end_work(reads);
  EXPECT_EQ(POLLIN | POLLOUT, seen(fd()));
  const std::uint32_t writes = begin_work(Access::write);
  EXPECT_EQ(0, seen(fd())) << "a driver writes";
  EXPECT_EQ(Errc::timed_out, errc(Fence::of_dma_buf(fd(), Access::read)->wait(0)));
  end_work(writes);
  EXPECT_EQ(POLLIN | POLLOUT, seen(fd()));
}

TEST_F(DriverFence, WhatNobodyWorksOnHasAFenceThatHasEnded) {
  for (const Access wanted : {Access::read, Access::write, Access::read_write}) {
    const auto fence = Fence::of_dma_buf(fd(), wanted);
    ASSERT_TRUE(fence.has_value());
    ASSERT_TRUE(fence->outcome().has_value());
    EXPECT_TRUE(fence->outcome()->has_value());
    EXPECT_NE(0, ::fcntl(fence->fd().get(), F_GETFD) & FD_CLOEXEC);
  }
}

TEST_F(DriverFence, AFenceIsGivenOnToAnotherBuffer) {
  const std::uint32_t work = begin_work(Access::write);
  const Fence fence = Fence::of_dma_buf(fd(), Access::read).value();
  auto other = guest::system_heap()->allocate(64_KiB, Access::read_write, "other").value();
  EXPECT_EQ(POLLIN | POLLOUT, seen(other.buffer.fd()));
  ASSERT_TRUE(fence.attach_to(other.buffer.fd(), Access::write).has_value());
  EXPECT_EQ(0, seen(other.buffer.fd()));
  EXPECT_EQ(Errc::timed_out, errc(Fence::of_dma_buf(other.buffer.fd(), Access::read)->wait(0)));
  end_work(work);
  EXPECT_TRUE(Fence::of_dma_buf(other.buffer.fd(), Access::read)->wait().has_value());
}

TEST_F(DriverFence, AMergedFenceEndsWithTheLastOfBoth) {
  const FileRange range{file_.view(), 64_KiB, ByteCount(), 4_KiB};
  const auto second = guest::udmabuf()->export_view({.ranges = std::span(&range, 1)}).value();
  const auto second_object = vgem_->import(second.front().fd.view()).value();
  const std::uint32_t first_work = begin_work(Access::write);
  const Fence first = Fence::of_dma_buf(fd(), Access::read).value();
  const std::uint32_t second_work =
      guest::begin_work(vgem_->node(), second_object->handle(), Access::write);
  const Fence other = Fence::of_dma_buf(second.front().fd.view(), Access::read).value();
  const auto both = Fence::merge(first, other);
  ASSERT_TRUE(both.has_value());
  EXPECT_NE(0, ::fcntl(both->fd().get(), F_GETFD) & FD_CLOEXEC);
  end_work(first_work);
  EXPECT_TRUE(first.wait(0).has_value());
  EXPECT_EQ(Errc::timed_out, errc(both->wait(0)));
  const auto info = sys::sync_file_info(both->fd()).value();
  EXPECT_EQ("accelmm", info.name);
  EXPECT_EQ(0, info.status);
  ASSERT_EQ(2U, info.fences.size());
  EXPECT_EQ("vgem", info.fences.front().driver);
  EXPECT_EQ(1, info.fences[0].status + info.fences[1].status) << "one has ended";
  end_work(second_work);
  EXPECT_TRUE(both->wait(0).has_value());
}

TEST_F(DriverFence, EpollSeesItToo) {
  const std::uint32_t work = begin_work(Access::write);
  const Fence fence = Fence::of_dma_buf(fd(), Access::read).value();
  const UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  epoll_event wanted = {};
  wanted.events = EPOLLIN;
  ASSERT_EQ(0, ::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fence.fd().get(), &wanted));
  epoll_event event = {};
  EXPECT_EQ(0, ::epoll_wait(epoll.get(), &event, 1, 0));
  end_work(work);
  EXPECT_EQ(1, ::epoll_wait(epoll.get(), &event, 1, 5000));
}

TEST_F(DriverFence, ASentFenceIsKnownForWhatItIs) {
  const Fence fence = Fence::of_dma_buf(fd(), Access::read).value();
  const auto again = Fence::adopt(UniqueFd(::fcntl(fence.fd().get(), F_DUPFD_CLOEXEC, 0)));
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ(Fence::Kind::kernel, again->kind());
}

TEST_F(DriverFence, ADriverThatNeverEndsItsWorkIsEndedByTheKernel) {
  static_cast<void>(begin_work(Access::write));
  const Fence fence = Fence::of_dma_buf(fd(), Access::read).value();
  // vgem gives programs ten seconds.
  const std::uint64_t begin = monotonic_ns();
  EXPECT_EQ(Errc{}, errc(fence.wait(begin + 30'000 * ms)));
  EXPECT_GE(monotonic_ns() - begin, 5'000 * ms);
}

TEST_F(DriverFence, AnAccessThatIsReplacedEnds) {
  const auto brackets = CpuBrackets::create(duplicate(fd()).value());
  auto access = brackets->begin(Access::read).value();
  access = brackets->begin(Access::write).value();
  EXPECT_FALSE(brackets->covers(Access::read));
  EXPECT_TRUE(brackets->covers(Access::write));
}

TEST_F(DriverFence, BracketsNestAndAreCounted) {
  const auto brackets = CpuBrackets::create(duplicate(fd()).value());
  EXPECT_FALSE(brackets->covers(Access::read));
  {
    auto reads = brackets->begin(Access::read).value();
    EXPECT_TRUE(brackets->covers(Access::read));
    EXPECT_FALSE(brackets->covers(Access::write)) << "writing under a bracket for reading";
    {
      const auto both = brackets->begin(Access::read_write).value();
      EXPECT_TRUE(brackets->covers(Access::write));
      EXPECT_EQ(2U, brackets->open(Access::read));
    }
    EXPECT_FALSE(brackets->covers(Access::write));
    EXPECT_TRUE(reads.end().has_value());
    EXPECT_EQ(Errc::invalid_argument, errc(reads.end()));
  }
  EXPECT_EQ(0U, brackets->open(Access::read));
}

// The kernel gives one handle to who imports twice, and closes it at the first close.
TEST(DrmObjects, AHandleIsClosedWithItsLastHolder) {
  const auto vgem = guest::drm("vgem");
  auto made = vgem->allocate(64_KiB, Access::read_write, "object").value();
  auto first = vgem->import(made.buffer.fd()).value();
  auto second = vgem->import(made.buffer.fd()).value();
  EXPECT_EQ(first->handle(), second->handle());
  first.reset();
  const auto again = vgem->export_object(*second);
  ASSERT_TRUE(again.has_value()) << again.error().what;
  EXPECT_EQ(made.buffer.identity(), again->identity()) << "what was imported comes out again";
}

TEST(DrmObjects, WhatADeviceCannotTakeItRefuses) {
  const UniqueFd file = guest::memfd(4_KiB);
  EXPECT_FALSE(guest::drm("vgem")->import(file.view()).has_value());
}

std::atomic<int> signals{0};

TEST_F(DriverFence, SignalsDoNotBreakABracket) {
  struct sigaction action = {};
  action.sa_handler = [](int) { ++signals; };  // no SA_RESTART
  ASSERT_EQ(0, ::sigaction(SIGUSR1, &action, nullptr));
  std::thread driver = write_later(std::byte{45});
  std::atomic<bool> done{false};
  std::thread reader([&] {
    const auto brackets = CpuBrackets::create(duplicate(fd()).value());
    const auto access = brackets->begin(Access::read);
    EXPECT_TRUE(access.has_value());
    EXPECT_EQ(std::byte{45}, view_.bytes()[0]);
    done = true;
  });
  while (!done) {
    ASSERT_EQ(0, ::pthread_kill(reader.native_handle(), SIGUSR1));
    std::this_thread::sleep_for(1ms);
  }
  reader.join();
  driver.join();
  EXPECT_GT(signals, 10);
}

}  // namespace
}  // namespace accelmm::dmabuf
