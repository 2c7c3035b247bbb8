// SPDX-License-Identifier: Apache-2.0
// What the C ABI does with arguments and replies that c_abi_test.c, which is C, does not try.
#include "capi/guarded.hpp"
#include "capi/session.hpp"
#include "support/census.hpp"
#include "unit/client/fake_driver.hpp"

#include <accelmm/accelmm.h>

#include <array>
#include <climits>
#include <cstring>
#include <stdexcept>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

using test::FakeChannel;
using test::FakeDriver;
using test::page;
using test::Reply;

class CApi : public testing::Test {
 protected:
  void SetUp() override {
    const auto session = make_session(std::make_unique<FakeChannel>(driver_));
    ASSERT_TRUE(session);
    session_ = *session;
    ASSERT_EQ(0, accelmm_buffer_allocate(session_, page, ACCELMM_DOMAIN_HOST, 0, &buffer_));
    view_ = {.handle = buffer_.handle, .offset = 0, .length = page};
  }
  void TearDown() override { accelmm_session_close(session_); }

  std::shared_ptr<FakeDriver> driver_ = std::make_shared<FakeDriver>();
  accelmm_session* session_ = nullptr;
  accelmm_buffer buffer_ = {};
  accelmm_view view_ = {};
};

TEST_F(CApi, NullIsAnInvalidArgumentEverywhere) {
  accelmm_session* session = nullptr;
  std::uint64_t number = 0;
  accelmm_info_device device = {};
  accelmm_info_usage usage = {};
  accelmm_info_session own = {};
  accelmm_info_fault fault = {};
  accelmm_shortage shortage = {};
  accelmm_defragment defragment = {};
  char text[8] = {};
  accelmm_buffer buffer = {};
  accelmm_backing backing = {};
  accelmm_mapping* mapping = nullptr;
  accelmm_device_mapping device_mapping = {};
  accelmm_shared_view shared = {};
  accelmm_event event = {};
  const std::size_t sent = driver_->log.size();
  const std::array results = {
      accelmm_session_connect(0, ACCELMM_NODE_COMPUTE, nullptr),
      accelmm_session_connect_path(nullptr, &session),
      accelmm_session_connect_path("/nonexistent", nullptr),
      accelmm_session_get_node(nullptr),
      accelmm_session_get_device(nullptr),
      accelmm_session_get_number(nullptr, &number),
      accelmm_session_get_number(session_, nullptr),
      accelmm_session_ioctl(nullptr, ACCELMM_IO(0x40), nullptr, nullptr),
      accelmm_session_ioctl(session_, ACCELMM_IOCTL_FREE, nullptr, nullptr),
      accelmm_info_read_device(nullptr, &device, sizeof(device)),
      accelmm_info_read_device(session_, nullptr, sizeof(device)),
      accelmm_info_read_device(session_, &device, 0),
      accelmm_info_read_usage(nullptr, &usage, sizeof(usage)),
      accelmm_info_read_usage(session_, nullptr, sizeof(usage)),
      accelmm_info_read_session(nullptr, &own, sizeof(own)),
      accelmm_info_read_session(session_, nullptr, sizeof(own)),
      accelmm_info_read_fault(nullptr, &fault, sizeof(fault)),
      accelmm_info_read_fault(session_, nullptr, sizeof(fault)),
      accelmm_info_read_driver(nullptr, 0, &number, sizeof(number)),
      accelmm_info_read_driver(session_, 0, nullptr, 1),
      accelmm_shortage_read(nullptr, 0, 0, &shortage, sizeof(shortage)),
      accelmm_shortage_read(session_, 0, 0, nullptr, sizeof(shortage)),
      accelmm_shortage_read(session_, 0, 0, &shortage, 0),
      accelmm_shortage_text(nullptr, sizeof(shortage), text, sizeof(text)),
      accelmm_shortage_text(&shortage, 0, text, sizeof(text)),
      accelmm_shortage_text(&shortage, sizeof(shortage), nullptr, 1),
      accelmm_memory_defragment(nullptr, 1, 0, &defragment, sizeof(defragment)),
      accelmm_memory_defragment(session_, 1, 0, nullptr, sizeof(defragment)),
      accelmm_memory_defragment(session_, 1, 0, &defragment, 0),
      accelmm_buffer_allocate(nullptr, page, ACCELMM_DOMAIN_HOST, 0, &buffer),
      accelmm_buffer_allocate(session_, page, ACCELMM_DOMAIN_HOST, 0, nullptr),
      accelmm_buffer_allocate_backed(nullptr, page, ACCELMM_DOMAIN_HOST, 0, nullptr, &buffer),
      accelmm_buffer_allocate_backed(session_, page, ACCELMM_DOMAIN_HOST, 0, nullptr, nullptr),
      accelmm_buffer_get_backing(nullptr, 0, 0, &backing, sizeof(backing)),
      accelmm_buffer_get_backing(session_, 0, 0, nullptr, sizeof(backing)),
      accelmm_buffer_get_backing(session_, buffer_.handle, 0, &backing, 0),
      accelmm_buffer_free(nullptr, 0),
      accelmm_buffer_map(nullptr, &view_, ACCELMM_ACCESS_READ, &mapping),
      accelmm_buffer_map(session_, nullptr, ACCELMM_ACCESS_READ, &mapping),
      accelmm_buffer_map(session_, &view_, ACCELMM_ACCESS_READ, nullptr),
      accelmm_device_map(nullptr, &view_, ACCELMM_ACCESS_READ, nullptr, &device_mapping),
      accelmm_device_map(session_, nullptr, ACCELMM_ACCESS_READ, nullptr, &device_mapping),
      accelmm_device_map(session_, &view_, ACCELMM_ACCESS_READ, nullptr, nullptr),
      accelmm_device_unmap(nullptr, 0, nullptr),
      accelmm_buffer_export(nullptr, &view_, &shared),
      accelmm_buffer_export(session_, nullptr, &shared),
      accelmm_buffer_export(session_, &view_, nullptr),
      accelmm_buffer_import(nullptr, &shared, &buffer),
      accelmm_buffer_import(session_, nullptr, &buffer),
      accelmm_buffer_import(session_, &shared, nullptr),
      accelmm_shared_view_send(0, nullptr),
      accelmm_shared_view_receive(0, nullptr),
      accelmm_point_wait(nullptr, {}, 0),
      accelmm_point_watch(nullptr, {}),
      accelmm_event_get_fd(nullptr),
      accelmm_event_read(nullptr, &event),
      accelmm_event_read(session_, nullptr),
  };
  for (std::size_t i = 0; i < results.size(); ++i) EXPECT_EQ(-EINVAL, results[i]) << "call " << i;
  EXPECT_EQ(sent, driver_->log.size()) << "nothing reached the driver process";
  accelmm_session_close(nullptr);
  accelmm_mapping_close(nullptr);
  EXPECT_EQ(nullptr, accelmm_mapping_address(nullptr));
  EXPECT_EQ(0u, accelmm_mapping_length(nullptr));
}

