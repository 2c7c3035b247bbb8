// SPDX-License-Identifier: Apache-2.0
#include "unit/capi/scripted_session.h"

#include "capi/session.hpp"
#include "unit/client/fake_driver.hpp"

namespace {

// The driver process of the one session that a test in C has at a time.
std::shared_ptr<accelmm::test::FakeDriver>& driver() {
  static std::shared_ptr<accelmm::test::FakeDriver> the_driver;
  return the_driver;
}

}  // namespace

accelmm_session* scripted_session_connect(void) {
  using namespace accelmm;
  driver() = std::make_shared<test::FakeDriver>();
  std::memcpy(driver()->device.driver, "scripted", 9);
  driver()->topics[ACCELMM_INFO_USAGE].assign(sizeof(accelmm_info_usage), std::byte{});
  driver()->topics[ACCELMM_INFO_SESSION].assign(sizeof(accelmm_info_session), std::byte{});
  driver()->topics[ACCELMM_INFO_FAULT].assign(sizeof(accelmm_info_fault), std::byte{});
  driver()->topics[ACCELMM_INFO_DRIVER + 1] = {std::byte{'h'}, std::byte{'i'}, std::byte{0}};
  driver()->driver = [](test::Reply& reply, std::span<const FdView> fds) {
    if (reply.header.command != SCRIPTED_IOCTL) {
      reply.header.status = -ENOTTY;
      return;
    }
    reply.as<scripted_args>().value *= 2;
    for (const FdView fd : fds) reply.fds.emplace_back(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 0));
  };
  const auto session = make_session(std::make_unique<test::FakeChannel>(driver()));
  return session ? *session : nullptr;
}

void scripted_session_write_event(uint64_t value) {
  driver()->write_event(
      accelmm_event{.point = {.timeline = ACCELMM_TIMELINE_JOBS, .reserved = 0, .value = value},
                    .status = 0,
                    .lost = 0});
}
