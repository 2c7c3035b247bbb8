// SPDX-License-Identifier: Apache-2.0
#include "support/census.hpp"
#include "unit/client/fake_driver.hpp"

#include <accelmm/client.hpp>

#include <array>
#include <thread>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

using test::FakeChannel;
using test::FakeDriver;
using test::Reply;

// A driver's own ioctl, with a struct that fits the small buffers and one that does not.
struct SmallArgs {
  std::uint64_t in;
  std::uint64_t out;
};
struct LargeArgs {
  std::array<std::uint64_t, 200> words;
};
constexpr std::uint32_t small_ioctl = ACCELMM_IOWR(0x40, SmallArgs);
constexpr std::uint32_t large_ioctl = ACCELMM_IOWR(0x41, LargeArgs);
constexpr std::uint32_t write_only_ioctl = ACCELMM_IOW(0x42, SmallArgs);
constexpr std::uint32_t bare_ioctl = ACCELMM_IO(0x43);

class ClientTest : public testing::Test {
 protected:
  Result<Client> connect() { return Client::connect(std::make_unique<FakeChannel>(driver_)); }

  std::shared_ptr<FakeDriver> driver_ = std::make_shared<FakeDriver>();
};

UniqueFd make_fd() {
  return UniqueFd(::memfd_create("test", MFD_CLOEXEC));
}

TEST_F(ClientTest, HelloSaysWhichNodeAnswered) {
  const auto client = connect();
  ASSERT_TRUE(client);
  EXPECT_EQ(3u, client->device());
  EXPECT_EQ(17u, client->session());
  EXPECT_EQ(NodeKind::compute, client->node());
  ASSERT_EQ(1u, driver_->log.size());
  const auto hello = driver_->last<accelmm_hello>();
  EXPECT_EQ(ACCELMM_PROTOCOL_MAJOR, hello.major);
  EXPECT_EQ(ACCELMM_PROTOCOL_MINOR, hello.minor);
  EXPECT_EQ(0u, hello.features);
  EXPECT_EQ(0u, hello.reserved);
  EXPECT_EQ(static_cast<std::uint32_t>(ACCELMM_MAX_MESSAGE), hello.max_message);
  EXPECT_EQ(static_cast<std::uint32_t>(ACCELMM_MAX_FDS), hello.max_fds);
}

TEST_F(ClientTest, ARefusedHelloIsTheErrorOfConnect) {
  driver_->refuse(0, EBUSY);
  const auto client = connect();
  ASSERT_FALSE(client);
  EXPECT_EQ(Errc::busy, client.error().code);
  EXPECT_STREQ(error_text(Errc::busy), client.error().what);
}

TEST_F(ClientTest, NoChannelIsAnInvalidArgument) {
  const auto client = Client::connect(std::unique_ptr<Channel>());
  ASSERT_FALSE(client);
  EXPECT_EQ(Errc::invalid_argument, client.error().code);
}

TEST_F(ClientTest, ANodeThatIsNotThereIsNoDevice) {
  const auto by_path = Client::connect(std::string("/nonexistent/accel0"));
  ASSERT_FALSE(by_path);
  EXPECT_EQ(Errc::no_device, by_path.error().code);
  const auto by_number = Client::connect(0, NodeKind::control, "/nonexistent");
  ASSERT_FALSE(by_number);
  EXPECT_EQ(Errc::no_device, by_number.error().code);
  const auto too_large = Client::connect(max_devices, NodeKind::compute, "/nonexistent");
  ASSERT_FALSE(too_large);
  EXPECT_EQ(Errc::no_device, too_large.error().code);
}

TEST_F(ClientTest, AHelloThatMakesNoSenseIsRefused) {
  const std::vector<std::pair<const char*, std::function<void(accelmm_hello&)>>> lies = {
      {"major", [](auto& hello) { hello.major = ACCELMM_PROTOCOL_MAJOR + 1; }},
      {"major 0", [](auto& hello) { hello.major = 0; }},
      {"minor", [](auto& hello) { hello.minor = ACCELMM_PROTOCOL_MINOR + 1; }},
      {"node", [](auto& hello) { hello.node = 2; }},
      {"features", [](auto& hello) { hello.features = 1; }},
      {"device", [](auto& hello) { hello.device = max_devices; }},
      {"max_message", [](auto& hello) { hello.max_message = 503; }},
      {"reserved", [](auto& hello) { hello.reserved = 1; }},
  };
  for (const auto& [field, lie] : lies) {
    SCOPED_TRACE(field);
    driver_->tamper(0, [&](Reply& reply) { lie(reply.as<accelmm_hello>()); });
    const auto client = connect();
    ASSERT_FALSE(client);
    EXPECT_EQ(Errc::protocol_error, client.error().code);
  }
  EXPECT_TRUE(connect());
}