TEST_F(CApi, ReservedFieldsAndEnumeratorsThatAreNoneAreRefusedBeforeTheyAreSent) {
  accelmm_mapping* mapping = nullptr;
  accelmm_device_mapping device = {};
  accelmm_buffer buffer = {};
  accelmm_shared_view reserved = {};
  reserved.count = 1;
  reserved.reserved = 1;
  accelmm_shared_view piece = {};
  piece.count = 1;
  piece.pieces[0] = {.fd = 0, .reserved = 1, .offset = 0, .length = page};
  accelmm_shared_view many = {};
  many.count = ACCELMM_MAX_PIECES + 1;
  const accelmm_placement reserved_place = {ACCELMM_PLACE_FIXED, 1, page};
  const accelmm_placement no_rule = {3, 0, page};
  const accelmm_placement stray_address = {ACCELMM_PLACE_ANYWHERE, 0, page};
  accelmm_ioctl_fds fds = {};
  fds.in_count = ACCELMM_MAX_FDS + 1;
  const std::size_t sent = driver_->log.size();
  for (const std::uint32_t access : {0u, 4u, UINT32_MAX}) {
    EXPECT_EQ(-EINVAL, accelmm_buffer_map(session_, &view_, access, &mapping));
    EXPECT_EQ(-EINVAL, accelmm_device_map(session_, &view_, access, nullptr, &device));
  }
  for (const accelmm_placement& place : {reserved_place, no_rule, stray_address})
    EXPECT_EQ(-EINVAL, accelmm_device_map(session_, &view_, ACCELMM_ACCESS_READ, &place, &device));
  for (const accelmm_shared_view& shared : {reserved, piece, many, accelmm_shared_view{}}) {
    EXPECT_EQ(-EINVAL, accelmm_buffer_import(session_, &shared, &buffer));
    EXPECT_EQ(-EINVAL, accelmm_shared_view_send(0, &shared));
  }
  EXPECT_EQ(-EINVAL, accelmm_session_ioctl(session_, ACCELMM_IO(0x40), nullptr, &fds));
  EXPECT_EQ(-EINVAL, accelmm_point_wait(session_, {3, 0, 1}, 0));
  EXPECT_EQ(-EINVAL, accelmm_point_watch(session_, {0, 1, 1}));
  accelmm_view beyond = view_;
  beyond.offset = UINT64_MAX;
  EXPECT_EQ(-EOVERFLOW, accelmm_buffer_map(session_, &beyond, ACCELMM_ACCESS_READ, &mapping));
  accelmm_view empty = view_;
  empty.length = 0;
  EXPECT_EQ(-EINVAL, accelmm_buffer_map(session_, &empty, ACCELMM_ACCESS_READ, &mapping));
  EXPECT_EQ(sent, driver_->log.size());
}

