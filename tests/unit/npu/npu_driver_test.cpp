// SPDX-License-Identifier: Apache-2.0
#include "devices/npu/npu_driver.hpp"

#include "support/npu_host.hpp"

#include <accelmm/client.hpp>
#include <accelmm/sim/npu_uapi.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::sim {
namespace {

using test::code;
using test::no_error;
using test::soon;
using test::value;

/// A session with two mapped buffers of 64 KiB, over an embedded runtime.
struct NpuDriver : testing::Test {
  test::NpuHost host{test::Path::embedded};
  std::optional<Client> client;
  std::optional<Buffer> buffers[2];
  std::optional<CpuMapping> pixels[2];
  std::optional<DeviceMapping> places[2];

  void open(const NpuOptions& options = {}) {
    client.emplace(host.connect(host.add(options)));
    for (int i = 0; i < 2; ++i) {
      buffers[i].emplace(value(client->allocate(64_KiB)));
      pixels[i].emplace(value(buffers[i]->map_cpu()));
      places[i].emplace(value(buffers[i]->map_device()));
    }
  }
  accelmm_npu_convolve negative() {
    accelmm_npu_convolve args{};
    args.source = places[0]->address().value();
    args.destination = places[1]->address().value();
    args.source_stride = args.destination_stride = args.width = 100;
    args.height = 50;
    args.bias = 255;
    args.kernel[4] = -1;
    return args;
  }
  accelmm_npu_copy copy() {
    accelmm_npu_copy args{};
    args.source = places[0]->address().value();
    args.destination = places[1]->address().value();
    args.length = 5000;
    return args;
  }
  Errc error_of(accelmm_npu_convolve args) {
    return code(client->ioctl(ACCELMM_IOCTL_NPU_CONVOLVE, args));
  }
  Errc error_of(accelmm_npu_copy args) { return code(client->ioctl(ACCELMM_IOCTL_NPU_COPY, args)); }
  Result<void> run(accelmm_npu_copy args) {
    if (auto sent = client->ioctl(ACCELMM_IOCTL_NPU_COPY, args); !sent) return sent;
    EXPECT_EQ(static_cast<std::uint32_t>(ACCELMM_TIMELINE_JOBS), args.point.timeline);
    return client->wait(Point::job(args.point.value), soon());
  }
  std::uint8_t pixel(int buffer, std::size_t at) {
    return std::to_integer<std::uint8_t>(pixels[buffer]->bytes()[at]);
  }
};

TEST_F(NpuDriver, ConvolvesWithEveryParameterOfTheIoctl) {
  open();
  for (std::size_t i = 0; i < 5000; ++i)
    pixels[0]->bytes()[i] = static_cast<std::byte>(i * 7 % 256);
  pixels[1]->bytes()[100 * 50] = std::byte{0x77};
  auto args = negative();
  ASSERT_EQ(no_error, code(client->ioctl(ACCELMM_IOCTL_NPU_CONVOLVE, args)));
  ASSERT_EQ(no_error, code(client->wait(Point::job(args.point.value), soon())));
  for (std::size_t i = 0; i < 5000; ++i) ASSERT_EQ(255 - i * 7 % 256, pixel(1, i)) << i;
  EXPECT_EQ(0x77, pixel(1, 5000));

  // The magnitude of twice the pixel, halved again, less 10, added to the negative that is there.
  args = negative();
  args.kernel[4] = -2;
  args.shift = 1;
  args.bias = -10;
  args.flags = ACCELMM_NPU_ABSOLUTE | ACCELMM_NPU_ACCUMULATE;
  args.source_stride = 100;
  ASSERT_EQ(no_error, code(client->ioctl(ACCELMM_IOCTL_NPU_CONVOLVE, args)));
  ASSERT_EQ(no_error, code(client->wait(Point::job(args.point.value), soon())));
  for (std::size_t i = 0; i < 5000; ++i) ASSERT_EQ(245, pixel(1, i)) << i;
}

TEST_F(NpuDriver, KeepsTheTwoStridesApart) {
  open();
  for (std::size_t i = 0; i < 5000; ++i) pixels[0]->bytes()[i] = static_cast<std::byte>(i / 100);
  auto args = negative();
  args.width = 3;
  args.destination_stride = 7;
  ASSERT_EQ(no_error, code(client->ioctl(ACCELMM_IOCTL_NPU_CONVOLVE, args)));
  ASSERT_EQ(no_error, code(client->wait(Point::job(args.point.value), soon())));
  for (std::size_t y = 0; y < 50; ++y) {
    EXPECT_EQ(255 - y, pixel(1, 7 * y + 2));
    EXPECT_EQ(0, pixel(1, 7 * y + 3));
  }
}

TEST_F(NpuDriver, RefusesFlagsAndPaddingThatItDoesNotKnow) {
  open();
  auto moved = copy();
  moved.flags = 1;
  EXPECT_EQ(Errc::invalid_argument, error_of(moved));
  moved = copy();
  moved.reserved = 1;
  EXPECT_EQ(Errc::invalid_argument, error_of(moved));
  auto convolved = negative();
  convolved.flags = 4;
  EXPECT_EQ(Errc::invalid_argument, error_of(convolved));
  for (std::size_t i = 0; i < sizeof convolved.reserved; ++i) {
    convolved = negative();
    convolved.reserved[i] = 1;
    EXPECT_EQ(Errc::invalid_argument, error_of(convolved));
  }
}

TEST_F(NpuDriver, RefusesSizesThatMakeNoSenseAndTakesNoPointForThem) {
  open();
  auto moved = copy();
  moved.length = 0;
  EXPECT_EQ(Errc::invalid_argument, error_of(moved));
  moved.length = ~0ULL;
  EXPECT_EQ(Errc::overflow, error_of(moved));
  auto convolved = negative();
  convolved.width = ACCELMM_NPU_MAX_WIDTH + 1;
  convolved.source_stride = convolved.destination_stride = convolved.width;
  EXPECT_EQ(Errc::invalid_argument, error_of(convolved));
  convolved = negative();
  convolved.height = 0;
  EXPECT_EQ(Errc::invalid_argument, error_of(convolved));
  convolved = negative();
  convolved.source_stride = 99;
  EXPECT_EQ(Errc::invalid_argument, error_of(convolved));
  convolved = negative();
  convolved.shift = 32;
  EXPECT_EQ(Errc::invalid_argument, error_of(convolved));
  auto good = copy();
  ASSERT_EQ(no_error, code(client->ioctl(ACCELMM_IOCTL_NPU_COPY, good)));
  EXPECT_EQ(1U, good.point.value);
}

TEST_F(NpuDriver, ReportsAFaultWithAddressAccessAndLevel) {
  open();
  auto args = copy();
  args.destination = 1ULL << 45;
  EXPECT_EQ(Errc::fault, code(run(args)));
  const auto fault = value(client->last_fault());
  EXPECT_EQ(1U, fault.count);
  EXPECT_EQ(1ULL << 45, fault.address);
  EXPECT_EQ(1U, fault.point);
  EXPECT_EQ(static_cast<std::uint32_t>(ACCELMM_ACCESS_WRITE), fault.access);
  EXPECT_EQ(value(client->session_info()).asid, fault.asid);
  EXPECT_EQ(1U, fault.level);  // 2^45 lies under another entry of hop 1
}

TEST_F(NpuDriver, TellsWhatTheHardwareCounted) {
  open();
  ASSERT_EQ(no_error, code(run(copy())));
  const auto bytes = value(client->driver_info(ACCELMM_INFO_NPU - ACCELMM_INFO_DRIVER));
  ASSERT_EQ(sizeof(accelmm_info_npu), bytes.size());
  accelmm_info_npu counters;
  std::memcpy(&counters, bytes.data(), sizeof counters);
  EXPECT_EQ(1U, counters.jobs);
  EXPECT_EQ(0U, counters.faults);
  EXPECT_EQ(5000U, counters.bytes_read);
  EXPECT_EQ(5000U, counters.bytes_written);
  EXPECT_EQ(4U, counters.tlb_misses);
  EXPECT_GT(counters.busy_ns, 0U);
  EXPECT_EQ(counters.busy_ns, value(client->usage()).engine_busy_ns);
  EXPECT_EQ(Errc::invalid_argument, code(client->driver_info(1)));
}

TEST_F(NpuDriver, BoundsTheJobsThatOneSessionHasWaiting) {
  NpuOptions options;
  options.model.delay_per_burst = std::chrono::milliseconds(20);
  open(options);
  auto args = copy();
  for (std::uint32_t i = 0; i < NpuModel::max_queued; ++i)
    ASSERT_EQ(no_error, code(client->ioctl(ACCELMM_IOCTL_NPU_COPY, args)));
  // One or a few jobs may have ended meanwhile; more than a thousand cannot.
  Errc last = no_error;
  for (int i = 0; i < 1000 && last == no_error; ++i)
    last = code(client->ioctl(ACCELMM_IOCTL_NPU_COPY, args));
  EXPECT_EQ(Errc::over_quota, last);
  // The end of the session stops them all; another session is not held up.
  for (int i = 0; i < 2; ++i) {
    places[i].reset();
    buffers[i].reset();
  }
  client.reset();
  const Client next = host.connect();
  EXPECT_EQ(0U, value(next.session_info()).buffers);
}

TEST_F(NpuDriver, ADroppedEntryFaultsThatJobAndNoOther) {
  NpuOptions options;
  options.drop_entry = 2;
  open(options);
  pixels[0]->bytes()[0] = std::byte{1};
  ASSERT_EQ(no_error, code(run(copy())));
  EXPECT_EQ(Errc::fault, code(run(copy())));
  const auto fault = value(client->last_fault());
  EXPECT_EQ(places[0]->address().value(), fault.address);
  EXPECT_EQ(static_cast<std::uint32_t>(ACCELMM_ACCESS_READ), fault.access);
  EXPECT_EQ(4U, fault.level);
  EXPECT_EQ(no_error, code(run(copy())));
}

TEST_F(NpuDriver, ADroppedEntryOfAnAddressThatIsNotMappedChangesNothing) {
  NpuOptions options;
  options.drop_entry = 1;
  open(options);
  auto args = copy();
  args.source = 1ULL << 45;
  EXPECT_EQ(Errc::fault, code(run(args)));
  EXPECT_EQ(no_error, code(run(copy())));
}

}  // namespace
}  // namespace accelmm::sim
