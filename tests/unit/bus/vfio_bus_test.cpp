// SPDX-License-Identifier: Apache-2.0
#include "bus/vfio_bus.hpp"

#include "support/failing_calls.hpp"
#include "support/fake_vfio.hpp"
#include "unit/mm/failing_new.hpp"

#include <cstdlib>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

using test::FakeVfio;
using Extents = std::vector<Extent>;
using Runs = std::vector<Run>;
using Statistics = VfioBus::Statistics;

Extent at(ByteCount offset, ByteCount length) {
  return {RegionOffset(offset.value()), length};
}

/// 64 pages of a host window, behind an IOMMU that lets a device reach nothing yet.
class VfioBusTest : public testing::Test {
 protected:
  VfioBusTest() { kernel_.command = PCI_COMMAND_MASTER; }

  std::unique_ptr<VfioBus> make(unsigned bits = 39) {
    auto container = VfioContainer::open(kernel_, "12");
    EXPECT_TRUE(container.has_value());
    auto bus = VfioBus::create(std::make_shared<VfioContainer>(std::move(*container)),
                               std::span(memory_.get(), 64 * FakeVfio::page), bits);
    EXPECT_TRUE(bus.has_value());
    return std::move(*bus);
  }
  Errc attach_error(VfioBus& bus, const Extents& extents, Access access = Access::read_write) {
    const auto runs = bus.attach(extents, access);
    if (runs) bus.detach(*runs);
    return runs ? Errc{} : runs.error().code;
  }
  /// Fails each allocation of `attach` once.
  template <class Attach>
  void expect_failed_allocations_attach_nothing(VfioBus& bus, Attach attach) {
    for (std::int64_t k = 0;; ++k) {
      std::optional<Result<Runs>> runs;
      bool happened = false;
      {
        const test::FailingNew failing(k);
        runs.emplace(attach());
        happened = failing.happened();
      }
      if (!happened) {
        bus.detach(**runs);
        break;
      }
      EXPECT_EQ(Errc::no_memory, runs->error().code);
      EXPECT_TRUE(kernel_.mapped.empty());
      bus.validate();
    }
  }
  std::byte& byte(ByteCount offset) { return memory_.get()[offset.value()]; }
  bool device_writes(BusAddr address, std::byte value) {
    return kernel_.dma_write(address.value(), std::span(&value, 1));
  }

  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  std::unique_ptr<std::byte[], Free> memory_{
      static_cast<std::byte*>(std::aligned_alloc(FakeVfio::page, 64 * FakeVfio::page))};
  FakeVfio kernel_;
};

TEST_F(VfioBusTest, AttachedMemoryIsReachedWhereTheRunsSay) {
  const auto bus = make();
  const auto runs = bus->attach(Extents{at(8_KiB, 4_KiB), at(32_KiB, 12_KiB)});
  ASSERT_TRUE(runs.has_value());
  ASSERT_EQ(2U, runs->size());
  EXPECT_EQ(4_KiB, (*runs)[0].length);
  EXPECT_EQ(12_KiB, (*runs)[1].length);
  EXPECT_TRUE(device_writes((*runs)[0].address + 4095_B, std::byte{1}));
  EXPECT_TRUE(device_writes((*runs)[1].address + 8_KiB, std::byte{2}));
  EXPECT_EQ(std::byte{1}, byte(12_KiB - 1_B));
  EXPECT_EQ(std::byte{2}, byte(40_KiB));
  EXPECT_EQ((Statistics{2, 16_KiB}), bus->statistics());
  bus->detach(*runs);
}

TEST_F(VfioBusTest, DetachedMemoryIsNotReachedAndNotPinned) {
  const auto bus = make();
  const auto runs = bus->attach(Extents{at(8_KiB, 4_KiB)});
  bus->detach(*runs);
  byte(8_KiB) = std::byte{7};
  EXPECT_FALSE(device_writes((*runs)[0].address, std::byte{1}));
  EXPECT_EQ(std::byte{7}, byte(8_KiB));
  EXPECT_EQ(0_B, kernel_.lock.locked);
  EXPECT_EQ((Statistics{0, 0_B}), bus->statistics());
}

TEST_F(VfioBusTest, MemoryAttachedTwiceIsPinnedOnceAndReachedUntilTheSecondDetach) {
  const auto bus = make();
  const auto first = bus->attach(Extents{at(0_B, 8_KiB)});
  const auto second = bus->attach(Extents{at(0_B, 8_KiB)});
  EXPECT_EQ(*first, *second);
  EXPECT_EQ(8_KiB, kernel_.lock.locked);
  bus->detach(*first);
  EXPECT_TRUE(device_writes((*first)[0].address, std::byte{1}));
  bus->detach(*second);
  EXPECT_FALSE(device_writes((*first)[0].address, std::byte{1}));
}