TEST_F(CApi, AnApplicationOfAnotherAgeGetsThePartOfAStructThatItKnows) {
  driver_->device.driver_version = 7;
  driver_->device.va_end = 9;
  accelmm_info_device older;
  std::memset(&older, 0xab, sizeof(older));
  const std::size_t known = offsetof(accelmm_info_device, memory_size);
  ASSERT_EQ(0, accelmm_info_read_device(session_, &older, known));
  EXPECT_EQ(7u, older.driver_version);
  EXPECT_EQ(0xababababababababu, older.memory_size) << "not the caller's";
  struct Newer {
    accelmm_info_device device;
    std::uint64_t more;
  } newer;
  std::memset(&newer, 0xab, sizeof(newer));
  ASSERT_EQ(0, accelmm_info_read_device(session_, &newer.device, sizeof(newer)));
  EXPECT_EQ(9u, newer.device.va_end);
  EXPECT_EQ(0u, newer.more);
}

TEST_F(CApi, TheDriversErrnoIsTheResult) {
  accelmm_buffer buffer = {.handle = 5, .size = 5, .access = 5, .reserved = 5};
  driver_->refuse(ACCELMM_IOCTL_ALLOC, EDQUOT);
  EXPECT_EQ(-EDQUOT, accelmm_buffer_allocate(session_, page, ACCELMM_DOMAIN_HOST, 0, &buffer));
  EXPECT_EQ(5u, buffer.handle) << "untouched";
  driver_->tamper(ACCELMM_IOCTL_FREE, [](Reply& reply) { reply.header.magic = 0; });
  EXPECT_EQ(-EPROTO, accelmm_buffer_free(session_, buffer_.handle));
}

TEST_F(CApi, AFailedIoctlClosesWhatCameAndCountsNothing) {
  driver_->driver = [](Reply& reply, std::span<const FdView>) {
    reply.fds.emplace_back(::memfd_create("test", MFD_CLOEXEC));
    reply.header.status = -EIO;
  };
  const std::size_t before = test::count_fds();
  accelmm_ioctl_fds fds = {};
  fds.out_count = 3;
  EXPECT_EQ(-EIO, accelmm_session_ioctl(session_, ACCELMM_IO(0x40), nullptr, &fds));
  EXPECT_EQ(0u, fds.out_count);
  EXPECT_EQ(before, test::count_fds());
}

TEST_F(CApi, AFailedExportGivesNoPieces) {
  accelmm_shared_view shared = {};
  shared.count = 3;
  driver_->refuse(ACCELMM_IOCTL_EXPORT, EOPNOTSUPP);
  EXPECT_EQ(-EOPNOTSUPP, accelmm_buffer_export(session_, &view_, &shared));
  EXPECT_EQ(0u, shared.count);
}

TEST_F(CApi, MappingsAndExportsOutliveTheSession) {
  accelmm_mapping* mapping = nullptr;
  accelmm_shared_view shared = {};
  ASSERT_EQ(0, accelmm_buffer_map(session_, &view_, ACCELMM_ACCESS_READ | ACCELMM_ACCESS_WRITE,
                                  &mapping));
  ASSERT_EQ(0, accelmm_buffer_export(session_, &view_, &shared));
  accelmm_session_close(session_);
  session_ = nullptr;
  auto* const bytes = static_cast<unsigned char*>(accelmm_mapping_address(mapping));
  bytes[0] = 42;
  unsigned char stored = 0;
  EXPECT_EQ(1, ::pread(shared.pieces[0].fd, &stored, 1, 0));
  EXPECT_EQ(42, stored);
  accelmm_mapping_close(mapping);
  ::close(shared.pieces[0].fd);
}

TEST_F(CApi, ADeadDriverIsNoDeviceForEveryCall) {
  accelmm_info_usage usage = {};
  accelmm_event event = {};
  ASSERT_LE(0, accelmm_event_get_fd(session_));
  driver_->die();
  EXPECT_EQ(-ENODEV, accelmm_info_read_usage(session_, &usage, sizeof(usage)));
  EXPECT_EQ(-ENODEV, accelmm_buffer_free(session_, buffer_.handle));
  EXPECT_EQ(-ENODEV, accelmm_point_wait(session_, {}, ACCELMM_NO_DEADLINE));
  EXPECT_EQ(-ENODEV, accelmm_event_read(session_, &event));
}

TEST(CApiErrorText, EveryIntHasAText) {
  for (const int error : {INT_MIN, -4096, -1, 0, 1, 4096, INT_MAX})
    EXPECT_NE(nullptr, accelmm_error_text(error)) << error;
  EXPECT_STREQ(accelmm_error_text(ENODEV), accelmm_error_text(-ENODEV));
}

TEST(CApiGuard, NothingThatIsThrownGetsOut) {
  EXPECT_EQ(-ENOMEM, guarded([]() -> int { throw std::bad_alloc(); }));
  EXPECT_EQ(-EIO, guarded([]() -> int { throw std::runtime_error("unexpected"); }));
  EXPECT_EQ(7, guarded([] { return 7; }));
}

}  // namespace
}  // namespace accelmm
