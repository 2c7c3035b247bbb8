// SPDX-License-Identifier: Apache-2.0
#include "support/census.hpp"

#include <accelmm/fd.hpp>

#include <cerrno>
#include <utility>

#include <fcntl.h>
#include <gtest/gtest.h>

namespace accelmm {
namespace {

UniqueFd open_null() {
  return UniqueFd(::open("/dev/null", O_RDWR | O_CLOEXEC));
}

bool is_open(int fd) {
  return ::fcntl(fd, F_GETFD) >= 0;
}

TEST(UniqueFd, IsClosedAtTheEndOfItsScope) {
  int number = -1;
  {
    const UniqueFd fd = open_null();
    number = fd.get();
    EXPECT_TRUE(fd.valid());
    EXPECT_TRUE(is_open(number));
  }
  EXPECT_FALSE(is_open(number));
}

TEST(UniqueFd, MovingLeavesOneOwner) {
  const std::size_t before = test::count_fds();
  {
    UniqueFd first = open_null();
    const int number = first.get();
    UniqueFd second = std::move(first);
    EXPECT_EQ(number, second.get());
    UniqueFd third = open_null();
    third = std::move(second);
    EXPECT_EQ(number, third.get());
    EXPECT_EQ(before + 1, test::count_fds()) << "what third held is closed";
  }
  EXPECT_EQ(before, test::count_fds());
}

TEST(UniqueFd, MovingToItselfKeepsTheDescriptor) {
  UniqueFd fd = open_null();
  UniqueFd& same = fd;
  fd = std::move(same);
  EXPECT_TRUE(is_open(fd.get()));
}

TEST(UniqueFd, ReleasingGivesTheDescriptorUpWithoutClosingIt) {
  UniqueFd fd = open_null();
  const int number = fd.release();
  EXPECT_FALSE(fd.valid());
  EXPECT_TRUE(is_open(number));
  const UniqueFd again(number);
}

TEST(UniqueFd, ResetClosesTheOldAndTakesTheNew) {
  UniqueFd fd = open_null();
  const int old = fd.get();
  const int number = open_null().release();
  fd.reset(number);
  EXPECT_FALSE(is_open(old));
  EXPECT_EQ(number, fd.get());
  fd.reset();
  EXPECT_FALSE(is_open(number));
  EXPECT_FALSE(fd.valid());
}

TEST(UniqueFd, ErrnoSurvivesAFailingClose) {
  errno = ENOTTY;
  {
    const UniqueFd never_open(1 << 20);
  }
  EXPECT_EQ(ENOTTY, errno);
}

}  // namespace
}  // namespace accelmm
