// SPDX-License-Identifier: Apache-2.0
#include "bus/window_bus.hpp"

#include "mm/backing/sealed_memfd.hpp"
#include "support/census.hpp"
#include "unit/mm/failing_new.hpp"

#include <optional>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

using Bytes = std::vector<std::byte>;
using Extents = std::vector<Extent>;
using Runs = std::vector<Run>;

constexpr std::byte mark{0x44};
constexpr ByteCount device_size = 1_GiB;
constexpr ByteCount host_size = 1_MiB;

Extent at(ByteCount offset, ByteCount length) {
  return {RegionOffset(offset.value()), length};
}
BusAddr host(ByteCount offset) {
  return WindowBus::host_base + offset;
}

/// A device with memory, and a host window whose first 64 KiB hold a buffer.
class WindowBusTest : public testing::Test {
 protected:
  WindowBusTest() {
    const auto memfd = SealedMemfd::create("bus-test", 64_KiB);
    EXPECT_TRUE(memfd.has_value());
    EXPECT_TRUE(host_->place(at(0_B, 64_KiB), memfd->fd(), 0_B, Access::read_write).has_value());
  }

  Runs attach(const Extents& extents) {
    auto runs = bus_.attach(extents);
    EXPECT_TRUE(runs.has_value());
    return runs ? std::move(*runs) : Runs();
  }
  Errc attach_error(const Extents& extents) {
    const auto runs = bus_.attach(extents);
    return runs ? Errc{} : runs.error().code;
  }
  Errc write_error(BusAddr address, std::size_t size) {
    const auto result = bus_.write(address, Bytes(size, mark));
    return result ? Errc{} : result.error().code;
  }
  /// Nothing if the read was a fault, which must then have copied nothing.
  Bytes read(BusAddr address, std::size_t size) {
    Bytes bytes(size, std::byte{0xee});
    const auto result = bus_.read(address, bytes);
    if (result) return bytes;
    EXPECT_EQ(Errc::fault, result.error().code);
    EXPECT_EQ(Bytes(size, std::byte{0xee}), bytes);
    return {};
  }

  Result<MemoryWindow> device_ = MemoryWindow::create(device_size, Backdrop::zero);
  Result<MemoryWindow> host_ = MemoryWindow::create(host_size, Backdrop::none);
  WindowBus bus_{&*device_, *host_};
};

TEST_F(WindowBusTest, DeviceMemoryIsReachedFromAddressZero) {
  EXPECT_EQ(Errc{}, write_error(BusAddr(100), 8));
  EXPECT_EQ(mark, *device_->data(RegionOffset(100)));
  *device_->data(RegionOffset(device_size.value() - 1)) = mark;
  EXPECT_EQ(Bytes(1, mark), read(BusAddr(device_size.value() - 1), 1));
}

TEST_F(WindowBusTest, DeviceOffsetsAndBusAddressesAreTurnedIntoEachOther) {
  const RegionOffset offset(0x1234000);
  EXPECT_EQ(BusAddr(0x1234000), bus_.device(offset));
  EXPECT_EQ(offset, bus_.device_offset(bus_.device(offset)));
}

TEST_F(WindowBusTest, NothingIsReachedBetweenDeviceAndHostMemoryNorBeyond) {
  for (const BusAddr address : {BusAddr(device_size.value()), BusAddr(device_size.value() - 1),
                                BusAddr(WindowBus::host_base.value() - 1), host(host_size),
                                host(1_GiB), BusAddr(UINT64_MAX), BusAddr(UINT64_MAX - 1)}) {
    EXPECT_EQ(Bytes(), read(address, 2));
    EXPECT_EQ(Errc::fault, write_error(address, 2));
  }
}

TEST_F(WindowBusTest, ADeviceWithoutMemoryReachesOnlyTheHost) {
  WindowBus bus(nullptr, *host_);
  Bytes bytes(1);
  EXPECT_EQ(Errc::fault, bus.read(BusAddr(0), bytes).error().code);
  EXPECT_EQ(Errc::fault, bus.write(BusAddr(0), bytes).error().code);
  const auto runs = bus.attach(Extents{at(0_B, 4_KiB)});
  ASSERT_TRUE(runs.has_value());
  EXPECT_TRUE(bus.read(host(0_B), bytes).has_value());
  bus.detach(*runs);
}

TEST_F(WindowBusTest, HostMemoryIsReachedOnlyWhileItIsAttached) {
  EXPECT_EQ(Bytes(), read(host(0_B), 1));
  EXPECT_EQ(Errc::fault, write_error(host(0_B), 1));
  const Runs runs = attach({at(4_KiB, 8_KiB)});
  EXPECT_EQ((Runs{{host(4_KiB), 8_KiB}}), runs);
  EXPECT_EQ(Errc{}, write_error(host(4_KiB), 8192));
  EXPECT_EQ(Bytes(8192, mark), read(host(4_KiB), 8192));
  EXPECT_EQ(Bytes(), read(host(4095_B), 2));
  EXPECT_EQ(Bytes(), read(host(12287_B), 2));
  EXPECT_EQ(Errc::fault, write_error(host(12_KiB), 1));
  bus_.detach(runs);
  EXPECT_EQ(Bytes(), read(host(4_KiB), 1));
  EXPECT_EQ(Errc::fault, write_error(host(4_KiB), 1));
}

TEST_F(WindowBusTest, RunsFollowTheExtentsInTheirOrder) {
  const Runs runs = attach({at(32_KiB, 4_KiB), at(0_B, 8_KiB), at(8_KiB, 4_KiB)});
  EXPECT_EQ((Runs{{host(32_KiB), 4_KiB}, {host(0_B), 8_KiB}, {host(8_KiB), 4_KiB}}), runs);
  EXPECT_EQ(12288U, read(host(0_B), 12288).size()) << "one access may cross attached extents";
  bus_.detach(runs);
}

