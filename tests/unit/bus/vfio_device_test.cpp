// SPDX-License-Identifier: Apache-2.0
#include "base/clock.hpp"
#include "bus/vfio_kernel.hpp"
#include "support/failing_calls.hpp"
#include "support/fake_vfio.hpp"

#include <accelmm/vfio_device.hpp>

#include <chrono>
#include <filesystem>
#include <memory>
#include <thread>
#include <utility>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

using test::FakeVfio;
constexpr PciAddress slot{.domain = 0, .bus = 0, .device = 3, .function = 0};

std::ptrdiff_t open_files() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {});
}

/// Registers that remember, each 8 bytes apart.
class Memory final : public test::FakeHardware {
 public:
  std::uint64_t read(std::uint64_t offset, std::size_t /*width*/) override {
    return registers_[offset];
  }
  void write(std::uint64_t offset, std::size_t /*width*/, std::uint64_t value) override {
    registers_[offset] = value;
  }

 private:
  std::map<std::uint64_t, std::uint64_t> registers_;
};

class VfioDeviceTest : public testing::Test {
 protected:
  VfioDeviceTest() { kernel_.hardware = &registers_; }
  Errc open_error() {
    const std::ptrdiff_t before = open_files();
    const auto device = VfioDevice::open(slot, kernel_);
    if (device) return Errc{};
    EXPECT_EQ(before, open_files());
    return device.error().code;
  }
  std::unique_ptr<VfioDevice> open() {
    auto device = VfioDevice::open(slot, kernel_);
    EXPECT_TRUE(device.has_value());
    return std::move(*device);
  }
  Errc region_error() {
    const auto region = open()->region(0);
    return region ? Errc{} : region.error().code;
  }

  FakeVfio kernel_;
  Memory registers_;
};

TEST(PciAddress, IsReadAndWrittenAsSysfsDoes) {
  EXPECT_EQ((PciAddress{0, 0x1f, 3, 7}), *PciAddress::parse("0000:1f:03.7"));
  EXPECT_EQ((PciAddress{0, 0, 3, 0}), *PciAddress::parse("00:03.0"));
  EXPECT_EQ((PciAddress{0x10000, 0xff, 31, 1}), *PciAddress::parse("10000:ff:1f.1"));
  EXPECT_EQ("0000:1f:03.7", (PciAddress{0, 0x1f, 3, 7}).to_string());
  EXPECT_EQ("10000:ff:1f.1", (PciAddress{0x10000, 0xff, 31, 1}).to_string());
}

TEST(PciAddress, WhatIsNoneIsRefused) {
  for (const char* const text :
       {"", ":", "0000:00:03", "00:03.8", "00:20.0", "0:03.0", "000:00:03.0", "00:03.0 ",
        " 00:03.0", "00:-3.0", "00:03.0.1", "0000:00:00:03.0", "0000:0g:03.0", "../../x:00.0",
        "123456789:00:03.0"})
    EXPECT_EQ(Errc::invalid_argument, PciAddress::parse(text).error().code) << text;
}

TEST_F(VfioDeviceTest, IsOpenedOnceItIsBoundAndFreeOnly) {
  EXPECT_EQ(Errc{}, open_error());
  kernel_.group_flags = 0;
  EXPECT_EQ(Errc::busy, open_error());
  kernel_.group_flags = VFIO_GROUP_FLAGS_VIABLE | VFIO_GROUP_FLAGS_CONTAINER_SET;
  EXPECT_EQ(Errc::busy, open_error());
  const PciAddress nowhere{.domain = 0, .bus = 9, .device = 9, .function = 0};
  EXPECT_EQ(Errc::no_device, VfioDevice::open(nowhere, kernel_).error().code);
}

TEST_F(VfioDeviceTest, KernelsThatCannotAreNotSupported) {
  kernel_.version = VFIO_API_VERSION + 1;
  EXPECT_EQ(Errc::not_supported, open_error());
  kernel_.version = VFIO_API_VERSION;
  kernel_.has_type1v2 = 0;
  EXPECT_EQ(Errc::not_supported, open_error());
  kernel_.has_type1v2 = 1;
  kernel_.info.flags = VFIO_DEVICE_FLAGS_PLATFORM;
  EXPECT_EQ(Errc::not_supported, open_error());
}

