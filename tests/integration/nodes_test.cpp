// SPDX-License-Identifier: Apache-2.0
//
// The two files of a device: their names, numbers, owners and modes, and how a session begins on them.
#include "support/npu_host.hpp"

#include <cstring>
#include <filesystem>
#include <fstream>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

namespace accelmm::test {
namespace {

struct stat status_of(const std::string& path) {
  struct stat status{};
  EXPECT_EQ(0, stat(path.c_str(), &status)) << path;
  return status;
}

/// A connection below the client library: what it sends is the test's.
class RawSocket {
 public:
  explicit RawSocket(const std::string& path)
      : fd_(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    EXPECT_EQ(0, connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address));
  }
  void say(const accelmm_message_header& header, const accelmm_hello& hello) {
    std::byte packet[sizeof header + sizeof hello];
    std::memcpy(packet, &header, sizeof header);
    std::memcpy(packet + sizeof header, &hello, sizeof hello);
    EXPECT_EQ(static_cast<ssize_t>(sizeof packet),
              send(fd_.get(), packet, sizeof packet, MSG_NOSIGNAL));
  }
  /// The status of the reply; 1 when the peer hung up instead.
  std::int32_t status(accelmm_hello* hello = nullptr) {
    std::byte packet[256];
    const ssize_t size = recv(fd_.get(), packet, sizeof packet, 0);
    accelmm_message_header header{};
    if (size < static_cast<ssize_t>(sizeof header)) return 1;
    std::memcpy(&header, packet, sizeof header);
    if (hello != nullptr && header.status == 0)
      std::memcpy(hello, packet + sizeof header, sizeof *hello);
    return header.status;
  }
  [[nodiscard]] bool hangs_up_within(int timeout_ms) const {
    pollfd polled{fd_.get(), POLLRDHUP, 0};
    return poll(&polled, 1, timeout_ms) == 1;
  }

