// SPDX-License-Identifier: Apache-2.0
//
// Device memory that gets short: what the driver, who waits on a control node, and INFO learn of it.
#include "support/plain_host.hpp"

#include <cerrno>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <unistd.h>

namespace accelmm::test {
namespace {

DeviceDescription description() {
  DeviceDescription description = plain_description();  // 15 MiB
  description.memory->pressure = {.low = 8_MiB, .critical = 2_MiB, .relief = 1_MiB};
  return description;
}

class PressureNotice : public testing::Test {
 protected:
  PressureNotice() : host(description()), client(host), control(host, NodeKind::control) {
    client.say_hello();
    control.say_hello();
  }
  std::uint64_t take(ByteCount size) {
    accelmm_alloc args{};
    args.size = size.value();
    args.domain = ACCELMM_DOMAIN_DEVICE;
    EXPECT_EQ(0, client.ioctl(ACCELMM_IOCTL_ALLOC, args));
    return args.handle;
  }
  void free(std::uint64_t handle) {
    accelmm_free args{handle};
    EXPECT_EQ(0, client.ioctl(ACCELMM_IOCTL_FREE, args));
  }
  accelmm_info_usage usage() {
    accelmm_info info{};
    info.topic = ACCELMM_INFO_USAGE;
    EXPECT_EQ(0, control.ioctl(ACCELMM_IOCTL_INFO, info));
    accelmm_info_usage usage{};
    std::memcpy(&usage, info.data, sizeof usage);
    return usage;
  }
  // 1: no answer yet.
  std::int32_t wait_for_change(std::uint64_t number, std::uint64_t deadline_ns = UINT64_MAX) {
    accelmm_wait args{{ACCELMM_TIMELINE_PRESSURE, 0, number}, deadline_ns};
    return control.ioctl(ACCELMM_IOCTL_WAIT, args);
  }

