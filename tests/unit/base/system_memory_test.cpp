// SPDX-License-Identifier: Apache-2.0
#include "base/system.hpp"
#include "support/census.hpp"

#include <cerrno>
#include <cstdio>
#include <string>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/utsname.h>

namespace accelmm {
namespace {

constexpr int seal_exec = 0x20;  // F_SEAL_EXEC of linux/fcntl.h, kernel 6.3; older headers lack it

bool kernel_knows_exec_seals() {
  utsname names = {};
  int major = 0;
  int minor = 0;
  if (::uname(&names) != 0 || std::sscanf(names.release, "%d.%d", &major, &minor) != 2)
    return false;
  return major > 6 || (major == 6 && minor >= 3);
}

TEST(SystemMemory, AMemfdIsSizedSealableAndClosedOnExec) {
  const auto fd = sys::memfd_create("memory", 12_KiB);
  ASSERT_TRUE(fd.has_value());
  EXPECT_EQ(12288, sys::fstat(fd->view())->st_size);
  EXPECT_NE(0, ::fcntl(fd->get(), F_GETFD) & FD_CLOEXEC);
  EXPECT_TRUE(sys::add_seals(fd->view(), F_SEAL_SHRINK).has_value());
  EXPECT_EQ(F_SEAL_SHRINK, *sys::get_seals(fd->view()) & ~seal_exec);
}

TEST(SystemMemory, AMemfdIsNeverExecutableWhereTheKernelCanSaySo) {
  if (!kernel_knows_exec_seals()) GTEST_SKIP() << "kernel older than 6.3";
  const auto fd = sys::memfd_create("memory", 4_KiB);
  ASSERT_TRUE(fd.has_value());
  EXPECT_NE(0, *sys::get_seals(fd->view()) & seal_exec);
  EXPECT_EQ(0U, sys::fstat(fd->view())->st_mode & 0111);
}

TEST(SystemMemory, AMemfdThatCannotBeMadeLeavesNothing) {
  const test::Census before = test::take_census();
  const auto too_large = sys::memfd_create("memory", ByteCount(UINT64_MAX));
  ASSERT_FALSE(too_large.has_value());
  EXPECT_EQ(Errc::overflow, too_large.error().code);
  const std::string name(250, 'n');  // 249 is the most
  const auto misnamed = sys::memfd_create(name.c_str(), 4_KiB);
  ASSERT_FALSE(misnamed.has_value());
  EXPECT_EQ(Errc::invalid_argument, misnamed.error().code);
  EXPECT_TRUE(before.matches(test::take_census()));
}

TEST(SystemMemory, SealsOfWhatIsNoMemoryFileAreAnError) {
  const auto pipe = sys::pipe();
  ASSERT_TRUE(pipe.has_value());
  EXPECT_EQ(Errc::invalid_argument, sys::get_seals(pipe->reader.view()).error().code);
  EXPECT_EQ(Errc::invalid_argument, sys::add_seals(pipe->writer.view(), F_SEAL_GROW).error().code);
}

TEST(SystemMemory, MappingReportsTheErrorsOfTheSystem) {
  const auto fd = sys::memfd_create("memory", 4_KiB);
  ASSERT_TRUE(fd.has_value());
  const auto map = [&](ByteCount length, FdView view, std::uint64_t offset) {
    return sys::mmap(nullptr, length, PROT_READ, MAP_SHARED, view, offset);
  };
  EXPECT_EQ(Errc::invalid_argument, map(0_B, fd->view(), 0).error().code);
  EXPECT_EQ(Errc::invalid_argument, map(4_KiB, fd->view(), 1).error().code);
  EXPECT_EQ(Errc::overflow, map(4_KiB, fd->view(), UINT64_MAX).error().code);
  EXPECT_EQ(EBADF, static_cast<int>(map(4_KiB, FdView(), 0).error().code));
}

TEST(SystemMemory, AdviceReportsTheErrorsOfTheSystem) {
  const auto mapped =
      sys::mmap(nullptr, 4_KiB, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, FdView(), 0);
  ASSERT_TRUE(mapped.has_value());
  EXPECT_TRUE(sys::madvise(*mapped, 4_KiB, MADV_DONTFORK).has_value());
  EXPECT_EQ(Errc::invalid_argument, sys::madvise(*mapped, 4_KiB, 4711).error().code);
  sys::munmap(*mapped, 4_KiB);
}

TEST(SystemMemoryDeathTest, UnmappingWhatMmapNeverReturnedIsAMistakeOfOurs) {
  const auto mapped =
      sys::mmap(nullptr, 4_KiB, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, FdView(), 0);
  ASSERT_TRUE(mapped.has_value());
  EXPECT_DEATH(sys::munmap(*mapped + 1, 4_KiB), "munmap");
  sys::munmap(*mapped, 4_KiB);
}

}  // namespace
}  // namespace accelmm
