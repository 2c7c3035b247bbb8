// SPDX-License-Identifier: Apache-2.0
#include "base/fork_guard.hpp"

#include "base/system.hpp"
#include "support/census.hpp"
#include "support/failing_calls.hpp"

#include <utility>
#include <vector>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace accelmm::test {
namespace {

// Runs `function` in a forked child; returns its exit status.
template <class Function>
int status_of_child(Function function) {
  const pid_t child = fork();
  if (child == 0) _exit(function());
  int status = 0;
  EXPECT_EQ(child, waitpid(child, &status, 0));
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// The page that the kernel wipes is made by the first guard of the process: this one comes first.
TEST(ForkGuard, AFailureToMakeTheFirstLeavesNothingBehind) {
  const auto before = count_fds();
  long number = 1;
  while (true) {
    auto fd = sys::eventfd();
    ASSERT_TRUE(fd);
    const FailingCall failing(number, ENOMEM);
    const auto guard = ForkGuard::adopt(std::move(*fd));
    if (guard) break;
    EXPECT_EQ(Errc::no_memory, guard.error().code);
    EXPECT_EQ(before, count_fds());
    ++number;
  }
  if (number == 1) GTEST_SKIP() << "another test made the process's first guard";
  EXPECT_EQ(3, number);  // mmap, madvise
}

TEST(ForkGuard, AForkClosesTheChildsCopy) {
  const auto guard = ForkGuard::adopt(std::move(*sys::eventfd()));
  ASSERT_TRUE(guard);
  const int number = guard->fd().get();
  EXPECT_FALSE(guard->in_forked_child());
  EXPECT_EQ(0, status_of_child([&] {
              if (!guard->in_forked_child() || guard->fd().valid()) return 1;
              return fcntl(number, F_GETFD) == -1 && errno == EBADF ? 0 : 2;
            }));
  EXPECT_FALSE(guard->in_forked_child());
  EXPECT_GE(fcntl(number, F_GETFD), 0);
}

TEST(ForkGuard, AChildMadeWithoutTheHandlersKnowsToo) {
  const auto guard = ForkGuard::adopt(std::move(*sys::eventfd()));
  ASSERT_TRUE(guard);
  const auto child = static_cast<pid_t>(syscall(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, 0));
  if (child == 0) _exit(guard->in_forked_child() ? 0 : 1);
  int status = 0;
  EXPECT_EQ(child, waitpid(child, &status, 0));
  EXPECT_EQ(0, status);
}

TEST(ForkGuard, DestructionClosesAndForgets) {
  const auto before = count_fds();
  std::vector<ForkGuard> guards;
  for (int i = 0; i < 10; ++i)
    guards.push_back(std::move(*ForkGuard::adopt(std::move(*sys::eventfd()))));
  // From the middle, the end and the beginning of the list.
  guards.erase(guards.begin() + 4);
  guards.pop_back();
  guards.erase(guards.begin());
  guards[0] = std::move(guards[1]);
  EXPECT_EQ(0, status_of_child([&] { return count_fds() == before ? 0 : 1; }));
  guards.clear();
  EXPECT_EQ(before, count_fds());
}

TEST(ForkGuard, WhatWasMadeAcrossAForkIsMadeAgain) {
  int made = 0;
  const auto guard = ForkGuard::open([&]() -> Result<UniqueFd> {
    auto fd = sys::eventfd();
    // As another thread's fork would come between making and guarding.
    if (++made < 3) {
      EXPECT_EQ(0, status_of_child([] { return 0; }));
    }
    return fd;
  });
  EXPECT_TRUE(guard);
  EXPECT_EQ(3, made);
}

TEST(ForkGuard, AFailureToMakeIsPassedOn) {
  const auto guard =
      ForkGuard::open([]() -> Result<UniqueFd> { return fail(Errc::busy, "not now"); });
  ASSERT_FALSE(guard);
  EXPECT_EQ(Errc::busy, guard.error().code);
}

}  // namespace
}  // namespace accelmm::test