 private:
  UniqueFd fd_;
};

accelmm_message_header hello_header() {
  accelmm_message_header header{};
  header.magic = ACCELMM_MAGIC;
  header.kind = ACCELMM_MESSAGE_HELLO;
  header.sequence = 1;
  header.size = sizeof(accelmm_hello);
  return header;
}

accelmm_hello hello_of(std::uint16_t major, std::uint16_t minor) {
  accelmm_hello hello{};
  hello.major = major;
  hello.minor = minor;
  return hello;
}

TEST(Nodes, HaveTheNamesOwnerAndModesOfTheDescription) {
  NpuHost host;
  DeviceDescription description = sim::npu_description({});
  description.permissions = {
      .uid = getuid(), .gid = getgid(), .compute_mode = 0640, .control_mode = 0604};
  value(host.runtime().register_device(description, value(sim::make_npu_driver({}))));
  const auto compute = status_of(host.directory() + "/accel0");
  const auto control = status_of(host.directory() + "/accel_controlD0");
  EXPECT_TRUE(S_ISSOCK(compute.st_mode) && S_ISSOCK(control.st_mode));
  EXPECT_EQ(0640U, compute.st_mode & 07777U);
  EXPECT_EQ(0604U, control.st_mode & 07777U);
  EXPECT_EQ(getuid(), compute.st_uid);
  EXPECT_EQ(getgid(), compute.st_gid);
  value(host.runtime().remove_device(0));
  EXPECT_FALSE(std::filesystem::exists(host.directory() + "/accel0"));
  EXPECT_FALSE(std::filesystem::exists(host.directory() + "/accel_controlD0"));
}

TEST(Nodes, OfTwoDriverProcessesShareNoNumber) {
  const TemporaryFolder folder;
  const auto first = value(Runtime::create({.directory = folder.path()}));
  const auto second = value(Runtime::create({.directory = folder.path()}));
  const auto add = [](Runtime& runtime) {
    return value(
        runtime.register_device(sim::npu_description({}), value(sim::make_npu_driver({}))));
  };
  EXPECT_EQ(0U, add(*first));
  EXPECT_EQ(1U, add(*second));
  EXPECT_EQ(2U, add(*first));
  value(first->remove_device(0));
  EXPECT_EQ(0U, add(*second));
}

TEST(Nodes, ThatAreStaleAreReplaced) {
  NpuHost host;
  {
    std::ofstream(host.directory() + "/accel0") << "left behind";
  }
  EXPECT_EQ(0U, host.add());
  EXPECT_TRUE(host.try_connect(0));
}

TEST(Nodes, GreetASessionWithTheVersionThatWillBeSpoken) {
  NpuHost host;
  host.add();
  RawSocket newer(host.directory() + "/accel0");
  newer.say(hello_header(), hello_of(ACCELMM_PROTOCOL_MAJOR, ACCELMM_PROTOCOL_MINOR + 7));
  accelmm_hello reply{};
  EXPECT_EQ(0, newer.status(&reply));
  EXPECT_EQ(ACCELMM_PROTOCOL_MAJOR, reply.major);
  EXPECT_EQ(ACCELMM_PROTOCOL_MINOR, reply.minor);
  EXPECT_EQ(static_cast<std::uint32_t>(ACCELMM_NODE_COMPUTE), reply.node);
  EXPECT_NE(0U, reply.session);
}

TEST(Nodes, RefuseAnotherMajorVersionAndHangUp) {
  NpuHost host;
  host.add();
  RawSocket other(host.directory() + "/accel0");
  other.say(hello_header(), hello_of(ACCELMM_PROTOCOL_MAJOR + 1, 0));
  EXPECT_EQ(-EPROTO, other.status());
  EXPECT_TRUE(other.hangs_up_within(20'000));
}

TEST(Nodes, HangUpOnWhatIsNoHello) {
  NpuHost host;
  host.add();
  for (int mutation = 0; mutation < 5; ++mutation) {
    accelmm_message_header header = hello_header();
    if (mutation == 0) header.magic ^= 1;
    if (mutation == 1) header.kind = ACCELMM_MESSAGE_IOCTL;
    if (mutation == 2) header.size -= 1;
    if (mutation == 3) header.fd_count = 1;
    if (mutation == 4) header.status = -1;
    RawSocket bad(host.directory() + "/accel0");
    bad.say(header, hello_of(ACCELMM_PROTOCOL_MAJOR, 0));
    EXPECT_EQ(1, bad.status()) << mutation;
  }
  EXPECT_TRUE(host.try_connect(0));
}

TEST(Nodes, HangUpOnAPeerThatSaysNothing) {
  NpuHost host;
  host.add();
  const RawSocket silent(host.directory() + "/accel0");
  EXPECT_TRUE(silent.hangs_up_within(20'000));
}

TEST(Nodes, AreRefusedToADescriptionThatContradictsItself) {
  NpuHost host;
  const auto refused = [&](auto change) {
    DeviceDescription description = sim::npu_description({});
    change(description);
    return code(host.runtime().register_device(description, value(sim::make_npu_driver({}))));
  };
  EXPECT_EQ(Errc::invalid_argument, refused([](auto& d) { d.driver_name.clear(); }));
  EXPECT_EQ(Errc::invalid_argument, refused([](auto& d) { d.driver_name.assign(32, 'x'); }));
  EXPECT_EQ(Errc::invalid_argument, refused([](auto& d) { d.mmu.reset(); }));
  EXPECT_EQ(Errc::invalid_argument, refused([](auto& d) { d.memory.reset(); }));
  EXPECT_EQ(Errc::invalid_argument, refused([](auto& d) { d.memory->size = 4097_B; }));
  EXPECT_EQ(Errc::invalid_argument,
            refused([](auto& d) { d.memory->private_size = d.memory->size; }));
  EXPECT_EQ(Errc::invalid_argument, refused([](auto& d) { d.mmu->address_spaces = 0; }));
  EXPECT_EQ(Errc::invalid_argument, refused([](auto& d) { d.session_quota.buffers = 0; }));
  EXPECT_EQ(0U, host.add());
}

TEST(Nodes, AreAtMost256AndTheirNumbersAreUsedAgain) {
  /// A device that costs nothing: no memory, no MMU.
  class BareDriver final : public Driver {
   public:
    void probe(Device&, Completion done) override { done({}); }
    void remove(Device&) noexcept override {}
    void stop(Session&, Completion done) override { done({}); }
  };
  const TemporaryFolder folder;
  const auto runtime = value(Runtime::create({.directory = folder.path()}));
  const auto add = [&] {
    DeviceDescription description;
    description.driver_name = "bare";
    return runtime->register_device(description, std::make_unique<BareDriver>());
  };
  for (std::uint32_t number = 0; number < max_devices; ++number) ASSERT_EQ(number, value(add()));
  EXPECT_EQ(Errc::busy, code(add()));
  value(runtime->remove_device(77));
  EXPECT_EQ(77U, value(add()));
}

}  // namespace
}  // namespace accelmm::test