TEST_F(VfioDeviceTest, AnswersThatMakeNoSenseAreRefused) {
  for (const char* const name : {"../iommu_groups/", "../iommu_groups/../x", "", "12/1a"}) {
    kernel_.group_link = name;
    EXPECT_EQ(Errc::protocol_error, open_error()) << name;
  }
  kernel_.group_link = "12";
  kernel_.told_size = 0x7fffffff;
  EXPECT_EQ(Errc::protocol_error, open_error());
  kernel_.told_size = 4096;  // grows once more when it is asked again
  kernel_.ranges.resize(1000, {0, 0xfff});
  EXPECT_EQ(Errc::protocol_error, open_error());
  kernel_.told_size.reset();
  kernel_.ranges = {{0, 0xffffffff}};
  kernel_.page_sizes = 0;
  EXPECT_EQ(Errc::protocol_error, open_error());
  kernel_.page_sizes = 4096;
  kernel_.info.num_regions = VFIO_PCI_CONFIG_REGION_INDEX;
  EXPECT_EQ(Errc::protocol_error, open_error());
  kernel_.info.num_regions = VFIO_PCI_NUM_REGIONS;
  kernel_.config_space.size = 63;
  EXPECT_EQ(Errc::protocol_error, open_error());
  kernel_.config_space.size = ~0ULL;
  EXPECT_EQ(Errc::protocol_error, open_error());
  kernel_.config_space.size = 256;
  kernel_.config_space.offset = 1ULL << 63;
  EXPECT_EQ(Errc::protocol_error, open_error());
}

TEST_F(VfioDeviceTest, EveryFailingCallOfAnOpenIsReportedAndLeavesNoFileOpen) {
  for (long k = 1;; ++k) {
    const test::FailingCall failing(k, EIO);
    const Errc error = open_error();
    if (failing.calls() < k) {
      EXPECT_EQ(Errc{}, error);
      EXPECT_GE(k, 12);  // as many calls as linux/vfio.h wants, at least
      break;
    }
    EXPECT_EQ(Errc::io_error, error) << k;
  }
}

TEST_F(VfioDeviceTest, BusMasteringChangesThatBitAndNoOther) {
  const auto device = open();
  EXPECT_EQ((VfioDevice::Identity{0x1234, 0x11e8}), *device->identity());
  kernel_.command = PCI_COMMAND_MEMORY;
  EXPECT_TRUE(device->set_bus_master(VfioDevice::BusMaster::on).has_value());
  EXPECT_EQ(PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, kernel_.command);
  EXPECT_TRUE(device->set_bus_master(VfioDevice::BusMaster::off).has_value());
  EXPECT_EQ(PCI_COMMAND_MEMORY, kernel_.command);
}

TEST_F(VfioDeviceTest, OnlyADeviceThatCanIsReset) {
  EXPECT_TRUE(open()->reset().has_value());
  EXPECT_EQ(1, kernel_.resets);
  kernel_.info.flags = VFIO_DEVICE_FLAGS_PCI;
  EXPECT_EQ(Errc::not_supported, open()->reset().error().code);
}

TEST_F(VfioDeviceTest, RegistersAreReachedWithAndWithoutAMapping) {
  for (const std::uint32_t mappable : {0U, 0U + VFIO_REGION_INFO_FLAG_MMAP}) {
    kernel_.bar.flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE | mappable;
    auto region = open()->region(0);  // which outlives the device
    ASSERT_TRUE(region.has_value());
    EXPECT_EQ(mappable != 0, region->is_mapped());
    EXPECT_EQ(ByteCount(FakeVfio::bar_size), region->size());
    EXPECT_TRUE(region->write32(8_B, 0x12345678).has_value());
    EXPECT_TRUE(region->write64(1_MiB - 8_B, 0x1122334455667788).has_value());
    EXPECT_EQ(0x12345678U, *region->read32(8_B));
    EXPECT_EQ(0x1122334455667788U, *region->read64(1_MiB - 8_B));
    for (const ByteCount wrong : {2_B, 1_MiB, 1_MiB - 4_B, 4_B, ByteCount(~0ULL - 7)})
      EXPECT_EQ(Errc::invalid_argument, region->read64(wrong).error().code) << wrong.value();
    EXPECT_EQ(Errc::invalid_argument, region->write32(1_MiB, 0).error().code);
    EXPECT_EQ(Errc::invalid_argument, region->write64(4_B, 0).error().code);
  }
}

TEST_F(VfioDeviceTest, ARegionWithHolesInItsMappingIsNotMapped) {
  kernel_.bar.flags |= VFIO_REGION_INFO_FLAG_MMAP | VFIO_REGION_INFO_FLAG_CAPS;
  EXPECT_FALSE(open()->region(0)->is_mapped());
}

