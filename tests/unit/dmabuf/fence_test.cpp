// SPDX-License-Identifier: Apache-2.0
//
// Fences of programs, on any host; tests/kernel/dmabuf has those of drivers.
#include "base/clock.hpp"
#include "base/system.hpp"
#include "support/census.hpp"

#include <accelmm/fence.hpp>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <initializer_list>
#include <memory>
#include <span>
#include <thread>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

namespace accelmm {
namespace {

constexpr std::uint64_t ms = 1'000'000;

Errc errc(const Result<void>& result) {
  return result ? Errc{} : result.error().code;
}

TEST(Fence, ItIsPendingUntilItsMakerEndsIt) {
  auto [fence, signal] = Fence::create().value();
  EXPECT_EQ(Fence::Kind::user, fence.kind());
  EXPECT_FALSE(fence.outcome().has_value());
  EXPECT_EQ(Errc::timed_out, errc(fence.wait(0)));
  ASSERT_TRUE(signal.signal().has_value());
  EXPECT_TRUE(fence.wait(0).has_value());
  EXPECT_TRUE(fence.wait(0).has_value()) << "for ever after";
  EXPECT_EQ(Errc::invalid_argument, errc(signal.signal()));
}

TEST(Fence, AFailureReachesEverybodyWhoWaits) {
  auto [fence, signal] = Fence::create().value();
  const Fence other = fence.duplicate().value();
  ASSERT_TRUE(signal.signal(fail(Errc::fault, "")).has_value());
  for (const Fence* one : std::initializer_list<const Fence*>{&fence, &other}) {
    ASSERT_TRUE(one->outcome().has_value());
    EXPECT_EQ(Errc::fault, errc(*one->outcome()));
    EXPECT_EQ(Errc::fault, errc(one->wait()));
  }
}

TEST(Fence, AMakerThatGoesWithoutAWordEndsIt) {
  auto pair = Fence::create().value();
  {
    const FenceSignal gone = std::move(pair.signal);
  }
  EXPECT_EQ(Errc::no_device, errc(pair.fence.wait()));
}

TEST(Fence, SoDoesOneThatIsKilled) {
  auto pair = Fence::create().value();
  const pid_t child = ::fork();
  if (child == 0) {
    ::pause();
    ::_exit(0);
  }
  {
    const FenceSignal childs_alone = std::move(pair.signal);
  }
  EXPECT_FALSE(pair.fence.outcome().has_value());
  ASSERT_EQ(0, ::kill(child, SIGKILL));
  EXPECT_EQ(Errc::no_device, errc(pair.fence.wait()));
  ASSERT_EQ(child, ::waitpid(child, nullptr, 0));
}

TEST(Fence, AWaitEndsAtItsDeadlineAndNotBefore) {
  const auto pair = Fence::create().value();
  const std::uint64_t deadline = monotonic_ns() + 30 * ms;
  EXPECT_EQ(Errc::timed_out, errc(pair.fence.wait(deadline)));
  EXPECT_GE(monotonic_ns(), deadline);
}

TEST(Fence, AWaitEndsWithTheWork) {
  auto pair = Fence::create().value();
  std::thread maker([signal = std::move(pair.signal)]() mutable {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    EXPECT_TRUE(signal.signal().has_value());
  });
  EXPECT_TRUE(pair.fence.wait().has_value());
  maker.join();
}

TEST(Fence, ItCanBePolledAndSent) {
  auto [fence, signal] = Fence::create().value();
  const auto pair = sys::socket_pair().value();
  const std::array<std::byte, 1> byte{};
  const FdView sent = fence.fd();
  ASSERT_TRUE(sys::send_packet(pair.first.view(), byte, std::span(&sent, 1)).has_value());
  std::array<std::byte, 1> into{};
  auto packet = sys::receive_packet(pair.second.view(), into, 1).value();
  const auto received = Fence::adopt(std::move(packet.fds.front()));
  ASSERT_TRUE(received.has_value());
  EXPECT_EQ(Fence::Kind::user, received->kind());
  EXPECT_NE(0, ::fcntl(received->fd().get(), F_GETFD) & FD_CLOEXEC);
  pollfd entry{received->fd().get(), POLLIN, 0};
  EXPECT_EQ(0, ::poll(&entry, 1, 0));
  ASSERT_TRUE(signal.signal().has_value());
  EXPECT_EQ(1, ::poll(&entry, 1, 0));
  EXPECT_TRUE(received->wait(0).has_value());
}

TEST(Fence, SomebodysEventfdIsOne) {
  const UniqueFd event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  const auto fence = Fence::adopt(UniqueFd(::fcntl(event.get(), F_DUPFD_CLOEXEC, 0)));
  ASSERT_TRUE(fence.has_value());
  EXPECT_EQ(Fence::Kind::event, fence->kind());
  EXPECT_EQ(Errc::timed_out, errc(fence->wait(0)));
  ASSERT_EQ(0, ::eventfd_write(event.get(), 1));
  EXPECT_TRUE(fence->wait().has_value());
  EXPECT_TRUE(fence->wait().has_value()) << "waiting takes nothing from it";
}

TEST(Fence, ASecondDescriptorIsOfTheSameKind) {
  const auto fence = Fence::adopt(UniqueFd(::eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK)));
  const auto second = fence->duplicate();
  ASSERT_TRUE(second.has_value());
  EXPECT_EQ(Fence::Kind::event, second->kind());
  EXPECT_TRUE(second->wait(0).has_value());
}

TEST(Fence, AnEndThatNoSignalSendsIsAViolationOfTheProtocol) {
  const auto errc_of = [](std::span<const std::byte> packet) {
    auto pair = sys::socket_pair().value();
    const auto fence = Fence::adopt(std::move(pair.first));
    EXPECT_TRUE(sys::send_packet(pair.second.view(), packet, {}).has_value());
    return errc(fence->wait(0));
  };
  const std::int32_t negative = -EIO;
  const std::array<std::byte, 2> shorter{};
  const std::array<std::byte, 8> longer{};
  EXPECT_EQ(Errc::protocol_error, errc_of(std::as_bytes(std::span(&negative, 1))));
  EXPECT_EQ(Errc::protocol_error, errc_of(shorter));
  EXPECT_EQ(Errc::protocol_error, errc_of(longer));
}

TEST(Fence, EndingWhatNobodyWaitsForIsNoFailure) {
  auto pair = std::make_unique<Fence::Pair>(Fence::create().value());
  FenceSignal signal = std::move(pair->signal);
  pair.reset();
  EXPECT_TRUE(signal.signal().has_value());
  EXPECT_EQ(Errc::invalid_argument, errc(signal.signal()));
}

TEST(Fence, WhatIsNoneIsRefusedAndClosed) {
  const std::size_t fds = test::count_fds();
  EXPECT_EQ(Errc::not_supported,
            Fence::adopt(UniqueFd(::memfd_create("no fence", MFD_CLOEXEC))).error().code);
  EXPECT_EQ(Errc::not_supported,
            Fence::adopt(UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC))).error().code);
  EXPECT_EQ(Errc::invalid_argument, Fence::adopt(UniqueFd()).error().code);
  EXPECT_EQ(fds, test::count_fds());
}

TEST(Fence, NoPromiseOfAProgramReachesTheKernel) {
  const auto first = Fence::create().value();
  const auto second = Fence::create().value();
  const UniqueFd buffer(::memfd_create("buffer", MFD_CLOEXEC));
  EXPECT_EQ(Errc::not_supported, errc(first.fence.attach_to(FdView(buffer.get()), Access::write)));
  EXPECT_EQ(Errc::not_supported, Fence::merge(first.fence, second.fence).error().code);
  EXPECT_EQ(Errc::not_supported, Fence::of_dma_buf(buffer.view(), Access::read).error().code);
}

}  // namespace
}  // namespace accelmm
