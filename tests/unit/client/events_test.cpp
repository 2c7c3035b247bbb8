// SPDX-License-Identifier: Apache-2.0
#include "support/census.hpp"
#include "unit/client/fake_driver.hpp"

#include <accelmm/client.hpp>

#include <array>
#include <optional>

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/wait.h>

namespace accelmm {
namespace {

using test::FakeChannel;
using test::FakeDriver;
using test::Reply;

class Events : public testing::Test {
 protected:
  void SetUp() override {
    auto client = Client::connect(std::make_unique<FakeChannel>(driver_));
    ASSERT_TRUE(client);
    client_ = std::move(*client);
  }

  [[nodiscard]] short poll_now() const {
    pollfd fd{.fd = client_->event_fd()->get(), .events = POLLIN, .revents = 0};
    EXPECT_GE(::poll(&fd, 1, 0), 0);
    return fd.revents;
  }

  std::shared_ptr<FakeDriver> driver_ = std::make_shared<FakeDriver>();
  std::optional<Client> client_;
};

constexpr accelmm_event make_event(std::uint64_t value) {
  return {.point = {.timeline = ACCELMM_TIMELINE_JOBS, .reserved = 0, .value = value},
          .status = 0,
          .lost = 0};
}

TEST_F(Events, TheDescriptorIsAskedForOnceAndStaysTheSame) {
  const auto fd = client_->event_fd();
  ASSERT_TRUE(fd);
  EXPECT_EQ(fd->get(), client_->event_fd()->get());
  EXPECT_FALSE(client_->read_event()->has_value());
  EXPECT_EQ(1u, driver_->count(ACCELMM_IOCTL_EVENTS));
}

TEST_F(Events, ReadingNeverWaitsWhateverTheDriverSent) {
  EXPECT_FALSE(client_->read_event()->has_value()) << "the fake driver's end is a blocking one";
}

TEST_F(Events, EventsComeInOrderAndMakeTheDescriptorReadable) {
  ASSERT_TRUE(client_->event_fd());
  EXPECT_EQ(0, poll_now());
  driver_->write_event(make_event(1));
  accelmm_event failed = make_event(2);
  failed.status = -EFAULT;
  failed.lost = 3;
  driver_->write_event(failed);
  EXPECT_EQ(POLLIN, poll_now());
  const auto first = client_->read_event();
  ASSERT_TRUE(first && first->has_value());
  EXPECT_EQ(1u, (*first)->point.value);
  const auto second = client_->read_event();
  ASSERT_TRUE(second && second->has_value());
  EXPECT_EQ(2u, (*second)->point.value);
  EXPECT_EQ(-EFAULT, (*second)->status);
  EXPECT_EQ(3u, (*second)->lost);
  EXPECT_FALSE(client_->read_event()->has_value());
}

TEST_F(Events, TheDescriptorHangsUpWhenTheDriverDies) {
  ASSERT_TRUE(client_->event_fd());
  driver_->write_event(make_event(1));
  driver_->die();
  EXPECT_NE(0, poll_now() & POLLHUP);
  EXPECT_TRUE(client_->read_event()->has_value()) << "what was there before is not lost";
  EXPECT_EQ(Errc::no_device, client_->read_event().error().code);
}

TEST_F(Events, EventsThatMakeNoSenseAreRefused) {
  ASSERT_TRUE(client_->event_fd());
  accelmm_event timeline = make_event(1);
  timeline.point.timeline = ACCELMM_TIMELINE_PRESSURE + 1;
  accelmm_event reserved = make_event(1);
  reserved.point.reserved = 1;
  accelmm_event positive = make_event(1);
  positive.status = 1;
  accelmm_event no_errno = make_event(1);
  no_errno.status = -4096;
  for (const accelmm_event& event : {timeline, reserved, positive, no_errno}) {
    driver_->write_event(event);
    EXPECT_EQ(Errc::protocol_error, client_->read_event().error().code);
  }
  const accelmm_event good = make_event(1);
  driver_->write_event(std::as_bytes(std::span(&good, 1)).first(23));
  EXPECT_EQ(Errc::protocol_error, client_->read_event().error().code);
}

TEST_F(Events, AReplyToEventsThatLiesIsRefusedAndItsDescriptorIsClosed) {
  const std::vector<std::pair<const char*, std::function<void(Reply&)>>> lies = {
      {"fd index", [](Reply& reply) { reply.as<accelmm_events>().fd = 1; }},
      {"no fd", [](Reply& reply) { reply.fds.clear(); }},
      {"two fds",
       [](Reply& reply) {
         reply.fds.emplace_back(::fcntl(reply.fds[0].get(), F_DUPFD_CLOEXEC, 0));
       }},
  };
  for (const auto& [field, lie] : lies) {
    SCOPED_TRACE(field);
    const std::size_t before = test::count_fds();
    driver_->tamper(ACCELMM_IOCTL_EVENTS, [&](Reply& reply) {
      lie(reply);
      reply.header.fd_count = static_cast<std::uint16_t>(reply.fds.size());
    });
    EXPECT_EQ(Errc::protocol_error, client_->event_fd().error().code);
    driver_->close_events();
    EXPECT_EQ(before, test::count_fds());
  }
  EXPECT_TRUE(client_->event_fd()) << "asked for again";
}

TEST_F(Events, WatchSendsThePoint) {
  ASSERT_TRUE(client_->watch(Point::job(5)));
  EXPECT_EQ(5u, driver_->last<accelmm_watch>().point.value);
  driver_->refuse(ACCELMM_IOCTL_WATCH, ENOTCONN);
  EXPECT_EQ(ENOTCONN, static_cast<int>(client_->watch(Point::job(5)).error().code));
}

TEST_F(Events, AForkedChildNeitherReadsNorKeepsTheDescriptor) {
  const int fd = client_->event_fd()->get();
  driver_->write_event(make_event(1));
  const pid_t child = ::fork();
  if (child == 0) {
    if (::fcntl(fd, F_GETFD) != -1) ::_exit(1);
    const auto asked = client_->event_fd();
    if (asked || asked.error().code != Errc::no_device) ::_exit(2);
    const auto read = client_->read_event();
    ::_exit(!read && read.error().code == Errc::no_device ? 0 : 3);
  }
  int status = 0;
  ASSERT_EQ(child, ::waitpid(child, &status, 0));
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(0, WEXITSTATUS(status));
  EXPECT_TRUE(client_->read_event()->has_value()) << "the parent has its event";
}

}  // namespace
}  // namespace accelmm
