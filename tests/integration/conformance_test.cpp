// SPDX-License-Identifier: Apache-2.0
//
// What every device owes every application, whichever way they reach each other: the same tests
// over a socket and in embedded mode.
#include "support/npu_host.hpp"

#include <algorithm>
#include <cstring>
#include <thread>
#include <vector>

#include <poll.h>
#include <sys/mman.h>

namespace accelmm::test {
namespace {

class Conformance : public testing::TestWithParam<Path> {
 protected:
  NpuHost host{GetParam()};
};

INSTANTIATE_TEST_SUITE_P(Paths, Conformance, testing::Values(Path::socket, Path::embedded),
                         [](const auto& path) {
                           return path.param == Path::socket ? "socket" : "embedded";
                         });

void fill(const CpuMapping& mapping, std::uint8_t seed) {
  std::uint8_t next = seed;
  for (std::byte& byte : mapping.bytes()) byte = std::byte{next = std::uint8_t(next * 5 + 3)};
}

/// An NPU whose jobs take as long as a test needs to catch them running.
sim::NpuOptions slow(std::chrono::nanoseconds per_burst) {
  sim::NpuOptions options;
  options.model.delay_per_burst = per_burst;
  return options;
}

bool same(const CpuMapping& a, const CpuMapping& b) {
  return std::ranges::equal(a.bytes(), b.bytes());
}

TEST_P(Conformance, AJobMovesBytesBetweenHostBuffersThroughDeviceMemory) {
  host.add();
  const Client client = host.connect();
  const ByteCount size = 5_MiB + 12288_B;
  const Buffer source = value(client.allocate(size));
  const Buffer device = value(client.allocate(size, {.domain = Domain::device}));
  const Buffer target = value(client.allocate(size));
  const CpuMapping in = value(source.map_cpu());
  const CpuMapping out = value(target.map_cpu());
  fill(in, 7);
  const auto at_source = value(source.map_device(Access::read));
  const auto at_device = value(device.map_device());
  const auto at_target = value(target.map_device(Access::write));
  value(copy_and_wait(client, at_source.address(), at_device.address(), size));
  value(copy_and_wait(client, at_device.address(), at_target.address(), size));
  EXPECT_TRUE(same(in, out));
  EXPECT_EQ(0U, value(client.last_fault()).count);
}

TEST_P(Conformance, MemoryIsZeroBeforeAnyoneSeesItAlsoWhenItIsUsedAgain) {
  host.add();
  const Client client = host.connect();
  for (int round = 0; round < 3; ++round) {
    const Buffer shown = value(client.allocate(1_MiB));
    const Buffer device = value(client.allocate(1_MiB, {.domain = Domain::device}));
    const CpuMapping seen = value(shown.map_cpu());
    EXPECT_TRUE(std::ranges::all_of(seen.bytes(), [](std::byte b) { return b == std::byte{0}; }));
    std::ranges::fill(seen.bytes(), std::byte{0xee});
    const auto at_shown = value(shown.map_device());
    const auto at_device = value(device.map_device());
    value(copy_and_wait(client, at_device.address(), at_shown.address(), 1_MiB));
    EXPECT_TRUE(std::ranges::all_of(seen.bytes(), [](std::byte b) { return b == std::byte{0}; }));
    std::ranges::fill(seen.bytes(), std::byte{0xee});
    value(copy_and_wait(client, at_shown.address(), at_device.address(), 1_MiB));
  }
}

TEST_P(Conformance, ABufferIsMappedWholeAndInPartSeveralTimes) {
  host.add();
  const Client client = host.connect();
  const Buffer buffer = value(client.allocate(64_KiB));
  const CpuMapping whole = value(buffer.map_cpu());
  const CpuMapping again = value(buffer.map_cpu(Access::read));
  const CpuMapping part =
      value(buffer.map_cpu({BufferOffset(8192), BufferOffset(16384)}, Access::read_write));
  ASSERT_EQ(8192U, part.bytes().size());
  part.bytes()[5] = std::byte{42};
  EXPECT_EQ(std::byte{42}, whole.bytes()[8197]);
  EXPECT_EQ(std::byte{42}, again.bytes()[8197]);
}

TEST_P(Conformance, AFreedBufferLivesWhileItIsMappedAnywhere) {
  host.add();
  const Client client = host.connect();
  Buffer buffer = value(client.allocate(64_KiB));
  const Buffer other = value(client.allocate(64_KiB));
  const CpuMapping seen = value(buffer.map_cpu());
  const CpuMapping target = value(other.map_cpu());
  auto at_buffer = value(buffer.map_device());
  const auto at_other = value(other.map_device());
  const std::uint64_t handle = buffer.handle();
  value(buffer.free());
  fill(seen, 1);
  value(copy_and_wait(client, at_buffer.address(), at_other.address(), 64_KiB));
  EXPECT_TRUE(same(seen, target));
  accelmm_free args{.handle = handle};
  EXPECT_EQ(Errc::invalid_argument, code(client.ioctl(ACCELMM_IOCTL_FREE, args)));
  EXPECT_EQ(128U << 10, value(client.usage()).host_used);
  value(client.wait(value(at_buffer.unmap()), soon()));
  EXPECT_EQ(64U << 10, value(client.usage()).host_used);
}

TEST_P(Conformance, DeviceAddressesAreChosenHintedOrForced) {
  host.add();
  const Client client = host.connect();
  const Buffer buffer = value(client.allocate(4_MiB, {.domain = Domain::device}));
  const DeviceAddr place(0x7'0000'0000);
  const auto fixed = value(buffer.map_device(Access::read_write, DevicePlacement::fixed(place)));
  EXPECT_EQ(place, fixed.address());
  EXPECT_EQ(Errc::address_in_use,
            code(buffer.map_device(Access::read_write, DevicePlacement::fixed(place + 4096_B))));
  const auto hinted =
      value(buffer.map_device(Access::read_write, DevicePlacement::hint(place + 4_MiB)));
  EXPECT_EQ(place + 4_MiB, hinted.address());
  const auto elsewhere = value(buffer.map_device(Access::read_write, DevicePlacement::hint(place)));
  EXPECT_NE(place, elsewhere.address());
  EXPECT_EQ(
      Errc::invalid_argument,
      code(buffer.map_device(Access::read, DevicePlacement::fixed(DeviceAddr(0x7'0000'0001)))));
}

TEST_P(Conformance, AJobOnAnUnmappedAddressFaultsAndSaysWhere) {
  host.add();
  const Client client = host.connect();
  const Buffer buffer = value(client.allocate(64_KiB));
  auto mapping = value(buffer.map_device());
  const DeviceAddr gone = mapping.address();
  value(copy_and_wait(client, gone, gone + 32_KiB, 4096_B));
  value(client.wait(value(mapping.unmap()), soon()));
  EXPECT_EQ(Errc::fault, code(copy_and_wait(client, gone, gone + 32_KiB, 4096_B)));
  const accelmm_info_fault fault = value(client.last_fault());
  EXPECT_EQ(1U, fault.count);
  EXPECT_EQ(gone.value(), fault.address);
  EXPECT_EQ(static_cast<std::uint32_t>(ACCELMM_ACCESS_READ), fault.access);
  EXPECT_EQ(2U, fault.point);
}

TEST_P(Conformance, AReadOnlyMappingFaultsOnWrites) {
  host.add();
  const Client client = host.connect();
  const Buffer buffer = value(client.allocate(64_KiB));
  const auto readable = value(buffer.map_device(Access::read));
  const auto writable = value(buffer.map_device(Access::write));
  value(copy_and_wait(client, readable.address(), writable.address() + 8192_B, 4096_B));
  EXPECT_EQ(Errc::fault,
            code(copy_and_wait(client, readable.address(), readable.address() + 8192_B, 4096_B)));
  EXPECT_EQ(Errc::fault,
            code(copy_and_wait(client, writable.address(), writable.address() + 8192_B, 4096_B)));
}

TEST_P(Conformance, ContiguousMemoryTakesFewerTablesThanPages) {
  host.add();
  const Client client = host.connect();
  const Buffer buffer =
      value(client.allocate(64_MiB, {.domain = Domain::device, .layout = Layout::contiguous}));
  const std::uint64_t before = value(client.session_info()).page_table_bytes;
  const auto mapping = value(buffer.map_device());
  // 32 leaves of 2 MiB in one table of the fourth hop, and the tables on the way to it.
  EXPECT_LE(value(client.session_info()).page_table_bytes - before, 4U * 4096);
}

TEST_P(Conformance, TablesAreFreedWhenTheyAreEmpty) {
  host.add();
  const Client client = host.connect();
  const std::uint64_t before = value(client.usage()).page_table_bytes;
  const Buffer buffer = value(client.allocate(8_MiB));
  auto mapping =
      value(buffer.map_device(Access::read, DevicePlacement::fixed(DeviceAddr(0x40200000))));
  EXPECT_GT(value(client.usage()).page_table_bytes, before);
  value(client.wait(value(mapping.unmap()), soon()));
  EXPECT_EQ(before, value(client.usage()).page_table_bytes);
}

TEST_P(Conformance, ADeviceWithOneSessionRefusesASecondOpener) {
  sim::NpuOptions options;
  options.compute_sessions = ComputeSessions::one;
  host.add(options);
  {
    const Client client = host.connect();
    EXPECT_EQ(Errc::busy, code(host.try_connect()));
    EXPECT_TRUE(host.try_connect(0, NodeKind::control));
  }
  if (GetParam() ==
      Path::socket) {  // the end of a session needs no wait: see ClientPort::is_ending
    EXPECT_TRUE(host.try_connect());
  }
}

TEST_P(Conformance, SessionsShareNeitherHandlesNorAddresses) {
  host.add();
  const Client first = host.connect();
  const Client second = host.connect();
  Buffer buffer = value(first.allocate(4096_B));
  const auto mapping = value(buffer.map_device());
  accelmm_free stolen{.handle = buffer.handle()};
  EXPECT_EQ(Errc::invalid_argument, code(second.ioctl(ACCELMM_IOCTL_FREE, stolen)));
  EXPECT_EQ(Errc::fault, code(copy_and_wait(second, mapping.address(), mapping.address(), 64_B)));
  value(copy_and_wait(first, mapping.address() + 64_B, mapping.address(), 64_B));
}

TEST_P(Conformance, HandlesThatAreForgedStaleOrOfAnotherTypeAreRefusedAlike) {
  host.add();
  const Client client = host.connect();
  Buffer buffer = value(client.allocate(4096_B));
  const std::uint64_t live = buffer.handle();
  for (unsigned bit = 0; bit < 64; ++bit) {
    accelmm_free forged{.handle = live ^ (std::uint64_t{1} << bit)};
    EXPECT_EQ(Errc::invalid_argument, code(client.ioctl(ACCELMM_IOCTL_FREE, forged))) << bit;
  }
  for (const std::uint64_t made_up : {std::uint64_t{0}, std::uint64_t{1}, ~std::uint64_t{0}}) {
    accelmm_free forged{.handle = made_up};
    EXPECT_EQ(Errc::invalid_argument, code(client.ioctl(ACCELMM_IOCTL_FREE, forged)));
  }
  value(buffer.free());
  accelmm_free stale{.handle = live};
  EXPECT_EQ(Errc::invalid_argument, code(client.ioctl(ACCELMM_IOCTL_FREE, stale)));
  const Buffer successor = value(client.allocate(4096_B));
  EXPECT_EQ(Errc::invalid_argument, code(client.ioctl(ACCELMM_IOCTL_FREE, stale)));
}

TEST_P(Conformance, AControlNodeAnswersOnlyWhatOperatorsNeed) {
  host.add();
  const Client monitor = host.connect(0, NodeKind::control);
  EXPECT_STREQ("npu", reinterpret_cast<const char*>(value(monitor.device_info()).driver));
  EXPECT_EQ(1U, value(monitor.usage()).control_sessions);
  EXPECT_EQ(Errc::invalid_argument, code(monitor.session_info()));
  const std::vector<std::uint32_t> known{ACCELMM_IOCTL_WAIT, ACCELMM_IOCTL_EVENTS,
                                         ACCELMM_IOCTL_WATCH, ACCELMM_IOCTL_SHORTAGE,
                                         ACCELMM_IOCTL_DEFRAGMENT};
  const auto is_known = [&](unsigned direction, unsigned nr) {
    return std::ranges::any_of(known, [&](std::uint32_t command) {
      return _IOC_NR(command) == nr && _IOC_DIR(command) == direction;
    });
  };
  for (unsigned nr = 1; nr < 256; ++nr) {
    for (const unsigned direction : {0U, 1U, 2U, 3U}) {
      if (is_known(direction, nr)) continue;
      std::vector<std::byte> args(64);
      const auto command = static_cast<std::uint32_t>(_IOC(direction, 0xEA, nr, 64));
      EXPECT_EQ(Errc::unknown_ioctl, code(monitor.ioctl_bytes(command, args))) << nr;
    }
  }
}

TEST_P(Conformance, AnUnknownIoctlIsENOTTY) {
  host.add();
  const Client client = host.connect();
  std::vector<std::byte> args(16);
  for (const auto command : {_IOC(3U, 0xEAU, 0x3fU, 16U), _IOC(3U, 0xEAU, 0x9fU, 16U),
                             _IOC(3U, 0xEAU, 0xffU, 16U), _IOC(3U, 0x64U, 0x01U, 16U)})
    EXPECT_EQ(Errc::unknown_ioctl,
              code(client.ioctl_bytes(static_cast<std::uint32_t>(command), args)));
}

TEST_P(Conformance, AWaitEndsAtItsDeadline) {
  host.add(slow(std::chrono::milliseconds(50)));
  const Client client = host.connect();
  const Buffer buffer = value(client.allocate(1_MiB));
  const auto mapping = value(buffer.map_device());
  const Point job =
      value(submit_copy(client, mapping.address(), mapping.address() + 512_KiB, 256_KiB));
  EXPECT_EQ(Errc::timed_out, code(client.wait(job, 0)));
  EXPECT_EQ(Errc::timed_out, code(client.wait(job, std::chrono::steady_clock::now() +
                                                       std::chrono::milliseconds(30))));
  value(client.wait(job, soon()));
  value(client.wait(job, 0));
  EXPECT_EQ(Errc::invalid_argument, code(client.wait(Point::job(job.value + 1), soon())));
}

TEST_P(Conformance, AWaitHoldsNobodyElseUp) {
  host.add(slow(std::chrono::milliseconds(20)));
  const Client client = host.connect();
  const Buffer buffer = value(client.allocate(1_MiB));
  const auto mapping = value(buffer.map_device());
  const Point job =
      value(submit_copy(client, mapping.address(), mapping.address() + 512_KiB, 256_KiB));
  std::thread waiter([&] { value(client.wait(job, soon())); });
  int calls = 0;
  while (code(client.wait(job, 0)) == Errc::timed_out) {
    value(client.session_info());
    ++calls;
  }
  waiter.join();
  EXPECT_GT(calls, 1);
}

TEST_P(Conformance, AWatchedPointBecomesAnEventOnAPollableDescriptor) {
  host.add();
  const Client client = host.connect();
  const Buffer buffer = value(client.allocate(64_KiB));
  const auto mapping = value(buffer.map_device());
  const FdView events = value(client.event_fd());
  const Point job =
      value(submit_copy(client, mapping.address(), mapping.address() + 32_KiB, 4096_B));
  value(client.watch(job));
  pollfd polled{events.get(), POLLIN, 0};
  ASSERT_EQ(1, poll(&polled, 1, 20'000));
  const auto event = value(client.read_event());
  ASSERT_TRUE(event);
  EXPECT_EQ(job.value, event->point.value);
  EXPECT_EQ(0, event->status);
  EXPECT_FALSE(value(client.read_event()));
}

TEST_P(Conformance, AnExportReachesAnotherDeviceWithoutACopy) {
  host.add();
  host.add();
  const Client first = host.connect(0);
  const Client second = host.connect(1);
  Buffer made = value(first.allocate(256_KiB));
  const CpuMapping in = value(made.map_cpu());
  fill(in, 3);
  const Export view = value(made.export_view());
  const Buffer taken = value(second.import_view(view));
  EXPECT_EQ(made.size(), taken.size());
  value(made.free());
  const Buffer target = value(second.allocate(256_KiB));
  const CpuMapping out = value(target.map_cpu());
  const auto at_taken = value(taken.map_device());
  const auto at_target = value(target.map_device());
  value(copy_and_wait(second, at_taken.address(), at_target.address(), 256_KiB));
  EXPECT_TRUE(same(in, out));
  // The same pages: what the second device writes, the first application sees.
  out.bytes()[0] = std::byte{0x5a};
  value(copy_and_wait(second, at_target.address(), at_taken.address(), 1_B));
  EXPECT_EQ(std::byte{0x5a}, in.bytes()[0]);
}

TEST_P(Conformance, WhatAnExporterCannotIsRefused) {
  host.add();
  const Client client = host.connect();
  const Buffer buffer = value(client.allocate(64_KiB));
  EXPECT_EQ(Errc::not_supported, code(buffer.export_view({BufferOffset(0), BufferOffset(4096)})));
  const Buffer unseen = value(client.allocate(64_KiB, {.domain = Domain::device}));
  EXPECT_EQ(Errc::not_supported, code(unseen.export_view()));
  EXPECT_EQ(Errc::not_supported, code(unseen.map_cpu()));
  const Buffer visible =
      value(client.allocate(64_KiB, {.domain = Domain::device, .cpu = CpuVisibility::visible}));
  const CpuMapping seen = value(visible.map_cpu());
  EXPECT_TRUE(visible.export_view());
  fill(seen, 9);
  const auto mapping = value(visible.map_device());
  value(copy_and_wait(client, mapping.address(), mapping.address() + 32_KiB, 32_KiB));
  EXPECT_TRUE(std::ranges::equal(seen.bytes().first(32768), seen.bytes().last(32768)));
}

TEST_P(Conformance, ARemovedDeviceAnswersENODEVAndMappingsStayReadable) {
  const std::uint32_t number = host.add(slow(std::chrono::seconds(1)));
  const Client client = host.connect(number);
  const Client monitor = host.connect(number, NodeKind::control);
  Buffer buffer = value(client.allocate(64_KiB));
  const CpuMapping seen = value(buffer.map_cpu());
  fill(seen, 11);
  const auto mapping = value(buffer.map_device());
  const Point job =
      value(submit_copy(client, mapping.address(), mapping.address() + 32_KiB, 32_KiB));
  std::thread waiter([&] { EXPECT_EQ(Errc::no_device, code(client.wait(job, soon()))); });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  value(host.runtime().remove_device(number));
  waiter.join();
  EXPECT_EQ(Errc::no_device, code(client.allocate(4096_B)));
  EXPECT_EQ(Errc::no_device, code(client.usage()));
  EXPECT_EQ(Errc::no_device, code(monitor.usage()));
  EXPECT_EQ(Errc::no_device, code(buffer.free()));
  EXPECT_EQ(Errc::no_device, code(host.try_connect(number)));
  EXPECT_NE(std::byte{0}, seen.bytes()[100]);
  // The number is free again, and what lives on of the old device is not in its way.
  EXPECT_EQ(number, host.add());
  EXPECT_TRUE(host.try_connect(number));
  EXPECT_EQ(Errc::no_device, code(client.usage()));
}

TEST_P(Conformance, AQuotaIsAnErrorToItsSessionOnly) {
  auto options = sim::NpuOptions{};
  DeviceDescription description = sim::npu_description(options);
  description.session_quota = {.bytes = 1_MiB, .buffers = 3, .mappings = 2, .waits = 1};
  value(host.runtime().register_device(description, value(sim::make_npu_driver(options))));
  const Client client = host.connect();
  const Client other = host.connect();
  const Buffer first = value(client.allocate(768_KiB));
  EXPECT_EQ(Errc::over_quota, code(client.allocate(512_KiB)));
  const Buffer second = value(client.allocate(4096_B));
  const Buffer third = value(client.allocate(4096_B));
  EXPECT_EQ(Errc::over_quota, code(client.allocate(4096_B)));
  const auto one = value(second.map_device());
  const auto two = value(second.map_device());
  EXPECT_EQ(Errc::over_quota, code(second.map_device()));
  EXPECT_TRUE(other.allocate(1_MiB));
}

TEST_P(Conformance, NumbersAreClaimedLowestFirstAndFreedAgain) {
  EXPECT_EQ(0U, host.add());
  EXPECT_EQ(1U, host.add());
  EXPECT_EQ(2U, host.add());
  value(host.runtime().remove_device(1));
  EXPECT_EQ(1U, host.add());
  EXPECT_EQ(Errc::invalid_argument, code(host.runtime().remove_device(7)));
}

}  // namespace
}  // namespace accelmm::test
