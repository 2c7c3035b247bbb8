// SPDX-License-Identifier: Apache-2.0
//
// A call whose descriptors the driver process had no room for.
#include "support/plain_host.hpp"

#include <cerrno>

#include <gtest/gtest.h>

namespace accelmm::test {
namespace {

class LostDescriptors : public testing::Test {
 protected:
  /// A call whose header says so many descriptors, none of which came.
  void lose(std::uint16_t count, std::uint16_t kind = ACCELMM_MESSAGE_IOCTL) {
    const accelmm_import args{};
    const accelmm_message_header header{.magic = ACCELMM_MAGIC,
                                        .kind = kind,
                                        .fd_count = count,
                                        .sequence = 0,
                                        .command = ACCELMM_IOCTL_IMPORT,
                                        .status = 0,
                                        .size = sizeof args};
    client.log().sent.clear();
    client.deliver_without_fds(header, std::as_bytes(std::span(&args, 1)));
  }

  PlainHost host;
  RawClient client{host};
};

TEST_F(LostDescriptors, TheCallIsRefusedAndItsSessionLivesOn) {
  client.say_hello();
  for (std::uint16_t count = 1; count <= ACCELMM_MAX_FDS; ++count) {
    lose(count);
    ASSERT_EQ(1U, client.log().sent.size());
    EXPECT_EQ(-EMFILE, client.log().sent.back().header.status);
    EXPECT_EQ(0U, client.log().sent.back().header.fd_count);
  }
  accelmm_alloc args{};
  args.size = 4096;
  EXPECT_EQ(0, client.ioctl(ACCELMM_IOCTL_ALLOC, args));
  EXPECT_TRUE(client.log().open);
}

TEST_F(LostDescriptors, WhoSaysThatThereWereNoneBreaksTheProtocol) {
  client.say_hello();
  lose(0);
  EXPECT_FALSE(client.log().open);
}

TEST_F(LostDescriptors, BeforeTheGreetingTheyEndTheConnection) {
  lose(1, ACCELMM_MESSAGE_HELLO);
  EXPECT_FALSE(client.log().open);
}

TEST_F(LostDescriptors, OnlyCallsMayHaveAny) {
  client.say_hello();
  lose(1, ACCELMM_MESSAGE_HELLO);
  EXPECT_FALSE(client.log().open);
}

}  // namespace
}  // namespace accelmm::test
