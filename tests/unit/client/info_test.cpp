// SPDX-License-Identifier: Apache-2.0
#include "unit/client/fake_driver.hpp"

#include <accelmm/client.hpp>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

using test::FakeChannel;
using test::FakeDriver;
using test::Reply;

class ClientInfo : public testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(client_); }

  template <class Struct>
  void set_topic(std::uint32_t topic, const Struct& facts, std::size_t size = sizeof(Struct)) {
    const auto bytes = std::as_bytes(std::span(&facts, 1)).first(size);
    driver_->topics[topic].assign(bytes.begin(), bytes.end());
  }

  std::shared_ptr<FakeDriver> driver_ = std::make_shared<FakeDriver>();
  Result<Client> client_ = Client::connect(std::make_unique<FakeChannel>(driver_));
};

TEST_F(ClientInfo, EachTopicIsReadIntoItsStruct) {
  std::memcpy(driver_->device.driver, "npu", 4);
  driver_->device.memory_size = 7;
  accelmm_info_usage usage = {};
  usage.compute_sessions = 5;
  set_topic(ACCELMM_INFO_USAGE, usage);
  accelmm_info_session session = {};
  session.asid = 3;
  set_topic(ACCELMM_INFO_SESSION, session);
  accelmm_info_fault fault = {};
  fault.address = 0x1000;
  set_topic(ACCELMM_INFO_FAULT, fault);
  const auto device = client_->device_info();
  ASSERT_TRUE(device);
  EXPECT_STREQ("npu", reinterpret_cast<const char*>(device->driver));
  EXPECT_EQ(7u, device->memory_size);
  EXPECT_EQ(5u, client_->usage()->compute_sessions);
  EXPECT_EQ(3u, client_->session_info()->asid);
  EXPECT_EQ(0x1000u, client_->last_fault()->address);
}

TEST_F(ClientInfo, WhatAnOlderDriverDoesNotKnowIsZero) {
  driver_->topics[ACCELMM_INFO_FAULT].assign(offsetof(accelmm_info_fault, address),
                                             std::byte{0xff});
  driver_->tamper(ACCELMM_IOCTL_INFO, [](Reply& reply) {
    reply.as<accelmm_info>().data[sizeof(accelmm_info_fault) - 1] = 0xff;  // not said to be there
  });
  const auto fault = client_->last_fault();
  ASSERT_TRUE(fault);
  EXPECT_EQ(UINT64_MAX, fault->count);
  EXPECT_EQ(0u, fault->address);
  EXPECT_EQ(0u, fault->level);
}

TEST_F(ClientInfo, ATopicThatClaimsToBeLargerThanItsRoomIsCut) {
  accelmm_info_usage usage = {};
  usage.status = ACCELMM_STATUS_REMOVED;
  set_topic(ACCELMM_INFO_USAGE, usage);
  driver_->tamper(ACCELMM_IOCTL_INFO,
                  [](Reply& reply) { reply.as<accelmm_info>().size = UINT32_MAX; });
  EXPECT_EQ(static_cast<std::uint32_t>(ACCELMM_STATUS_REMOVED), client_->usage()->status);
  driver_->topics[ACCELMM_INFO_DRIVER].assign(8, std::byte{1});
  driver_->tamper(ACCELMM_IOCTL_INFO,
                  [](Reply& reply) { reply.as<accelmm_info>().size = UINT32_MAX; });
  EXPECT_EQ(std::size_t{ACCELMM_INFO_DATA_SIZE}, client_->driver_info(0)->size());
}

TEST_F(ClientInfo, NamesThatDoNotEndAreRefused) {
  std::memset(driver_->device.driver, 'x', sizeof(driver_->device.driver));
  EXPECT_EQ(Errc::protocol_error, client_->device_info().error().code);
  driver_->device.driver[ACCELMM_NAME_SIZE - 1] = 0;
  EXPECT_TRUE(client_->device_info());
  std::memset(driver_->device.mmu_format, 'x', sizeof(driver_->device.mmu_format));
  EXPECT_EQ(Errc::protocol_error, client_->device_info().error().code);
}

TEST_F(ClientInfo, FactsAboutSomethingElseAreRefused) {
  driver_->tamper(ACCELMM_IOCTL_INFO, [](Reply& reply) { ++reply.as<accelmm_info>().topic; });
  EXPECT_EQ(Errc::protocol_error, client_->device_info().error().code);
  driver_->tamper(ACCELMM_IOCTL_INFO, [](Reply& reply) {
    reply.as<accelmm_info>().data[offsetof(accelmm_info_device, number)] ^= 1;
  });
  EXPECT_EQ(Errc::protocol_error, client_->device_info().error().code);
}

TEST_F(ClientInfo, ADriversOwnTopicIsCountedFromTheDriversRange) {
  driver_->topics[ACCELMM_INFO_DRIVER + 2] = {std::byte{1}, std::byte{2}, std::byte{3}};
  const auto facts = client_->driver_info(2);
  ASSERT_TRUE(facts);
  EXPECT_EQ(driver_->topics[ACCELMM_INFO_DRIVER + 2], *facts);
  EXPECT_EQ(Errc::invalid_argument, client_->driver_info(3).error().code);
  EXPECT_EQ(Errc::invalid_argument, client_->driver_info(UINT32_MAX).error().code);
}

}  // namespace
}  // namespace accelmm
