// SPDX-License-Identifier: Apache-2.0
//
// Why there is no device memory: what each kind of node tells of it, and the log.
#include "devices/shortage_report.hpp"
#include "support/plain_host.hpp"

#include <cerrno>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

constexpr std::uint64_t mib = std::uint64_t{1} << 20;
constexpr std::uint64_t capacity = 15 * mib;  // of plain_description()

class ShortageIoctl : public testing::Test {
 protected:
  static std::int32_t allocate(RawClient& client, std::uint64_t size,
                               std::uint64_t* handle = nullptr, std::uint32_t flags = 0) {
    accelmm_alloc args{};
    args.size = size;
    args.domain = ACCELMM_DOMAIN_DEVICE;
    args.flags = flags;
    const std::int32_t status = client.ioctl(ACCELMM_IOCTL_ALLOC, args);
    if (handle != nullptr) *handle = args.handle;
    return status;
  }
  static accelmm_shortage ask(RawClient& client, std::uint64_t size = 0, std::uint32_t flags = 0) {
    accelmm_shortage args{};
    args.size = size;
    args.flags = flags;
    EXPECT_EQ(0, client.ioctl(ACCELMM_IOCTL_SHORTAGE, args));
    return args;
  }
  static std::uint64_t session_of(RawClient& client) {
    accelmm_info info{};
    info.topic = ACCELMM_INFO_SESSION;
    EXPECT_EQ(0, client.ioctl(ACCELMM_IOCTL_INFO, info));
    accelmm_info_session session{};
    std::memcpy(&session, info.data, sizeof session);
    return session.session;
  }
};

TEST_F(ShortageIoctl, AFailedRequestIsExplainedToWhoAsked) {
  PlainHost host;
  RawClient client(host);
  client.say_hello();
  EXPECT_EQ(0U, ask(client).failed_session);
  ASSERT_EQ(0, allocate(client, 10 * mib));
  ASSERT_EQ(-ENOMEM, allocate(client, 8 * mib - 1, nullptr, ACCELMM_ALLOC_CONTIGUOUS));
  const accelmm_shortage told = ask(client);
  EXPECT_EQ(8 * mib, told.size);
  EXPECT_EQ(static_cast<__u32>(ACCELMM_ALLOC_CONTIGUOUS), told.flags);
  EXPECT_EQ(-ENOMEM, told.failed_status);
  EXPECT_EQ(session_of(client), told.failed_session);
  EXPECT_EQ(own_peer().uid, told.failed_uid);
  EXPECT_NE(0U, told.failed_ns);
  EXPECT_EQ(1U, told.memory_failures);
  EXPECT_EQ(0U, told.quota_failures);
  EXPECT_EQ(capacity, told.total);
  EXPECT_EQ(mib, told.private_size);
  EXPECT_EQ(5 * mib, told.free);
  EXPECT_EQ(4096U, told.native_page);
  ASSERT_EQ(1U, told.owner_count);
  EXPECT_EQ(0U, told.other_owners);
  EXPECT_EQ(session_of(client), told.owners[0].session);
  EXPECT_EQ(own_peer().uid, told.owners[0].uid);
  EXPECT_EQ(10 * mib, told.owners[0].held);
  EXPECT_EQ(1U, told.owners[0].allocations);
}

TEST_F(ShortageIoctl, ItSaysHowFreeMemoryLiesAndWhatMovingItCosts) {
  DeviceDescription description = plain_description();
  description.memory->native_page = 1_MiB;
  PlainHost host(description);
  RawClient client(host);
  client.say_hello();
  std::vector<std::uint64_t> handles(15);
  for (auto& handle : handles)
    ASSERT_EQ(0, allocate(client, mib, &handle, ACCELMM_ALLOC_CONTIGUOUS));
  // Every second one, so that no two free megabytes touch.
  for (std::size_t i = 0; i < handles.size(); i += 2) {
    accelmm_free args{handles[i]};
    ASSERT_EQ(0, client.ioctl(ACCELMM_IOCTL_FREE, args));
  }
  ASSERT_EQ(-ENOMEM, allocate(client, 2 * mib, nullptr, ACCELMM_ALLOC_CONTIGUOUS));
  const accelmm_shortage told = ask(client);
  EXPECT_EQ(8 * mib, told.free);
  EXPECT_EQ(mib, told.largest_free);
  EXPECT_EQ(mib, told.moves_to_make);
  EXPECT_EQ(8 * mib, told.free_in_runs[0]);
  EXPECT_EQ(0U, told.free_in_runs[1]);
  // Any other request can be asked about; one that may be scattered needs no run.
  EXPECT_EQ(0U, ask(client, mib, ACCELMM_ALLOC_CONTIGUOUS).moves_to_make);
  EXPECT_EQ(3 * mib, ask(client, 3 * mib - 5).size);
  EXPECT_EQ(0U, ask(client, 3 * mib).moves_to_make);
  EXPECT_EQ(2 * mib, ask(client, 5 * mib, ACCELMM_ALLOC_CONTIGUOUS).moves_to_make);
  EXPECT_EQ(1U, ask(client, UINT64_MAX).memory_failures);
}