TEST_F(WindowBusTest, MemoryAttachedTwiceIsReachedUntilTheSecondDetach) {
  const Runs first = attach({at(0_B, 64_KiB)});
  const Runs second = attach({at(0_B, 64_KiB)});
  const Runs part = attach({at(4_KiB, 4_KiB)});
  bus_.detach(first);
  EXPECT_EQ(65536U, read(host(0_B), 65536).size());
  bus_.detach(second);
  EXPECT_EQ(Bytes(), read(host(0_B), 1));
  EXPECT_EQ(4096U, read(host(4_KiB), 4096).size());
  EXPECT_EQ(Bytes(), read(host(8_KiB), 1));
  bus_.detach(part);
  EXPECT_EQ(Bytes(), read(host(4_KiB), 1));
}

TEST_F(WindowBusTest, WhatOneBusAttachedAnotherDoesNotReach) {
  WindowBus other(nullptr, *host_);
  const Runs runs = attach({at(0_B, 4_KiB)});
  Bytes bytes(1);
  EXPECT_EQ(Errc::fault, other.read(host(0_B), bytes).error().code);
  bus_.detach(runs);
}

TEST_F(WindowBusTest, AttachedButRemovedMemoryIsAFault) {
  const Runs runs = attach({at(0_B, 64_KiB)});
  ASSERT_EQ(Removal::done, host_->remove(at(0_B, 64_KiB)));
  EXPECT_EQ(Bytes(), read(host(0_B), 1));
  EXPECT_EQ(Errc::fault, write_error(host(0_B), 1));
  bus_.detach(runs);
}

TEST_F(WindowBusTest, AttachingWhatTheWindowDoesNotHoldIsRefusedAsAWhole) {
  constexpr ByteCount largest_size(UINT64_MAX - 4095);
  for (const Extent bad :
       {at(0_B, 0_B), at(1_B, 4_KiB), at(0_B, 100_B), at(host_size, 4_KiB),
        at(host_size - 4_KiB, 8_KiB), at(largest_size, 4_KiB), at(4_KiB, largest_size)})
    EXPECT_EQ(Errc::invalid_argument, attach_error({at(0_B, 4_KiB), bad}));
  EXPECT_EQ(Bytes(), read(host(0_B), 1)) << "the good extent was not attached either";
}

TEST_F(WindowBusTest, AttachingNothingGivesNothing) {
  EXPECT_EQ(Runs(), attach({}));
  bus_.detach({});
}

TEST_F(WindowBusTest, AFailedAllocationAttachesNothing) {
  const Extents extents{at(0_B, 4_KiB), at(8_KiB, 4_KiB), at(16_KiB, 4_KiB)};
  std::int64_t points = 0;
  for (bool met = true; met; ++points) {
    const std::int64_t live = test::heap.live;
    std::optional<Result<Runs>> runs;
    {
      const test::FailingNew failing(points);
      runs.emplace(bus_.attach(extents));
      met = failing.happened();
    }
    ASSERT_EQ(!met, runs->has_value());
    if (met) {
      EXPECT_EQ(Errc::no_memory, runs->error().code);
      EXPECT_EQ(Bytes(), read(host(0_B), 1));
    } else {
      bus_.detach(**runs);
    }
    runs.reset();
    EXPECT_EQ(live, test::heap.live) << "after failing allocation " << points;
  }
  EXPECT_EQ(8, points) << "the runs, six boundaries, and the try that succeeds";
}

TEST_F(WindowBusTest, DetachingAllocatesNothing) {
  const Runs runs = attach({at(0_B, 4_KiB), at(8_KiB, 4_KiB)});
  const std::int64_t calls = test::heap.calls;
  bus_.detach(runs);
  EXPECT_EQ(calls, test::heap.calls);
}

TEST_F(WindowBusTest, ABusLeavesNoDescriptorAndNoMapping) {
  const test::Census before = test::take_census();
  {
    WindowBus bus(&*device_, *host_);
    const auto runs = bus.attach(Extents{at(0_B, 4_KiB)});
    ASSERT_TRUE(runs.has_value());
    bus.detach(*runs);
  }
  EXPECT_TRUE(before.matches(test::take_census()));
}

using WindowBusDeathTest = WindowBusTest;

TEST_F(WindowBusDeathTest, ABusIsNotDestroyedWithMemoryAttached) {
  EXPECT_DEATH(
      {
        WindowBus bus(nullptr, *host_);
        static_cast<void>(bus.attach(Extents{at(0_B, 4_KiB)}));
      },
      "attached_.empty");
}

TEST_F(WindowBusDeathTest, DetachingDeviceMemoryIsAMistakeOfOurs) {
  EXPECT_DEATH(bus_.detach(Runs{{BusAddr(0), 4_KiB}}), "run.address >= host_base");
}

TEST_F(WindowBusDeathTest, DeviceAddressesAreThoseOfDeviceMemory) {
  EXPECT_DEATH(static_cast<void>(bus_.device(RegionOffset(device_size.value()))), "offset.value");
  EXPECT_DEATH(static_cast<void>(bus_.device_offset(host(0_B))), "address.value");
  WindowBus bare(nullptr, *host_);
  EXPECT_DEATH(static_cast<void>(bare.device(RegionOffset(0))), "device_ != nullptr");
}

TEST_F(WindowBusTest, ReachesNoMemoryOfOtherDevices) {
  const Extent extent{RegionOffset(0), 4_KiB};
  const auto runs = bus_.attach_peer(BusAddr(0), std::span(&extent, 1));
  EXPECT_EQ(runs.error().code, Errc::not_supported);
}

}  // namespace
}  // namespace accelmm
