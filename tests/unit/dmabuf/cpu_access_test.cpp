// SPDX-License-Identifier: Apache-2.0
//
// What brackets do about the kernel's answers, on a host without dma-bufs. Those of real ones are in
// tests/kernel/dmabuf/fence_test.cpp.
#include "dmabuf/cpu_access.hpp"

#include "base/system.hpp"
#include "support/failing_calls.hpp"

#include <cerrno>
#include <memory>
#include <utility>

#include <gtest/gtest.h>

namespace accelmm::dmabuf {
namespace {

std::shared_ptr<CpuBrackets> brackets_of_memory() {
  return CpuBrackets::create(sys::memfd_create("no dma-buf", 4_KiB).value());
}

TEST(CpuBrackets, AreAskedForAgainSomeTimesWhereTheKernelSaysAgain) {
  const auto brackets = brackets_of_memory();
  const test::FailingSite again("dma_buf_sync", EAGAIN);
  EXPECT_EQ(Errc::try_again, brackets->begin(Access::read).error().code);
  EXPECT_GT(again.failures(), 1);
  EXPECT_LE(again.failures(), 100) << "and not for ever";
  EXPECT_FALSE(brackets->covers(Access::read));
}

TEST(CpuBrackets, ThatTheKernelRefusesAreNotOpen) {
  const auto brackets = brackets_of_memory();
  EXPECT_EQ(static_cast<Errc>(ENOTTY), brackets->begin(Access::read_write).error().code);
  EXPECT_FALSE(brackets->covers(Access::read));
  EXPECT_EQ(Errc::invalid_argument, brackets->begin(static_cast<Access>(0)).error().code);
}

TEST(CpuAccess, ToMemoryThatNoDriverIsToldOfEndsOnce) {
  CpuAccess access(nullptr, Access::read);
  EXPECT_EQ(Access::read, access.access());
  EXPECT_TRUE(access.end().has_value());
  EXPECT_EQ(Errc::invalid_argument, access.end().error().code);
}

TEST(CpuAccess, ThatWasMovedFromIsEnded) {
  CpuAccess access(nullptr, Access::write);
  CpuAccess taken(std::move(access));
  EXPECT_EQ(Errc::invalid_argument, access.end().error().code);  // NOLINT(bugprone-use-after-move)
  access = std::move(taken);
  EXPECT_EQ(Errc::invalid_argument, taken.end().error().code);  // NOLINT(bugprone-use-after-move)
  EXPECT_TRUE(access.end().has_value());
}

}  // namespace
}  // namespace accelmm::dmabuf