TEST_F(VfioBusTest, ADeviceDoesNotWriteWhatWasAttachedForReading) {
  const auto bus = make();
  const auto runs = bus->attach(Extents{at(0_B, 4_KiB)}, Access::read);
  std::byte seen{};
  EXPECT_TRUE(kernel_.dma_read((*runs)[0].address.value(), std::span(&seen, 1)));
  EXPECT_FALSE(device_writes((*runs)[0].address, std::byte{1}));
  bus->detach(*runs);
}

TEST_F(VfioBusTest, MemoryOutsideTheWindowIsReachedInPlaceAndPinnedEachTime) {
  const auto bus = make();
  const std::unique_ptr<std::byte[], Free> own(
      static_cast<std::byte*>(std::aligned_alloc(FakeVfio::page, 2 * FakeVfio::page)));
  const std::span memory(own.get(), 2 * FakeVfio::page);
  const auto first = bus->attach_memory(memory, Access::read_write);
  const auto second = bus->attach_memory(memory, Access::read_write);
  ASSERT_TRUE(first.has_value() && second.has_value());
  EXPECT_NE(*first, *second);
  EXPECT_EQ(16_KiB, kernel_.lock.locked);
  bus->detach(*first);
  EXPECT_FALSE(device_writes((*first)[0].address, std::byte{1}));
  EXPECT_TRUE(device_writes((*second)[0].address + 4097_B, std::byte{2}));
  EXPECT_EQ(std::byte{2}, own[4097]);
  bus->detach(*second);
  EXPECT_EQ(0_B, kernel_.lock.locked);
  EXPECT_EQ(Errc::invalid_argument,
            bus->attach_memory(memory.subspan(1), Access::read).error().code);
  EXPECT_EQ(Errc::invalid_argument, bus->attach_memory({}, Access::read).error().code);
}

TEST_F(VfioBusTest, EveryFailureToAttachMemoryInPlaceChangesNothing) {
  const auto bus = make();
  const std::span memory(memory_.get(), 2 * FakeVfio::page);
  expect_failed_allocations_attach_nothing(
      *bus, [&] { return bus->attach_memory(memory, Access::read); });
  kernel_.lock.limit = 4_KiB;
  EXPECT_EQ(Errc::over_quota, bus->attach_memory(memory, Access::read).error().code);
  EXPECT_EQ((Statistics{0, 0_B}), bus->statistics());
}

TEST_F(VfioBusTest, WhatIsNoExtentOfTheWindowIsRefused) {
  const auto bus = make();
  EXPECT_EQ(Errc::invalid_argument, attach_error(*bus, {at(0_B, 0_B)}));
  EXPECT_EQ(Errc::invalid_argument, attach_error(*bus, {at(1_B, 4_KiB)}));
  EXPECT_EQ(Errc::invalid_argument, attach_error(*bus, {at(0_B, 4095_B)}));
  EXPECT_EQ(Errc::invalid_argument, attach_error(*bus, {at(256_KiB, 4_KiB)}));
  EXPECT_EQ(Errc::invalid_argument, attach_error(*bus, {at(252_KiB, 8_KiB)}));
  EXPECT_EQ(Errc::invalid_argument,
            attach_error(*bus, {{RegionOffset(4096), ByteCount(0ULL - 4096)}}));
  EXPECT_TRUE(kernel_.mapped.empty());
}

TEST_F(VfioBusTest, BeyondTheLimitOfLockedMemoryIsOverQuotaAndWithoutMemoryIsNoMemory) {
  const auto bus = make();
  kernel_.lock.limit = 8_KiB;
  EXPECT_EQ(Errc::over_quota, attach_error(*bus, {at(0_B, 12_KiB)}));
  EXPECT_EQ(Errc{}, attach_error(*bus, {at(0_B, 8_KiB)}));
  kernel_.memory_left = 4096;
  EXPECT_EQ(Errc::no_memory, attach_error(*bus, {at(0_B, 8_KiB)}));
  kernel_.lock.unlimited = true;
  EXPECT_EQ(Errc::no_memory, attach_error(*bus, {at(0_B, 12_KiB)}));
}

