// SPDX-License-Identifier: Apache-2.0
#include "base/system.hpp"
#include "support/census.hpp"
#include "support/failing_calls.hpp"
#include "support/temporary_folder.hpp"

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace accelmm {
namespace {

using Bytes = std::vector<std::byte>;
constexpr std::size_t kernel_max_fds = 253;  // SCM_MAX_FD

template <class T>
int error_of(const Result<T>& result) {
  return result ? 0 : static_cast<int>(result.error().code);
}

mode_t mode_of(const std::string& path) {
  struct stat status = {};
  return ::stat(path.c_str(), &status) == 0 ? status.st_mode & 07777 : 0;
}

// --- listening and connecting ---

class Listening : public testing::Test {
 protected:
  test::TemporaryFolder folder_;
  std::string path_ = folder_.file("node");
};

/// What the outside saw of a socket just before it listened.
struct Glimpse {
  std::string path;
  int connect_errno = 0;
  mode_t mode = 0;

  static int look(void* context, const char* site) noexcept {
    auto* const self = static_cast<Glimpse*>(context);
    if (std::strcmp(site, "listen") != 0) return 0;
    self->mode = mode_of(self->path);
    const UniqueFd stranger(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, self->path.c_str(), sizeof(address.sun_path) - 1);
    const auto* const generic = reinterpret_cast<const sockaddr*>(&address);
    if (::connect(stranger.get(), generic, sizeof(address)) != 0) self->connect_errno = errno;
    return 0;
  }
};

TEST_F(Listening, NobodyConnectsBeforeTheModeIsRight) {
  const mode_t before = ::umask(0);
  Glimpse glimpse{.path = path_};
  fault_injection::install(&Glimpse::look, &glimpse);
  const auto listener = sys::listen_seqpacket(path_);
  fault_injection::install(nullptr, nullptr);
  ::umask(before);
  ASSERT_TRUE(listener.has_value());
  EXPECT_EQ(ECONNREFUSED, glimpse.connect_errno);
  EXPECT_EQ(0600U, glimpse.mode);
  EXPECT_EQ(0600U, mode_of(path_));
}

TEST_F(Listening, AClientConnectsAndIsKnown) {
  const auto listener = sys::listen_seqpacket(path_);
  ASSERT_TRUE(listener.has_value());
  EXPECT_NE(0, *sys::get_flags(listener->view()) & O_NONBLOCK);
  const auto client = sys::connect_seqpacket(path_);
  ASSERT_TRUE(client.has_value());
  EXPECT_EQ(0, *sys::get_flags(client->view()) & O_NONBLOCK);
  const UniqueFd server(::accept4(listener->get(), nullptr, nullptr, SOCK_CLOEXEC));
  const auto credentials = sys::peer_credentials(server.view());
  ASSERT_TRUE(credentials.has_value());
  EXPECT_EQ(::getpid(), credentials->pid);
  EXPECT_EQ(::getuid(), credentials->uid);
  EXPECT_EQ(::getgid(), credentials->gid);
}

TEST_F(Listening, APathIsTakenUpTo107Bytes) {
  const std::string longest = path_ + std::string(107 - path_.size(), 'x');
  EXPECT_TRUE(sys::listen_seqpacket(longest).has_value());
  EXPECT_TRUE(std::filesystem::exists(longest));
  EXPECT_EQ(ENAMETOOLONG, error_of(sys::listen_seqpacket(longest + "x")));
  EXPECT_EQ(ENAMETOOLONG, error_of(sys::connect_seqpacket(longest + "x")));
}

TEST_F(Listening, APathThatIsNoneIsRefused) {
  for (const std::string& path : {std::string(), std::string("\0abstract", 9), path_ + '\0'}) {
    EXPECT_EQ(EINVAL, error_of(sys::listen_seqpacket(path)));
    EXPECT_EQ(EINVAL, error_of(sys::connect_seqpacket(path)));
  }
}

TEST_F(Listening, ATakenPathStaysWhatItIs) {
  const auto first = sys::listen_seqpacket(path_);
  EXPECT_EQ(EADDRINUSE, error_of(sys::listen_seqpacket(path_)));
  EXPECT_TRUE(sys::connect_seqpacket(path_).has_value());
}

TEST_F(Listening, AFailureAfterBindingLeavesNoFile) {
  for (const char* site : {"chmod", "listen"}) {
    const test::Census before = test::take_census();
    const test::FailingSite failing(site, EACCES);
    EXPECT_EQ(EACCES, error_of(sys::listen_seqpacket(path_)));
    EXPECT_FALSE(std::filesystem::exists(path_)) << site;
    EXPECT_TRUE(before.matches(test::take_census()));
  }
}

TEST_F(Listening, ConnectingWhereNobodyListensFails) {
  EXPECT_EQ(ENOENT, error_of(sys::connect_seqpacket(path_)));
  {
    const auto gone = sys::listen_seqpacket(path_);
  }
  EXPECT_EQ(ECONNREFUSED, error_of(sys::connect_seqpacket(path_)));
}

TEST(PeerCredentials, OfAFileAreAnError) {
  const auto pipe = sys::pipe();
  EXPECT_EQ(ENOTSOCK, error_of(sys::peer_credentials(pipe->reader.view())));
}

// --- packets ---

class Packets : public testing::Test {
 protected:
  Packets() {
    auto pair = sys::socket_pair();
    EXPECT_TRUE(pair.has_value());
    here_ = std::move(pair->first);
    there_ = std::move(pair->second);
    null_ = UniqueFd(::open("/dev/null", O_RDWR | O_CLOEXEC));
  }

  int send(std::size_t size, std::size_t fds, int flags = 0) {
    return error_of(sys::send_packet(here_.view(), Bytes(size, std::byte{9}),
                                     std::vector<FdView>(fds, null_.view()), flags));
  }
  Result<sys::ReceivedPacket> receive(std::size_t size, std::size_t max_fds, int flags = 0) {
    buffer_.assign(size, std::byte{});
    return sys::receive_packet(there_.view(), buffer_, max_fds, flags);
  }

  UniqueFd here_;
  UniqueFd there_;
  UniqueFd null_;
  Bytes buffer_;
};

TEST_F(Packets, KeepTheirBoundaries) {
  ASSERT_EQ(0, send(3, 0));
  ASSERT_EQ(0, send(5, 0));
  EXPECT_EQ(3U, receive(100, 0)->size);
  EXPECT_EQ(5U, receive(5, 0)->size);
  EXPECT_EQ(Bytes(5, std::byte{9}), buffer_);
}

TEST_F(Packets, CarryDescriptorsThatCloseOnExec) {
  const auto pipe = sys::pipe();
  const std::array<FdView, 2> sent{pipe->reader.view(), pipe->writer.view()};
  ASSERT_TRUE(sys::send_packet(here_.view(), Bytes(1), sent).has_value());
  const auto packet = receive(1, 8);
  ASSERT_TRUE(packet.has_value());
  ASSERT_EQ(2U, packet->fds.size());
  for (const UniqueFd& fd : packet->fds) EXPECT_NE(0, ::fcntl(fd.get(), F_GETFD) & FD_CLOEXEC);
  const Bytes byte(1, std::byte{7});
  EXPECT_EQ(1U, *sys::write(packet->fds[1].view(), byte)) << "the order is kept";
  Bytes into(1);
  EXPECT_EQ(1U, *sys::read(pipe->reader.view(), into));
}

TEST_F(Packets, CarryEveryNumberOfDescriptorsUpTo253) {
  const std::size_t before = test::count_fds();
  for (const std::size_t fds : {std::size_t{1}, std::size_t{2}, std::size_t{252}, kernel_max_fds}) {
    ASSERT_EQ(0, send(1, fds));
    EXPECT_EQ(fds, receive(1, fds)->fds.size());
    EXPECT_EQ(before, test::count_fds());
  }
  ASSERT_EQ(0, send(1, 2));
  EXPECT_EQ(2U, receive(1, SIZE_MAX)->fds.size()) << "a limit above the kernel's is the kernel's";
}

TEST_F(Packets, With254DescriptorsAreRefused) {
  EXPECT_EQ(EINVAL, send(1, kernel_max_fds + 1));
  EXPECT_EQ(EAGAIN, error_of(receive(1, 1, MSG_DONTWAIT))) << "nothing was sent";
}

TEST_F(Packets, WithoutBytesAreRefused) {
  EXPECT_EQ(EINVAL, send(0, 0));
  EXPECT_EQ(EINVAL, send(0, 1));
  EXPECT_EQ(EAGAIN, error_of(receive(1, 1, MSG_DONTWAIT)));
}

TEST_F(Packets, WithAClosedDescriptorAreRefused) {
  const std::array<FdView, 2> fds{null_.view(), FdView(-1)};
  EXPECT_EQ(EBADF, error_of(sys::send_packet(here_.view(), Bytes(1), fds)));
}

TEST_F(Packets, ThatAreTooLongAreAProtocolErrorAndTheirDescriptorsClosed) {
  const std::size_t before = test::count_fds();
  ASSERT_EQ(0, send(9, 4));
  EXPECT_EQ(EPROTO, error_of(receive(8, 4)));
  EXPECT_EQ(before, test::count_fds());
  ASSERT_EQ(0, send(8, 0));
  EXPECT_EQ(8U, receive(8, 4)->size) << "the next packet is not harmed";
}

TEST_F(Packets, WithMoreDescriptorsThanWantedAreAProtocolErrorAndLeakNone) {
  const std::size_t before = test::count_fds();
  // 1 of 2 and 3 of 4: the padding of the control space would have room for one more.
  for (const auto& [wanted, sent] : {std::pair<std::size_t, std::size_t>{0, 1},
                                     {1, 2},
                                     {2, 3},
                                     {3, 4},
                                     {4, 10},
                                     {0, 253},
                                     {252, 253}}) {
    ASSERT_EQ(0, send(1, sent));
    EXPECT_EQ(EPROTO, error_of(receive(1, wanted))) << wanted << " of " << sent;
    EXPECT_EQ(before, test::count_fds()) << wanted << " of " << sent;
  }
}

TEST_F(Packets, WhoseDescriptorsThisProcessCannotHoldAreAProtocolError) {
  ASSERT_EQ(0, send(1, 100));
  rlimit before = {};
  ASSERT_EQ(0, ::getrlimit(RLIMIT_NOFILE, &before));
  rlimit tight = before;
  tight.rlim_cur = 50;
  const std::size_t fds = test::count_fds();
  ASSERT_EQ(0, ::setrlimit(RLIMIT_NOFILE, &tight));
  const int error = error_of(receive(1, 253));
  ASSERT_EQ(0, ::setrlimit(RLIMIT_NOFILE, &before));
  EXPECT_EQ(EPROTO, error);
  EXPECT_EQ(fds, test::count_fds());
}

TEST_F(Packets, EndWithSizeZeroWhenThePeerCloses) {
  here_.reset();
  const auto packet = receive(8, 1);
  ASSERT_TRUE(packet.has_value());
  EXPECT_EQ(0U, packet->size);
  EXPECT_TRUE(packet->fds.empty());
}

TEST_F(Packets, AreResetWhenThePeerClosesWithoutReading) {
  ASSERT_EQ(0, error_of(sys::send_packet(there_.view(), Bytes(1), {})));
  here_.reset();
  EXPECT_EQ(ECONNRESET, error_of(receive(8, 1)));
}

TEST_F(Packets, ToAClosedPeerAreAnErrorAndNoSignal) {
  there_.reset();
  EXPECT_EQ(EPIPE, send(1, 0));
}

TEST_F(Packets, ThatWouldBlockSaySoWhenAsked) {
  EXPECT_EQ(EAGAIN, error_of(receive(8, 0, MSG_DONTWAIT)));
  int error = 0;
  int sent = 0;
  while ((error = send(64, 0, MSG_DONTWAIT)) == 0 && sent < 1'000'000) ++sent;
  EXPECT_EQ(EAGAIN, error);
  EXPECT_GT(sent, 0);
  ASSERT_TRUE(receive(64, 0).has_value());
}

TEST_F(Packets, AreReceivedWhileTheReceiverLooksForThem) {
  constexpr std::uint64_t for_ever = std::numeric_limits<std::uint64_t>::max();
  std::thread sender([this] {
    for (int i = 0; i < 100; ++i) EXPECT_EQ(0, send(16, 2));
    here_.reset();
  });
  Bytes bytes(16);
  for (int i = 0; i < 100; ++i) {
    const auto packet = sys::receive_packet(there_.view(), bytes, 2, 0, for_ever);
    ASSERT_TRUE(packet.has_value());
    EXPECT_EQ(16U, packet->size);
    EXPECT_EQ(2U, packet->fds.size());
  }
  EXPECT_EQ(0U, sys::receive_packet(there_.view(), bytes, 2, 0, for_ever).value().size);
  sender.join();
}

TEST_F(Packets, ThatComeAfterTheReceiverLookedWakeIt) {
  std::thread sender([this] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    EXPECT_EQ(0, send(16, 0));
  });
  Bytes bytes(16);
  const auto packet =
      sys::receive_packet(there_.view(), bytes, 0, 0, sys::monotonic_ns() + 1'000'000);
  sender.join();
  ASSERT_TRUE(packet.has_value());
  EXPECT_EQ(16U, packet->size);
}

TEST_F(Packets, AreSeenByPolling) {
  EXPECT_EQ(0, *sys::poll_one(there_.view(), POLLIN, 0));
  ASSERT_EQ(0, send(1, 0));
  EXPECT_EQ(POLLIN, *sys::poll_one(there_.view(), POLLIN, -1));
  here_.reset();
  EXPECT_NE(0, *sys::poll_one(there_.view(), POLLIN, 0) & POLLHUP);
}

}  // namespace
}  // namespace accelmm