  PlainHost host;
  RawClient client;
  RawClient control;
};

using Heard = std::vector<std::pair<Pressure, ByteCount>>;

TEST_F(PressureNotice, TheDriverHearsWhenMemoryGetsShortAndWhenItNoLongerIs) {
  const std::uint64_t first = take(7_MiB);  // 8 MiB left: not below
  EXPECT_EQ(Heard{}, host.driver->pressures);
  const std::uint64_t second = take(4_KiB);
  EXPECT_EQ((Heard{{Pressure::low, 8_MiB - 4_KiB}}), host.driver->pressures);
  const std::uint64_t third = take(7_MiB);
  ASSERT_EQ(2U, host.driver->pressures.size());
  EXPECT_EQ((std::pair{Pressure::critical, 1_MiB - 4_KiB}), host.driver->pressures[1]);
  free(third);
  ASSERT_EQ(3U, host.driver->pressures.size());
  EXPECT_EQ(Pressure::low, host.driver->pressures[2].first);
  free(second);  // 8 MiB again, which is not yet 1 MiB more than low
  EXPECT_EQ(3U, host.driver->pressures.size());
  free(first);
  ASSERT_EQ(4U, host.driver->pressures.size());
  EXPECT_EQ((std::pair{Pressure::none, 15_MiB}), host.driver->pressures[3]);
}

TEST_F(PressureNotice, InfoTellsTheLevelTheThresholdsAndTheChanges) {
  accelmm_info_usage now = usage();
  EXPECT_EQ((15_MiB).value(), now.memory_free);
  EXPECT_EQ(static_cast<__u32>(ACCELMM_PRESSURE_NONE), now.pressure);
  EXPECT_EQ((8_MiB).value(), now.pressure_low);
  EXPECT_EQ((2_MiB).value(), now.pressure_critical);
  EXPECT_EQ(0U, now.pressure_changes);
  take(10_MiB);
  now = usage();
  EXPECT_EQ((5_MiB).value(), now.memory_free);
  EXPECT_EQ(static_cast<__u32>(ACCELMM_PRESSURE_LOW), now.pressure);
  EXPECT_EQ(1U, now.pressure_changes);
  take(4_MiB);
  now = usage();
  EXPECT_EQ(static_cast<__u32>(ACCELMM_PRESSURE_CRITICAL), now.pressure);
  EXPECT_EQ(2U, now.pressure_changes);
  accelmm_shortage shortage{};
  ASSERT_EQ(0, client.ioctl(ACCELMM_IOCTL_SHORTAGE, shortage));
  EXPECT_EQ(static_cast<__u32>(ACCELMM_PRESSURE_CRITICAL), shortage.pressure);
}

TEST_F(PressureNotice, AWaitOnAControlNodeEndsWithTheNextChange) {
  EXPECT_EQ(-ETIMEDOUT, wait_for_change(1, 0));
  EXPECT_EQ(-EINVAL, wait_for_change(2));  // there was no first one yet
  EXPECT_EQ(1, wait_for_change(1));
  const std::uint64_t held = take(1_MiB);
  EXPECT_TRUE(control.log().sent.empty());
  take(7_MiB);
  ASSERT_EQ(1U, control.log().sent.size());
  EXPECT_EQ(0, control.log().sent.back().header.status);
  EXPECT_EQ(0, wait_for_change(1));
  EXPECT_EQ(1, wait_for_change(2));
  take(6_MiB);
  ASSERT_EQ(1U, control.log().sent.size());
  free(held);
  EXPECT_EQ(0, wait_for_change(2));
}

TEST_F(PressureNotice, AWatchBecomesAnEvent) {
  accelmm_watch watch{{ACCELMM_TIMELINE_PRESSURE, 0, 1}};
  EXPECT_EQ(-ENOTCONN, control.ioctl(ACCELMM_IOCTL_WATCH, watch));
  accelmm_events events{};
  KeptConnection::Packet reply{};
  ASSERT_EQ(0, control.call(ACCELMM_IOCTL_EVENTS, std::as_bytes(std::span(&events, 1)), &reply));
  ASSERT_EQ(1U, reply.fds.size());
  ASSERT_EQ(0, control.ioctl(ACCELMM_IOCTL_WATCH, watch));
  take(8_MiB);
  accelmm_event event{};
  ASSERT_EQ(static_cast<ssize_t>(sizeof event), ::read(reply.fds[0].get(), &event, sizeof event));
  EXPECT_EQ(static_cast<__u32>(ACCELMM_TIMELINE_PRESSURE), event.point.timeline);
  EXPECT_EQ(1U, event.point.value);
  EXPECT_EQ(0, event.status);
}

TEST_F(PressureNotice, EachNodeHasItsOwnTimelines) {
  accelmm_wait args{{ACCELMM_TIMELINE_PRESSURE, 0, 0}, 0};
  EXPECT_EQ(-EINVAL, client.ioctl(ACCELMM_IOCTL_WAIT, args));
  for (const __u32 timeline : {ACCELMM_TIMELINE_ADDRESS_SPACE, ACCELMM_TIMELINE_JOBS}) {
    args.point.timeline = timeline;
    EXPECT_EQ(-EINVAL, control.ioctl(ACCELMM_IOCTL_WAIT, args));
    accelmm_watch watch{args.point};
    EXPECT_EQ(-EINVAL, control.ioctl(ACCELMM_IOCTL_WATCH, watch));
  }
  accelmm_alloc alloc{};
  alloc.size = 4096;
  EXPECT_EQ(-ENOTTY, control.ioctl(ACCELMM_IOCTL_ALLOC, alloc));
  plain_job job{};
  EXPECT_EQ(-ENOTTY, control.ioctl(PLAIN_IOCTL_JOB, job));
}

TEST_F(PressureNotice, WaitsOfAControlNodeAreBounded) {
  const std::uint32_t limit = description().session_quota.waits;
  for (std::uint32_t i = 0; i < limit; ++i) ASSERT_EQ(1, wait_for_change(1));
  EXPECT_EQ(-EDQUOT, wait_for_change(1));
}

TEST_F(PressureNotice, AWaitEndsWithItsConnection) {
  {
    RawClient other(host, NodeKind::control);
    other.say_hello();
    accelmm_wait args{{ACCELMM_TIMELINE_PRESSURE, 0, 1}, UINT64_MAX};
    EXPECT_EQ(1, other.ioctl(ACCELMM_IOCTL_WAIT, args));
  }
  EXPECT_EQ(0U, host.transport.timers());
  EXPECT_EQ(1U, usage().control_sessions);
}

TEST_F(PressureNotice, AWaitEndsWithTheDevice) {
  EXPECT_EQ(1, wait_for_change(1));
  control.log().sent.clear();
  host.host->remove_device(0, Completion([](Result<void>) {}));
  host.transport.drain();
  ASSERT_FALSE(control.log().sent.empty());
  EXPECT_EQ(-ENODEV, control.log().sent.back().header.status);
}

TEST(PressureThresholds, ThatContradictEachOtherAreRefused) {
  InlineTransport transport;
  devices::DeviceHost host(
      transport, devices::Region::create({.domain = devices::Domain::host, .size = 1_MiB}).value(),
      {});
  DeviceDescription wrong = plain_description();
  wrong.memory->pressure = {.low = 1_MiB, .critical = 2_MiB, .relief = {}};
  std::optional<Result<std::uint32_t>> outcome;
  host.register_device(std::move(wrong), std::make_unique<PlainDriver>(),
                       [&](Result<std::uint32_t> number) { outcome = number; });
  ASSERT_TRUE(outcome && !*outcome);
  EXPECT_EQ(Errc::invalid_argument, outcome->error().code);
}

}  // namespace
}  // namespace accelmm::test
