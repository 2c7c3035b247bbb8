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

TEST_F(ClientInfo, AShortageIsAskedForAndToldInWords) {
  const auto told = client_->shortage(9_KiB, ACCELMM_ALLOC_CONTIGUOUS);
  ASSERT_TRUE(told);
  EXPECT_EQ((9_KiB).value(), driver_->last<accelmm_shortage>().size);
  EXPECT_EQ(static_cast<__u32>(ACCELMM_ALLOC_CONTIGUOUS), driver_->last<accelmm_shortage>().flags);
  EXPECT_EQ(-EDQUOT, told->failed_status);
  const std::string text = shortage_text(*told).value();
  const auto says = [&](const std::string& words) { return text.find(words) != std::string::npos; };
  EXPECT_EQ(0U,
            text.find("session 17 of uid 1000 got EDQUOT last; ENOMEM 4 times, EDQUOT 5 times\n"));
  EXPECT_TRUE(says(" 9216\n")) << text;
  EXPECT_TRUE(says("longest free run")) << text;
  EXPECT_TRUE(says("(50 % not)")) << text;
  EXPECT_TRUE(says("session 17 of uid 1000 holds 122880, at most 126976, asked for 118784 in 7\n"))
      << text;
  EXPECT_TRUE(says("session 16 of uid 0 (ended) holds 40960")) << text;
  EXPECT_TRUE(says("and 3 that hold less")) << text;
  // Without a request that failed, nothing is said of one.
  const std::string calm = shortage_text(accelmm_shortage{}).value();
  EXPECT_EQ(0U, calm.find("device memory (bytes)\n"));
  EXPECT_EQ(std::string::npos, calm.find("wanted"));
}

TEST_F(ClientInfo, AShortageWithMoreOwnersThanThereIsRoomForIsRefused) {
  driver_->tamper(ACCELMM_IOCTL_SHORTAGE, [](Reply& reply) {
    reply.as<accelmm_shortage>().owner_count = ACCELMM_SHORTAGE_OWNERS + 1;
  });
  EXPECT_EQ(Errc::protocol_error, client_->shortage().error().code);
  // Nor does whoever calls it by hand reach beyond the struct.
  accelmm_shortage forged{};
  forged.owner_count = UINT32_MAX;
  EXPECT_TRUE(shortage_text(forged));
}

TEST_F(ClientInfo, RoomIsAskedForAndWhatWasMovedIsTold) {
  const auto made = client_->defragment(8_MiB, 2_MiB);
  ASSERT_TRUE(made);
  EXPECT_EQ((8_MiB).value(), driver_->last<accelmm_defragment>().budget);
  EXPECT_EQ((2_MiB).value(), driver_->last<accelmm_defragment>().run);
  EXPECT_EQ(2U, made->moves);
  EXPECT_EQ((4_MiB).value(), made->moved);
  driver_->refuse(ACCELMM_IOCTL_DEFRAGMENT, EPERM);
  EXPECT_EQ(Errc::not_permitted, client_->defragment(8_MiB).error().code);
}

}  // namespace
}  // namespace accelmm
