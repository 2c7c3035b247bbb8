// SPDX-License-Identifier: Apache-2.0
//
// Every ioctl, with structs shorter and longer than ours, and with every reserved byte set.
#include "support/plain_host.hpp"

#include <cerrno>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

struct Command {
  const char* name;
  std::uint32_t number;
  std::vector<std::size_t> reserved;  // offsets of bytes that must be zero
};

std::vector<Command> all_commands() {
  return {{"INFO", ACCELMM_IOCTL_INFO, {}},
          {"ALLOC", ACCELMM_IOCTL_ALLOC, {44, 45, 46, 47}},
          {"FREE", ACCELMM_IOCTL_FREE, {}},
          {"MAP_CPU", ACCELMM_IOCTL_MAP_CPU, {}},
          {"MAP_DEVICE", ACCELMM_IOCTL_MAP_DEVICE, {44, 45, 46, 47}},
          {"UNMAP_DEVICE", ACCELMM_IOCTL_UNMAP_DEVICE, {12, 13, 14, 15}},
          {"EXPORT", ACCELMM_IOCTL_EXPORT, {}},
          {"IMPORT", ACCELMM_IOCTL_IMPORT, {28, 29, 30, 31}},
          {"WAIT", ACCELMM_IOCTL_WAIT, {4, 5, 6, 7}},
          {"EVENTS", ACCELMM_IOCTL_EVENTS, {4, 5, 6, 7}},
          {"WATCH", ACCELMM_IOCTL_WATCH, {4, 5, 6, 7}},
          {"BACKING", ACCELMM_IOCTL_BACKING, {100, 101, 102, 103}},
          {"SHORTAGE", ACCELMM_IOCTL_SHORTAGE, {}},
          {"MAP_MEMORY", ACCELMM_IOCTL_MAP_MEMORY, {36, 37, 38, 39}},
          {"driver's own", PLAIN_IOCTL_JOB, {8, 9, 10, 11}}};
}

std::uint32_t with_size(std::uint32_t command, std::size_t size) {
  const auto bits = static_cast<std::uint32_t>(_IOC_SIZEMASK) << _IOC_SIZESHIFT;
  return (command & ~bits) | static_cast<std::uint32_t>(size << _IOC_SIZESHIFT);
}

// What a call of only zeros is answered with, by a caller whose struct is this long.
std::int32_t call_with_zeros(RawClient& client, const Command& command, std::size_t size,
                             KeptConnection::Packet* reply = nullptr) {
  const std::vector<std::byte> zeros(size);
  return client.call(with_size(command.number, size), zeros, reply);
}

class IoctlSizes : public testing::TestWithParam<Command> {
 protected:
  IoctlSizes() : client(host) { client.say_hello(); }
  PlainHost host;
  RawClient client;
};

INSTANTIATE_TEST_SUITE_P(Each, IoctlSizes, testing::ValuesIn(all_commands()));

TEST_P(IoctlSizes, AShorterStructIsExtendedWithZeros) {
  const Command& command = GetParam();
  const std::size_t known = _IOC_SIZE(command.number);
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{4}, known - 1}) {
    // A struct of zeros means the same at any length, except to calls that make something new each time.
    KeptConnection::Packet reply{};
    const std::int32_t status = call_with_zeros(client, command, size, &reply);
    EXPECT_EQ(call_with_zeros(client, command, known), status) << command.name << " " << size;
    if (status == 0) {
      EXPECT_EQ(size, reply.payload.size()) << command.name;
    }
  }
}

TEST_P(IoctlSizes, ALongerStructIsTakenIfItsTailIsZero) {
  const Command& command = GetParam();
  const std::size_t known = _IOC_SIZE(command.number);
  for (const std::size_t size : {known + 1, known + 8, std::size_t{16383}}) {
    KeptConnection::Packet reply{};
    const std::int32_t status = call_with_zeros(client, command, size, &reply);
    EXPECT_EQ(call_with_zeros(client, command, known), status) << command.name << " " << size;
    if (status != 0) continue;
    ASSERT_EQ(size, reply.payload.size());
    for (std::size_t i = known; i < size; ++i) EXPECT_EQ(std::byte{0}, reply.payload[i]);
  }
}

TEST_P(IoctlSizes, ALongerStructWithANonZeroTailIsE2BIG) {
  const Command& command = GetParam();
  const std::size_t known = _IOC_SIZE(command.number);
  for (const std::size_t size : {known + 1, known + 8, std::size_t{16383}}) {
    for (const std::size_t at : {known, size - 1}) {
      std::vector<std::byte> args(size);
      args[at] = std::byte{1};
      EXPECT_EQ(-E2BIG, client.call(with_size(command.number, size), args)) << command.name;
    }
  }
}

TEST_P(IoctlSizes, AStructThatIsNotAsLongAsItsCommandSaysIsEINVAL) {
  const Command& command = GetParam();
  const std::size_t known = _IOC_SIZE(command.number);
  for (const std::size_t size : {known - 1, known + 1}) {
    const std::vector<std::byte> args(size);
    EXPECT_EQ(-EINVAL, client.call(command.number, args)) << command.name;
  }
}

TEST_P(IoctlSizes, ANonZeroReservedByteIsEINVAL) {
  const Command& command = GetParam();
  for (const std::size_t at : command.reserved) {
    for (unsigned bit = 0; bit < 8; ++bit) {
      std::vector<std::byte> args(_IOC_SIZE(command.number));
      args[at] = static_cast<std::byte>(1U << bit);
      EXPECT_EQ(-EINVAL, client.call(command.number, args)) << command.name << " byte " << at;
    }
  }
}

TEST_P(IoctlSizes, AnotherDirectionOrTypeIsAnotherIoctl) {
  const Command& command = GetParam();
  std::vector<std::byte> args(_IOC_SIZE(command.number));
  for (std::uint32_t direction = 0; direction < 4; ++direction) {
    const std::uint32_t other =
        (command.number & ~(3U << _IOC_DIRSHIFT)) | (direction << _IOC_DIRSHIFT);
    if (other == command.number) continue;
    EXPECT_EQ(-ENOTTY, client.call(other, args)) << command.name;
  }
  EXPECT_EQ(-ENOTTY, client.call(command.number ^ (1U << _IOC_TYPESHIFT), args));
}

}  // namespace
}  // namespace accelmm::test