TEST_F(VfioBusTest, AnAttachThatFailsHalfwayLeavesNothingMapped) {
  const auto bus = make();
  kernel_.lock.limit = 8_KiB;
  EXPECT_EQ(Errc::over_quota,
            attach_error(*bus, {at(0_B, 4_KiB), at(8_KiB, 4_KiB), at(16_KiB, 4_KiB)}));
  EXPECT_TRUE(kernel_.mapped.empty());
  EXPECT_EQ((Statistics{0, 0_B}), bus->statistics());
  bus->validate();
}

TEST_F(VfioBusTest, TooManyMappingsAreOverQuota) {
  const auto bus = make();
  kernel_.mappings_left = 1;
  EXPECT_EQ(Errc::over_quota, attach_error(*bus, {at(0_B, 4_KiB), at(8_KiB, 4_KiB)}));
  EXPECT_TRUE(kernel_.mapped.empty());
}

TEST_F(VfioBusTest, MemoryThatCannotBePinnedIsNotSupported) {
  const auto bus = make();
  kernel_.unpinnable.push_back(&byte(4_KiB));
  EXPECT_EQ(Errc::not_supported, attach_error(*bus, {at(0_B, 8_KiB)}));
  EXPECT_EQ(Errc{}, attach_error(*bus, {at(8_KiB, 8_KiB)}));
}

TEST_F(VfioBusTest, MemoryOfOtherDevicesIsNotSupported) {
  const auto bus = make();
  EXPECT_EQ(Errc::not_supported,
            bus->attach_peer(BusAddr(1 << 30), Extents{at(0_B, 4_KiB)}).error().code);
}

TEST_F(VfioBusTest, EveryAddressIsOneThatTheDeviceAndTheIommuHave) {
  kernel_.ranges = {{0x10000, 0x1ffff}, {0x40000, 0xfffff}};
  const auto bus = make(19);  // below 0x80000
  Runs all;
  for (ByteCount offset; offset < 256_KiB; offset += 16_KiB) {
    const auto runs = bus->attach(Extents{at(offset, 16_KiB)});
    ASSERT_TRUE(runs.has_value());
    const std::uint64_t address = runs->front().address.value();
    EXPECT_TRUE((address >= 0x10000 && address < 0x20000) ||
                (address >= 0x40000 && address < 0x80000))
        << address;
    all.push_back(runs->front());
  }
  EXPECT_EQ(256_KiB, bus->statistics().pinned);
  bus->validate();
  bus->detach(all);
}

TEST_F(VfioBusTest, EveryFailingCallOfAnAttachChangesNothing) {
  const auto bus = make();
  for (long k = 1;; ++k) {
    const test::FailingCall failing(k, EIO);
    const auto runs = bus->attach(Extents{at(0_B, 4_KiB), at(8_KiB, 4_KiB)});
    if (failing.calls() < k) {
      EXPECT_EQ(3, k);  // one call for each extent
      ASSERT_TRUE(runs.has_value());
      bus->detach(*runs);
      break;
    }
    EXPECT_EQ(Errc::io_error, runs.error().code);
    EXPECT_TRUE(kernel_.mapped.empty());
    EXPECT_EQ((Statistics{0, 0_B}), bus->statistics());
  }
}

TEST_F(VfioBusTest, AFailedAllocationAttachesNothing) {
  const auto bus = make();
  const Extents extents{at(0_B, 4_KiB), at(8_KiB, 4_KiB)};
  expect_failed_allocations_attach_nothing(*bus, [&] { return bus->attach(extents); });
}

TEST_F(VfioBusTest, DetachingAllocatesNothing) {
  const auto bus = make();
  const auto runs = bus->attach(Extents{at(0_B, 4_KiB), at(8_KiB, 4_KiB)});
  const std::int64_t calls = test::heap.calls;
  bus->detach(*runs);
  EXPECT_EQ(calls, test::heap.calls);
}

using VfioBusDeathTest = VfioBusTest;

TEST_F(VfioBusDeathTest, ABusIsNotDestroyedWithMemoryAttached) {
  auto bus = make();
  const auto runs = bus->attach(Extents{at(0_B, 4_KiB)});
  ASSERT_TRUE(runs.has_value());
  EXPECT_DEATH(bus.reset(), "");
  bus->detach(*runs);
}

TEST_F(VfioBusDeathTest, MemoryThatTheKernelDoesNotUnmapStopsTheProcess) {
  auto bus = make();
  const auto runs = bus->attach(Extents{at(0_B, 4_KiB)});
  const auto mapped = std::exchange(kernel_.mapped, {});
  EXPECT_DEATH(bus->detach(*runs), "");
  kernel_.mapped = mapped;
  bus->detach(*runs);
}

}  // namespace
}  // namespace accelmm