TEST_F(ClientTest, AHelloWithDescriptorsIsRefusedAndTheyAreClosed) {
  const std::size_t before = test::count_fds();
  driver_->tamper(0, [](Reply& reply) {
    reply.fds.push_back(make_fd());
    reply.header.fd_count = 1;
  });
  const auto client = connect();
  ASSERT_FALSE(client);
  EXPECT_EQ(Errc::protocol_error, client.error().code);
  EXPECT_EQ(before, test::count_fds());
}

TEST_F(ClientTest, LimitsThatHelloSetsAreKept) {
  driver_->tamper(0, [](Reply& reply) {
    reply.as<accelmm_hello>().max_fds = 1;
    reply.as<accelmm_hello>().max_message = 504;
  });
  const auto client = connect();
  ASSERT_TRUE(client);
  driver_->driver = [](Reply&, std::span<const FdView>) {};
  const UniqueFd fd = make_fd();
  const std::array<FdView, 2> fds = {fd.view(), fd.view()};
  SmallArgs args = {};
  EXPECT_TRUE(client->ioctl(small_ioctl, args, std::span(fds).first(1)));
  EXPECT_EQ(Errc::invalid_argument, client->ioctl(small_ioctl, args, fds).error().code);
  LargeArgs large = {};
  EXPECT_EQ(Errc::invalid_argument, client->ioctl(large_ioctl, large).error().code);
}

TEST_F(ClientTest, AReplyWhoseHeaderLiesIsRefusedAndItsDescriptorsAreClosed) {
  const std::vector<std::pair<const char*, std::function<void(Reply&)>>> lies = {
      {"magic", [](Reply& reply) { reply.header.magic ^= 1; }},
      {"kind", [](Reply& reply) { reply.header.kind = ACCELMM_MESSAGE_HELLO; }},
      {"sequence", [](Reply& reply) { ++reply.header.sequence; }},
      {"command", [](Reply& reply) { reply.header.command = large_ioctl; }},
      {"positive status", [](Reply& reply) { reply.header.status = 1; }},
      {"status that is no errno", [](Reply& reply) { reply.header.status = -4096; }},
      {"smallest status", [](Reply& reply) { reply.header.status = INT32_MIN; }},
      {"size larger than the packet", [](Reply& reply) { ++reply.header.size; }},
      {"size smaller than the packet", [](Reply& reply) { --reply.header.size; }},
      {"size of 4 GiB", [](Reply& reply) { reply.header.size = UINT32_MAX; }},
      {"shorter struct",
       [](Reply& reply) {
         reply.payload.resize(8);
         reply.header.size = 8;
       }},
      {"no struct",
       [](Reply& reply) {
         reply.payload.clear();
         reply.header.size = 0;
       }},
      {"longer struct",
       [](Reply& reply) {
         reply.payload.resize(24);
         reply.header.size = 24;
       }},
      {"fewer descriptors", [](Reply& reply) { reply.header.fd_count = 2; }},
      {"more descriptors", [](Reply& reply) { reply.header.fd_count = 0; }},
  };
  const auto client = connect();
  ASSERT_TRUE(client);
  driver_->driver = [](Reply& reply, std::span<const FdView>) {
    reply.as<SmallArgs>().out = 9;
    reply.fds.push_back(make_fd());
  };
  const std::size_t before = test::count_fds();
  for (const auto& [field, lie] : lies) {
    SCOPED_TRACE(field);
    driver_->tamper(small_ioctl, lie);
    SmallArgs args = {.in = 1, .out = 2};
    std::vector<UniqueFd> fds;
    const auto done = client->ioctl(small_ioctl, args, {}, &fds);
    ASSERT_FALSE(done);
    EXPECT_EQ(Errc::protocol_error, done.error().code);
    EXPECT_EQ(2u, args.out);
    EXPECT_TRUE(fds.empty());
    EXPECT_EQ(before, test::count_fds());
  }
  SmallArgs args = {};
  EXPECT_TRUE(client->ioctl(small_ioctl, args)) << "the session is usable after lies";
}