TEST_F(VfioDeviceTest, RegionsThatAreNotThereOrLieOutsideTheFileAreRefused) {
  EXPECT_EQ(Errc::no_device, open()->region(1).error().code);
  EXPECT_EQ(Errc::invalid_argument, open()->region(6).error().code);
  kernel_.bar.size = ~0ULL;
  EXPECT_EQ(Errc::protocol_error, region_error());
  kernel_.bar.size = 4096;
  kernel_.bar.offset = (1ULL << 63) - 4096;
  EXPECT_EQ(Errc::protocol_error, region_error());
  kernel_.bar.offset = 0;
  kernel_.bar.flags = VFIO_REGION_INFO_FLAG_READ;
  EXPECT_EQ(Errc::no_device, region_error());
}

TEST_F(VfioDeviceTest, AnInterruptIsWaitedForOnceEachTime) {
  auto interrupt = open()->interrupt();
  ASSERT_TRUE(interrupt.has_value());
  EXPECT_EQ(VfioInterrupt::Kind::msi, interrupt->kind());
  EXPECT_EQ(VFIO_PCI_MSI_IRQ_INDEX + 0U, kernel_.armed_index);
  EXPECT_EQ(Errc::timed_out, interrupt->wait(0).error().code);
  kernel_.signal();
  EXPECT_TRUE(interrupt->wait(0).has_value());
  EXPECT_EQ(Errc::timed_out, interrupt->wait(monotonic_ns() + 1'000'000).error().code);
  std::thread later([this] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    kernel_.signal();
  });
  EXPECT_TRUE(interrupt->wait(monotonic_ns() + 30'000'000'000).has_value());
  later.join();
  EXPECT_TRUE(interrupt->rearm().has_value());
  EXPECT_EQ(0, kernel_.unmasked);  // only a line needs it
}

TEST_F(VfioDeviceTest, ADeviceWithoutMessagesHasItsLineAndOneWithoutThatHasNone) {
  kernel_.msi_count = 0;
  {
    auto interrupt = open()->interrupt();
    EXPECT_EQ(VfioInterrupt::Kind::intx, interrupt->kind());
    EXPECT_TRUE(interrupt->rearm().has_value());
    EXPECT_EQ(1, kernel_.unmasked);
  }
  EXPECT_EQ(~0U, kernel_.armed_index);  // switched off
  kernel_.intx_count = 0;
  EXPECT_EQ(Errc::not_supported, open()->interrupt().error().code);
}

TEST_F(VfioDeviceTest, CancelEndsAWaitAndAllLaterOnes) {
  auto interrupt = open()->interrupt();
  std::thread other([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    interrupt->cancel();
  });
  EXPECT_EQ(Errc::canceled, interrupt->wait(~0ULL).error().code);
  other.join();
  kernel_.signal();
  EXPECT_EQ(Errc::canceled, interrupt->wait(0).error().code);
}

TEST_F(VfioDeviceTest, EveryFailingCallOfAnInterruptLeavesItOff) {
  const auto device = open();
  for (long k = 1;; ++k) {
    const std::ptrdiff_t before = open_files();
    const test::FailingCall failing(k, EIO);
    const auto interrupt = device->interrupt();
    if (failing.calls() < k) break;
    EXPECT_EQ(Errc::io_error, interrupt.error().code) << k;
    EXPECT_EQ(before, open_files());
    EXPECT_EQ(~0U, kernel_.armed_index);
  }
}

TEST_F(VfioDeviceTest, ABusLivesOnWithoutTheDevice) {
  const auto factory = open()->bus_factory(32);
  const auto bus = factory(std::span<const std::byte>());
  ASSERT_TRUE(bus.has_value());
  EXPECT_EQ(Errc::invalid_argument,
            (*bus)->attach(std::vector<Extent>{{RegionOffset(0), 4_KiB}}).error().code);
  kernel_.ranges = {{0x100000000, 0x1ffffffff}};
  EXPECT_EQ(Errc::not_supported,
            open()->bus_factory(32)(std::span<const std::byte>()).error().code);
}

TEST_F(VfioDeviceTest, TheRangesAndPagesOfTheIommuAreTold) {
  const auto device = open();
  EXPECT_EQ(0xfffffffffffff000U, device->page_sizes());
  ASSERT_EQ(2U, device->bus_addresses().size());
  EXPECT_EQ(BusAddr(0xfee00000), device->bus_addresses()[0].end);
}

}  // namespace
}  // namespace accelmm