TEST_F(ShortageIoctl, AComputeNodeTellsOfItsOwnSessionOnly) {
  PlainHost host;
  RawClient one(host);
  RawClient two(host);
  one.say_hello();
  two.say_hello();
  ASSERT_EQ(0, allocate(one, 9 * mib));
  ASSERT_EQ(0, allocate(two, 2 * mib));
  ASSERT_EQ(-ENOMEM, allocate(one, 5 * mib));
  const accelmm_shortage told = ask(two);
  EXPECT_EQ(4 * mib, told.free);
  ASSERT_EQ(1U, told.owner_count);
  EXPECT_EQ(1U, told.other_owners);
  EXPECT_EQ(session_of(two), told.owners[0].session);
  EXPECT_EQ(2 * mib, told.owners[0].held);
  constexpr accelmm_shortage_owner nobody{};
  for (std::size_t i = 1; i < ACCELMM_SHORTAGE_OWNERS; ++i)
    EXPECT_EQ(0, std::memcmp(&nobody, &told.owners[i], sizeof nobody)) << i;
  // Nor that another one's request failed.
  EXPECT_EQ(0U, told.failed_session);
  EXPECT_EQ(0U, told.memory_failures);
  EXPECT_EQ(0U, told.size);
  // Who has never held any is nobody.
  RawClient three(host);
  three.say_hello();
  EXPECT_EQ(0U, ask(three).owner_count);
  EXPECT_EQ(2U, ask(three).other_owners);
}

TEST_F(ShortageIoctl, AControlNodeTellsOfAllSessions) {
  PlainHost host;
  RawClient one(host);
  RawClient two(host);
  RawClient control(host, NodeKind::control);
  one.say_hello();
  two.say_hello();
  control.say_hello();
  EXPECT_EQ(0U, ask(control).size);
  ASSERT_EQ(0, allocate(one, 9 * mib));
  ASSERT_EQ(0, allocate(two, 2 * mib));
  ASSERT_EQ(-ENOMEM, allocate(one, 5 * mib));
  ASSERT_EQ(-ENOMEM, allocate(two, 6 * mib));
  const accelmm_shortage told = ask(control);
  EXPECT_EQ(6 * mib, told.size);
  EXPECT_EQ(2U, told.memory_failures);
  EXPECT_EQ(session_of(two), told.failed_session);
  ASSERT_EQ(2U, told.owner_count);
  EXPECT_EQ(0U, told.other_owners);
  EXPECT_EQ(session_of(one), told.owners[0].session);
  EXPECT_EQ(9 * mib, told.owners[0].held);
  EXPECT_EQ(session_of(two), told.owners[1].session);
  EXPECT_EQ(3 * mib, ask(control, 3 * mib).size);
}

TEST_F(ShortageIoctl, AQuotaThatWasReachedIsCountedApart) {
  DeviceDescription description = plain_description();
  description.session_quota.bytes = 3_MiB;
  PlainHost host(description);
  RawClient client(host);
  RawClient control(host, NodeKind::control);
  client.say_hello();
  control.say_hello();
  ASSERT_EQ(0, allocate(client, 2 * mib));
  ASSERT_EQ(-EDQUOT, allocate(client, 2 * mib));
  const accelmm_shortage told = ask(client);
  EXPECT_EQ(-EDQUOT, told.failed_status);
  EXPECT_EQ(0U, told.memory_failures);
  EXPECT_EQ(1U, told.quota_failures);
  EXPECT_EQ(mib, told.quota_left);
  EXPECT_EQ(mib, ask(control).quota_left);  // of who asked last
  EXPECT_EQ(1U, ask(control).quota_failures);
  // What was malformed, or no request of device memory, is no shortage.
  EXPECT_EQ(-EINVAL, allocate(client, 0));
  accelmm_alloc host_memory{};
  host_memory.size = 64 * mib;
  EXPECT_EQ(-EDQUOT, client.ioctl(ACCELMM_IOCTL_ALLOC, host_memory));
  EXPECT_EQ(1U, ask(client).quota_failures);
}