// Answers with a number of bytes of its own choice.
class LyingChannel final : public Channel {
 public:
  explicit LyingChannel(std::size_t size) : size_(size) {}
  Result<std::size_t> call(std::span<std::byte>, std::span<const FdView>, std::span<std::byte>,
                           std::vector<UniqueFd>&) override {
    return size_;
  }

 private:
  std::size_t size_;
};

TEST(ClientChannel, AReplyShorterThanAHeaderOrLongerThanItsRoomIsRefused) {
  for (const std::size_t size : {std::size_t{0}, std::size_t{23}, std::size_t{65}, SIZE_MAX}) {
    const auto client = Client::connect(std::make_unique<LyingChannel>(size));
    ASSERT_FALSE(client);
    EXPECT_EQ(Errc::protocol_error, client.error().code) << size;
  }
}

TEST_F(ClientTest, AnIoctlCarriesItsStructBothWays) {
  const auto client = connect();
  ASSERT_TRUE(client);
  driver_->driver = [](Reply& reply, std::span<const FdView>) {
    reply.as<SmallArgs>().out = reply.as<SmallArgs>().in + 1;
  };
  SmallArgs args = {.in = 41, .out = 0};
  ASSERT_TRUE(client->ioctl(small_ioctl, args));
  EXPECT_EQ(42u, args.out);
  EXPECT_EQ(ACCELMM_MESSAGE_IOCTL, driver_->log.back().header.kind);
  EXPECT_EQ(small_ioctl, driver_->log.back().header.command);
  EXPECT_EQ(0, driver_->log.back().header.status);
}

TEST_F(ClientTest, AStructLargerThanTheStackBufferTravelsToo) {
  const auto client = connect();
  ASSERT_TRUE(client);
  driver_->driver = [](Reply& reply, std::span<const FdView>) {
    for (auto& word : reply.as<LargeArgs>().words) word *= 2;
  };
  LargeArgs args = {};
  args.words.back() = 21;
  ASSERT_TRUE(client->ioctl(large_ioctl, args));
  EXPECT_EQ(42u, args.words.back());
}

TEST_F(ClientTest, AnIoctlThatOnlyWritesLeavesTheCallersStructAlone) {
  const auto client = connect();
  ASSERT_TRUE(client);
  driver_->driver = [](Reply& reply, std::span<const FdView>) { reply.as<SmallArgs>().in = 99; };
  SmallArgs args = {.in = 1, .out = 2};
  ASSERT_TRUE(client->ioctl(write_only_ioctl, args));
  EXPECT_EQ(1u, args.in);
}

TEST_F(ClientTest, AnIoctlWithoutAStructIsAllowed) {
  const auto client = connect();
  ASSERT_TRUE(client);
  driver_->driver = [](Reply&, std::span<const FdView>) {};
  EXPECT_TRUE(client->ioctl_bytes(bare_ioctl, {}));
}

TEST_F(ClientTest, ANumberForAStructOfAnotherSizeIsRefusedBeforeItIsSent) {
  const auto client = connect();
  ASSERT_TRUE(client);
  LargeArgs args = {};
  EXPECT_EQ(Errc::invalid_argument, client->ioctl(small_ioctl, args).error().code);
  EXPECT_EQ(1u, driver_->log.size()) << "HELLO only";
}

TEST_F(ClientTest, AFailedIoctlLeavesStructAndDescriptorsAsTheyWere) {
  const auto client = connect();
  ASSERT_TRUE(client);
  driver_->driver = [](Reply& reply, std::span<const FdView>) {
    reply.as<SmallArgs>().out = 9;
    reply.fds.push_back(make_fd());
    reply.header.status = -EDQUOT;
  };
  const std::size_t before = test::count_fds();
  SmallArgs args = {.in = 1, .out = 2};
  std::vector<UniqueFd> fds;
  EXPECT_EQ(Errc::over_quota, client->ioctl(small_ioctl, args, {}, &fds).error().code);
  EXPECT_EQ(2u, args.out);
  EXPECT_TRUE(fds.empty());
  EXPECT_EQ(before, test::count_fds());
}

