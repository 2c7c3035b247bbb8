// SPDX-License-Identifier: Apache-2.0
#include "devices/edu/edu_driver.hpp"

#include "unit/edu/edu_driver_fixture.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::edu {
namespace {

using std::chrono::milliseconds;
using test::FakeEdu;
using test::FakeVfio;

constexpr PciAddress slot{.domain = 0, .bus = 0, .device = 3, .function = 0};

void fill(const CpuMapping& mapping, std::uint8_t seed) {
  for (std::size_t i = 0; i < mapping.bytes().size(); ++i)
    mapping.bytes()[i] = static_cast<std::byte>(seed + i * 7 + i / 256);
}

TEST_F(EduDriverTest, BytesGoThroughTheDeviceAndBack) {
  ASSERT_TRUE(start().has_value());
  const Client client = connect();
  const auto from = client.allocate(8_KiB);
  const auto to = client.allocate(8_KiB);
  const auto from_bytes = from->map_cpu();
  const auto to_bytes = to->map_cpu();
  fill(*from_bytes, 1);
  const auto from_there = from->map_device(Access::read);
  const auto to_there = to->map_device(Access::read_write);
  ASSERT_TRUE(from_there.has_value() && to_there.has_value());
  // Across a page, at odd places.
  EXPECT_TRUE(copy(client, ACCELMM_IOCTL_EDU_COPY_IN, from_there->address().value() + 3001, 5, 4000)
                  .has_value());
  EXPECT_TRUE(copy(client, ACCELMM_IOCTL_EDU_COPY_OUT, to_there->address().value() + 17, 5, 4000)
                  .has_value());
  EXPECT_TRUE(std::equal(from_bytes->bytes().begin() + 3001, from_bytes->bytes().begin() + 7001,
                         to_bytes->bytes().begin() + 17));
  EXPECT_EQ(std::byte{0}, to_bytes->bytes()[16]);
  EXPECT_EQ(std::byte{0}, to_bytes->bytes()[4017]);
  EXPECT_EQ(0, hardware_.missed + hardware_.clamped + hardware_.overruns);
  const accelmm_info_edu told = info(client);
  EXPECT_EQ(2U, told.transfers);
  EXPECT_EQ(8000U, told.bytes);
  EXPECT_EQ(2U, told.interrupts);
  EXPECT_EQ(0x100U, told.version);
  EXPECT_EQ(static_cast<std::uint32_t>(VfioInterrupt::Kind::msi), told.interrupt);
}

TEST_F(EduDriverTest, AllOfTheBufferCanBeUsedAndNothingBeyondIt) {
  ASSERT_TRUE(start().has_value());
  const Client client = connect();
  const auto buffer = client.allocate(4_KiB);
  const auto there = buffer->map_device();
  const std::uint64_t address = there->address().value();
  EXPECT_TRUE(copy(client, ACCELMM_IOCTL_EDU_COPY_IN, address, 0, 4095).has_value());
  EXPECT_TRUE(copy(client, ACCELMM_IOCTL_EDU_COPY_IN, address, 4094, 1).has_value());
  for (const auto& [offset, length] : {std::pair{0U, 4096U},
                                       {1U, 4095U},
                                       {4095U, 1U},
                                       {0U, 0U},
                                       {0xffffffffU, 2U},
                                       {1U, 0xffffffffU}})
    EXPECT_EQ(Errc::invalid_argument,
              copy(client, ACCELMM_IOCTL_EDU_COPY_IN, address, offset, length).error().code);
  EXPECT_EQ(Errc::overflow, copy(client, ACCELMM_IOCTL_EDU_COPY_IN, ~0ULL, 0, 2).error().code);
  EXPECT_EQ(0, hardware_.overruns);
}

TEST_F(EduDriverTest, AddressesFitIntoTheBitsOfTheDevice) {
  ASSERT_TRUE(start().has_value());
  const Client client = connect();
  std::vector<Buffer> buffers;
  for (int i = 0; i < 8; ++i) {
    buffers.push_back(std::move(*client.allocate(512_KiB)));
    const auto there = buffers.back().map_device();
    ASSERT_TRUE(there.has_value());
    EXPECT_LE((there->address() + 512_KiB).value(), 1U << 28);
    EXPECT_TRUE(
        copy(client, ACCELMM_IOCTL_EDU_COPY_IN, there->address().value(), 0, 64).has_value());
  }
  EXPECT_EQ(0, hardware_.clamped);
}

TEST_F(EduDriverTest, WhatIsNotMappedFaultsAndIsNotTouched) {
  ASSERT_TRUE(start().has_value());
  const Client client = connect();
  const auto buffer = client.allocate(4_KiB);
  auto there = buffer->map_device(Access::read);
  const std::uint64_t address = there->address().value();
  const auto error = [&](std::uint32_t command, std::uint64_t at, std::uint32_t length) {
    const auto copied = copy(client, command, at, 0, length);
    return copied ? Errc{} : copied.error().code;
  };
  EXPECT_EQ(Errc::fault, error(ACCELMM_IOCTL_EDU_COPY_OUT, address, 1));         // read-only
  EXPECT_EQ(Errc::fault, error(ACCELMM_IOCTL_EDU_COPY_IN, address + 4090, 10));  // its end
  EXPECT_EQ(Errc::fault, error(ACCELMM_IOCTL_EDU_COPY_IN, address - 1, 2));
  EXPECT_EQ(Errc{}, error(ACCELMM_IOCTL_EDU_COPY_IN, address + 4090, 6));
  ASSERT_TRUE(there->unmap().has_value());
  EXPECT_EQ(Errc::fault, error(ACCELMM_IOCTL_EDU_COPY_IN, address, 1));
  EXPECT_EQ(0, hardware_.missed);
  const auto fault = client.last_fault();
  EXPECT_EQ(4U, fault->count);
  EXPECT_EQ(address, fault->address);
  EXPECT_EQ(static_cast<__u32>(ACCELMM_ACCESS_READ), fault->access);
}

TEST_F(EduDriverTest, ABufferMappedTwiceIsReachedUntilItWasUnmappedTwice) {
  ASSERT_TRUE(start().has_value());
  const Client client = connect();
  const auto buffer = client.allocate(4_KiB);
  auto first = buffer->map_device();
  auto second = buffer->map_device();
  ASSERT_TRUE(first.has_value() && second.has_value());
  EXPECT_EQ(4_KiB, kernel_.lock.locked);  // pinned once
  const std::uint64_t address = second->address().value();
  ASSERT_TRUE(first->unmap().has_value());
  EXPECT_TRUE(copy(client, ACCELMM_IOCTL_EDU_COPY_IN, address, 0, 8).has_value());
  ASSERT_TRUE(second->unmap().has_value());
  EXPECT_FALSE(copy(client, ACCELMM_IOCTL_EDU_COPY_IN, address, 0, 8).has_value());
  EXPECT_EQ(0_B, kernel_.lock.locked);
}

TEST_F(EduDriverTest, MappingsHaveQuotasFactsAndErrorsAsThoseOfAnMmu) {
  ASSERT_TRUE(start().has_value());
  const Client client = connect();
  const auto buffer = client.allocate(8_KiB);
  const auto there = buffer->map_device();
  EXPECT_EQ(1U, client.session_info()->mappings);
  EXPECT_EQ(8192U, client.session_info()->mapped_bytes);
  EXPECT_EQ(
      Errc::not_supported,
      buffer->map_device(Access::read, DevicePlacement::fixed(DeviceAddr(1 << 20))).error().code);
  kernel_.lock.limit = 8_KiB;
  EXPECT_EQ(Errc::over_quota, client.allocate(4_KiB)->map_device().error().code);
  EXPECT_EQ(1U, client.session_info()->mappings);
  EXPECT_EQ(8_KiB, kernel_.lock.locked);
}

TEST_F(EduDriverTest, ASessionThatEndsLeavesNothingMapped) {
  ASSERT_TRUE(start().has_value());
  {
    const Client client = connect();
    const auto buffer = client.allocate(8_KiB);
    (void)buffer->map_device()->release();
    (void)buffer->map_device(Access::read)->release();
    EXPECT_EQ(2U, kernel_.mapped.size());
  }
  const Client next = connect();  // waits until the one before has ended
  EXPECT_TRUE(kernel_.mapped.empty());
  EXPECT_EQ(0_B, kernel_.lock.locked);
}

TEST_F(EduDriverTest, ATransferThatDoesNotEndTimesOutAndTheDeviceIsCutOffUntilItStops) {
  ASSERT_TRUE(start({.timeout = milliseconds(300)}).has_value());
  const Client client = connect();
  const auto buffer = client.allocate(4_KiB);
  const auto there = buffer->map_device();
  const std::uint64_t address = there->address().value();
  hardware_.holds_transfers = true;
  EXPECT_EQ(Errc::timed_out, copy(client, ACCELMM_IOCTL_EDU_COPY_IN, address, 0, 8).error().code);
  EXPECT_EQ(1U, info(client).timeouts);
  hardware_.release();  // while the device is cut off, or after that was given up
  const auto next = copy(client, ACCELMM_IOCTL_EDU_COPY_IN, address, 0, 8);
  EXPECT_TRUE(next.has_value() || next.error().code == Errc::io_error);
  EXPECT_EQ(1, hardware_.missed);  // what came late did not reach memory
}

TEST_F(EduDriverTest, ADeviceThatHangsForEverFailsLaterTransfersAtOnce) {
  ASSERT_TRUE(start({.timeout = milliseconds(20)}).has_value());
  const Client client = connect();
  const auto buffer = client.allocate(4_KiB);
  const auto there = buffer->map_device();
  const std::uint64_t address = there->address().value();
  hardware_.holds_transfers = true;
  EXPECT_EQ(Errc::timed_out, copy(client, ACCELMM_IOCTL_EDU_COPY_IN, address, 0, 8).error().code);
  EXPECT_EQ(Errc::io_error, copy(client, ACCELMM_IOCTL_EDU_COPY_IN, address, 0, 8).error().code);
  EXPECT_EQ(0, kernel_.command & PCI_COMMAND_MASTER);
}

TEST_F(EduDriverTest, AnInterruptOfAnotherCauseEndsNoTransfer) {
  ASSERT_TRUE(start().has_value());
  const Client client = connect();
  const auto buffer = client.allocate(4_KiB);
  const auto there = buffer->map_device();
  hardware_.holds_transfers = true;
  accelmm_edu_copy args{};
  args.address = there->address().value();
  args.length = 8;
  ASSERT_TRUE(client.ioctl(ACCELMM_IOCTL_EDU_COPY_IN, args).has_value());
  while (!hardware_.is_busy()) std::this_thread::yield();
  hardware_.raise(0x1);
  const auto soon = std::chrono::steady_clock::now() + milliseconds(30);
  EXPECT_EQ(Errc::timed_out, client.wait(Point::job(args.point.value), soon).error().code);
  hardware_.release();
  EXPECT_TRUE(client.wait(Point::job(args.point.value)).has_value());
  EXPECT_EQ(2U, info(client).interrupts);
}

TEST_F(EduDriverTest, ALineIsUnmaskedAfterEachInterrupt) {
  kernel_.msi_count = 0;
  ASSERT_TRUE(start().has_value());
  const Client client = connect();
  const auto buffer = client.allocate(4_KiB);
  const auto there = buffer->map_device();
  for (int i = 0; i < 3; ++i)
    EXPECT_TRUE(
        copy(client, ACCELMM_IOCTL_EDU_COPY_IN, there->address().value(), 0, 8).has_value());
  EXPECT_EQ(static_cast<std::uint32_t>(VfioInterrupt::Kind::intx), info(client).interrupt);
  EXPECT_EQ(3, kernel_.unmasked);
}

TEST_F(EduDriverTest, TransfersOfASessionThatDiesAreCanceledOrFinishedBeforeItsMemoryGoes) {
  ASSERT_TRUE(start().has_value());
  {
    const Client client = connect();
    const auto buffer = client.allocate(4_KiB);
    const std::uint64_t address = buffer->map_device()->release().value();
    hardware_.holds_transfers = true;
    accelmm_edu_copy args{};
    args.address = address;
    args.length = 8;
    for (int i = 0; i < 3; ++i)
      ASSERT_TRUE(client.ioctl(ACCELMM_IOCTL_EDU_COPY_IN, args).has_value());
    while (!hardware_.is_busy()) std::this_thread::yield();
  }
  std::this_thread::sleep_for(milliseconds(30));
  EXPECT_EQ(1U, kernel_.mapped.size());  // the device still reads it
  hardware_.release();
  const Client next = connect();
  EXPECT_TRUE(kernel_.mapped.empty());
  EXPECT_EQ(0, hardware_.missed);
}

TEST_F(EduDriverTest, HardwareThatIsNoEduOrDoesNotAnswerIsNotRegistered) {
  hardware_.identification = 0x010000ee;
  EXPECT_EQ(Errc::no_device, start().error().code);
  hardware_.identification = 0x010000ed;
  hardware_.answers = false;
  EXPECT_EQ(Errc::io_error, start().error().code);
  EXPECT_EQ(0, kernel_.command & PCI_COMMAND_MASTER);
  hardware_.answers = true;
  EXPECT_TRUE(start().has_value());
}

TEST_F(EduDriverTest, ARemovedDeviceReachesNoMemoryByItself) {
  ASSERT_TRUE(start().has_value());
  EXPECT_NE(0, kernel_.command & PCI_COMMAND_MASTER);
  EXPECT_TRUE(runtime_->remove_device(0).has_value());
  runtime_.reset();  // the driver has removed it by then
  EXPECT_EQ(0, kernel_.command & PCI_COMMAND_MASTER);
  EXPECT_EQ(~0U, kernel_.armed_index);
}

TEST_F(EduDriverTest, ADeviceOnABusOfItsOwnTakesOneSessionAndHasNoMemoryOfItsOwn) {
  auto made = Runtime::create({.directory = folder_.path(), .host_window = 1_MiB});
  ASSERT_TRUE(made.has_value());
  for (int wrong = 0; wrong < 2; ++wrong) {
    auto device = VfioDevice::open(slot, kernel_);
    DeviceDescription description = edu_description(**device, {});
    if (wrong == 0) description.compute_sessions = ComputeSessions::many;
    if (wrong == 1) description.memory = DeviceMemoryDescription{16_MiB, 1_MiB};
    auto driver = make_edu_driver(std::move(*device), {});
    EXPECT_EQ(Errc::invalid_argument,
              (*made)->register_device(description, std::move(*driver)).error().code);
  }
}

}  // namespace
}  // namespace accelmm::edu