TEST_F(ShortageIoctl, ARequestThatMakesNoSenseIsEINVAL) {
  PlainHost host;
  RawClient client(host);
  client.say_hello();
  accelmm_shortage args{};
  args.flags = ACCELMM_ALLOC_CONTIGUOUS;  // of no request
  EXPECT_EQ(-EINVAL, client.ioctl(ACCELMM_IOCTL_SHORTAGE, args));
  args.size = 4096;
  args.flags = ACCELMM_ALLOC_CPU_READ_ONLY;  // to nobody
  EXPECT_EQ(-EINVAL, client.ioctl(ACCELMM_IOCTL_SHORTAGE, args));
  args.flags = 1U << 31;
  EXPECT_EQ(-EINVAL, client.ioctl(ACCELMM_IOCTL_SHORTAGE, args));
}

TEST_F(ShortageIoctl, ADeviceWithoutMemoryHasNoShortage) {
  DeviceDescription description = plain_description();
  description.memory.reset();
  description.mmu.reset();
  PlainHost host(description);
  RawClient client(host);
  RawClient control(host, NodeKind::control);
  client.say_hello();
  control.say_hello();
  accelmm_shortage args{};
  EXPECT_EQ(-EOPNOTSUPP, client.ioctl(ACCELMM_IOCTL_SHORTAGE, args));
  EXPECT_EQ(-EOPNOTSUPP, control.ioctl(ACCELMM_IOCTL_SHORTAGE, args));
  accelmm_wait wait{{ACCELMM_TIMELINE_PRESSURE, 0, 1}, 0};
  EXPECT_EQ(-EOPNOTSUPP, control.ioctl(ACCELMM_IOCTL_WAIT, wait));
}

TEST_F(ShortageIoctl, AFailureIsLoggedWithWhoHoldsMost) {
  std::vector<std::string> lines;
  PlainHost host(plain_description(), {}, [&](const std::string& line) { lines.push_back(line); });
  RawClient one(host);
  RawClient two(host);
  one.say_hello();
  two.say_hello();
  ASSERT_EQ(0, allocate(one, 9 * mib));
  ASSERT_EQ(0, allocate(two, 2 * mib));
  EXPECT_TRUE(lines.empty());
  ASSERT_EQ(-ENOMEM, allocate(two, 5 * mib));
  ASSERT_EQ(1U, lines.size());
  const std::string user = " of uid " + std::to_string(own_peer().uid);
  const std::string first = std::to_string(session_of(one));
  const std::string second = std::to_string(session_of(two));
  EXPECT_EQ(0U, lines[0].find("accel0: session " + second + user +
                              " got ENOMEM for 5242880 bytes of device memory"))
      << lines[0];
  EXPECT_NE(std::string::npos,
            lines[0].find(": free 4194304 of 15728640, longest run " +
                          std::to_string(ask(one).largest_free) + ", quota left "))
      << lines[0];
  EXPECT_NE(std::string::npos, lines[0].find("; held by session " + first + user +
                                             " 9437184, session " + second + user + " 2097152"))
      << lines[0];
  // At most one line a second, whoever fails how often.
  for (int i = 0; i < 10; ++i) ASSERT_EQ(-ENOMEM, allocate(one, 5 * mib));
  EXPECT_EQ(1U, lines.size());
}

TEST(ShortageLog, ALineSaysHowManyWereHeldBackBeforeIt) {
  auto region = devices::Region::create({.domain = devices::Domain::device, .size = 1_MiB});
  ASSERT_TRUE(region);
  std::vector<std::string> lines;
  devices::ShortageLog log(3, [&](const std::string& line) { lines.push_back(line); });
  devices::FailedRequest failed{.request = {.size = 2_MiB,
                                            .contiguity = devices::Region::Contiguity::contiguous,
                                            .cpu_view = devices::Region::CpuView::none},
                                .error = {Errc::over_quota, "no more"},
                                .session = 5,
                                .uid = 7,
                                .time_ns = 10'000'000'000};
  log.add(failed, **region);
  ASSERT_EQ(1U, lines.size());
  EXPECT_EQ(0U, lines[0].find("accel3: session 5 of uid 7 got EDQUOT for 1048576 bytes of device "
                              "memory (no more): free 1048576 of 1048576, longest run 1048576"))
      << lines[0];
  failed.time_ns += devices::ShortageLog::interval_ns - 1;
  log.add(failed, **region);
  log.add(failed, **region);
  EXPECT_EQ(1U, lines.size());
  failed.time_ns += 1;
  log.add(failed, **region);
  ASSERT_EQ(2U, lines.size());
  EXPECT_TRUE(lines[1].ends_with("; 2 more since the last such line")) << lines[1];
  failed.time_ns += devices::ShortageLog::interval_ns;
  log.add(failed, **region);
  ASSERT_EQ(3U, lines.size());
  EXPECT_EQ(std::string::npos, lines[2].find("more since")) << lines[2];
}

}  // namespace
}  // namespace accelmm::test