TEST_F(ClientTest, DescriptorsTravelBothWays) {
  const auto client = connect();
  ASSERT_TRUE(client);
  driver_->driver = [](Reply& reply, std::span<const FdView> fds) {
    for (const FdView fd : fds) reply.fds.emplace_back(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 0));
  };
  const std::array<UniqueFd, 2> mine = {make_fd(), make_fd()};
  const std::array<FdView, 2> views = {mine[0].view(), mine[1].view()};
  std::vector<UniqueFd> back;
  back.push_back(make_fd());
  SmallArgs args = {};
  ASSERT_TRUE(client->ioctl(small_ioctl, args, views, &back));
  ASSERT_EQ(3u, back.size()) << "appended to what was there";
  struct stat sent = {};
  struct stat received = {};
  ASSERT_EQ(0, ::fstat(mine[1].get(), &sent));
  ASSERT_EQ(0, ::fstat(back[2].get(), &received));
  EXPECT_EQ(sent.st_ino, received.st_ino);
}

TEST_F(ClientTest, DescriptorsThatNobodyWantsAreClosed) {
  const auto client = connect();
  ASSERT_TRUE(client);
  driver_->driver = [](Reply& reply, std::span<const FdView>) { reply.fds.push_back(make_fd()); };
  const std::size_t before = test::count_fds();
  SmallArgs args = {};
  EXPECT_TRUE(client->ioctl(small_ioctl, args));
  EXPECT_EQ(before, test::count_fds());
}

TEST_F(ClientTest, TooManyOrEmptyDescriptorsAreRefusedBeforeTheyAreSent) {
  const auto client = connect();
  ASSERT_TRUE(client);
  const UniqueFd fd = make_fd();
  const std::vector<FdView> many(ACCELMM_MAX_FDS + 1, fd.view());
  SmallArgs args = {};
  EXPECT_EQ(Errc::invalid_argument, client->ioctl(small_ioctl, args, many).error().code);
  const std::array<FdView, 1> empty = {FdView()};
  EXPECT_EQ(EBADF, static_cast<int>(client->ioctl(small_ioctl, args, empty).error().code));
  EXPECT_EQ(1u, driver_->log.size()) << "HELLO only";
}

TEST_F(ClientTest, EveryCallOfADeadDriverIsNoDevice) {
  const auto client = connect();
  ASSERT_TRUE(client);
  auto buffer = client->allocate(ByteCount(test::page));
  ASSERT_TRUE(buffer);
  auto mapping = buffer->map_device();
  ASSERT_TRUE(mapping);
  Export view;
  view.pieces.push_back({make_fd(), 0, ByteCount(test::page)});
  ASSERT_TRUE(client->event_fd());
  driver_->die();
  SmallArgs args = {};
  EXPECT_EQ(Errc::no_device, client->device_info().error().code);
  EXPECT_EQ(Errc::no_device, client->usage().error().code);
  EXPECT_EQ(Errc::no_device, client->session_info().error().code);
  EXPECT_EQ(Errc::no_device, client->last_fault().error().code);
  EXPECT_EQ(Errc::no_device, client->driver_info(0).error().code);
  EXPECT_EQ(Errc::no_device, client->allocate(ByteCount(1)).error().code);
  EXPECT_EQ(Errc::no_device, client->import_view(view).error().code);
  EXPECT_EQ(Errc::no_device, client->ioctl(small_ioctl, args).error().code);
  EXPECT_EQ(Errc::no_device, client->wait(Point::job(1)).error().code);
  EXPECT_EQ(Errc::no_device, client->watch(Point::job(1)).error().code);
  EXPECT_EQ(Errc::no_device, client->read_event().error().code);
  EXPECT_EQ(Errc::no_device, buffer->map_cpu().error().code);
  EXPECT_EQ(Errc::no_device, buffer->map_device().error().code);
  EXPECT_EQ(Errc::no_device, buffer->export_view().error().code);
  EXPECT_EQ(Errc::no_device, mapping->unmap().error().code);
  EXPECT_EQ(Errc::no_device, buffer->free().error().code);
}

TEST_F(ClientTest, ManyThreadsCallAtOnce) {
  const auto client = connect();
  ASSERT_TRUE(client);
  driver_->keep_log = false;
  driver_->driver = [](Reply& reply, std::span<const FdView>) {
    reply.as<SmallArgs>().out = reply.as<SmallArgs>().in * 3;
  };
  std::atomic<int> wrong = 0;
  std::vector<std::jthread> threads;
  for (std::uint64_t thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      for (std::uint64_t i = 0; i < 500; ++i) {
        SmallArgs args = {.in = thread << 32 | i, .out = 0};
        if (!client->ioctl(small_ioctl, args) || args.out != args.in * 3) ++wrong;
        if (!client->event_fd()) ++wrong;
      }
    });
  }
  threads.clear();
  EXPECT_EQ(0, wrong);
}

}  // namespace
}  // namespace accelmm
