// SPDX-License-Identifier: Apache-2.0
#include "base/system.hpp"
#include "support/temporary_folder.hpp"

#include <array>
#include <cerrno>
#include <span>
#include <string>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <unistd.h>

namespace accelmm {
namespace {

bool closes_on_exec(const UniqueFd& fd) {
  return (::fcntl(fd.get(), F_GETFD) & FD_CLOEXEC) != 0;
}
bool is_nonblocking(const UniqueFd& fd) {
  return (::fcntl(fd.get(), F_GETFL) & O_NONBLOCK) != 0;
}

class SystemFile : public testing::Test {
 protected:
  UniqueFd create(const std::string& path) {
    auto fd = sys::open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
    EXPECT_TRUE(fd.has_value());
    return std::move(*fd);
  }

  test::TemporaryFolder folder_;
  std::string path_ = folder_.file("file");
  std::array<std::byte, 4> bytes_{std::byte{1}, std::byte{2}, std::byte{3}, std::byte{4}};
};

TEST_F(SystemFile, EveryDescriptorIsClosedOnExec) {
  const UniqueFd fd = create(path_);
  EXPECT_TRUE(closes_on_exec(fd));
  EXPECT_TRUE(closes_on_exec(*sys::duplicate(fd.view())));
  EXPECT_TRUE(closes_on_exec(*sys::eventfd()));
  const auto pipe = sys::pipe();
  EXPECT_TRUE(closes_on_exec(pipe->reader) && closes_on_exec(pipe->writer));
}

TEST_F(SystemFile, OpeningCreatesWithTheModeAskedFor) {
  const UniqueFd fd = create(path_);
  EXPECT_EQ(0600U, sys::fstat(fd.view())->st_mode & 0777);
  EXPECT_EQ(Errc::exists, sys::open(path_, O_CREAT | O_EXCL, 0600).error().code);
  EXPECT_EQ(Errc::no_entry, sys::open(folder_.file("missing"), O_RDONLY).error().code);
}

TEST_F(SystemFile, ADuplicateIsTheSameOpenFile) {
  const UniqueFd fd = create(path_);
  const auto copy = sys::duplicate(fd.view());
  ASSERT_TRUE(copy.has_value());
  EXPECT_EQ(4U, *sys::write(copy->view(), bytes_));
  EXPECT_EQ(4, ::lseek(fd.get(), 0, SEEK_CUR)) << "the position is shared";
  EXPECT_EQ(EBADF, static_cast<int>(sys::duplicate(FdView()).error().code));
}

TEST_F(SystemFile, FlagsTellHowAFileWasOpened) {
  const UniqueFd fd = create(path_);
  EXPECT_EQ(O_RDWR, *sys::get_flags(fd.view()) & O_ACCMODE);
  const auto reader = sys::open(path_, O_RDONLY);
  EXPECT_EQ(O_RDONLY, *sys::get_flags(reader->view()) & O_ACCMODE);
}

TEST_F(SystemFile, ALockKeepsOtherOpenersOut) {
  const UniqueFd first = create(path_);
  const auto second = sys::open(path_, O_RDWR);
  ASSERT_TRUE(sys::flock(first.view(), LOCK_EX | LOCK_NB).has_value());
  EXPECT_EQ(Errc::try_again, sys::flock(second->view(), LOCK_EX | LOCK_NB).error().code);
  ASSERT_TRUE(sys::flock(first.view(), LOCK_UN).has_value());
  EXPECT_TRUE(sys::flock(second->view(), LOCK_EX | LOCK_NB).has_value());
}

TEST_F(SystemFile, FoldersAndFilesAreMadeChangedAndRemoved) {
  const std::string sub = folder_.file("sub");
  ASSERT_TRUE(sys::mkdir(sub, 0700).has_value());
  EXPECT_EQ(Errc::exists, sys::mkdir(sub, 0700).error().code);
  const UniqueFd fd = create(sub + "/file");
  ASSERT_TRUE(sys::chmod(sub + "/file", 0640).has_value());
  EXPECT_EQ(0640U, sys::fstat(fd.view())->st_mode & 0777);
  EXPECT_TRUE(sys::chown(sub + "/file", ::getuid(), ::getgid()).has_value());
  ASSERT_TRUE(sys::unlink(sub + "/file").has_value());
  EXPECT_EQ(0U, sys::fstat(fd.view())->st_nlink);
  EXPECT_EQ(Errc::no_entry, sys::unlink(sub + "/file").error().code);
  EXPECT_EQ(Errc::no_entry, sys::chmod(sub + "/file", 0600).error().code);
  EXPECT_EQ(Errc::no_entry, sys::chown(sub + "/file", 0, 0).error().code);
}

TEST_F(SystemFile, AFileSystemIsToldByItsMagic) {
  const auto memory = sys::memfd_create("magic", 4_KiB);
  EXPECT_EQ(TMPFS_MAGIC, *sys::file_system_magic(memory->view()));
  const auto process = sys::open("/proc/self/maps", O_RDONLY);
  EXPECT_EQ(PROC_SUPER_MAGIC, *sys::file_system_magic(process->view()));
}

TEST_F(SystemFile, APipeCarriesBytesWithoutBlocking) {
  const auto pipe = sys::pipe();
  ASSERT_TRUE(pipe.has_value());
  EXPECT_TRUE(is_nonblocking(pipe->reader) && is_nonblocking(pipe->writer));
  std::array<std::byte, 4> into{};
  EXPECT_EQ(Errc::try_again, sys::read(pipe->reader.view(), into).error().code);
  EXPECT_EQ(4U, *sys::write(pipe->writer.view(), bytes_));
  EXPECT_EQ(4U, *sys::read(pipe->reader.view(), into));
  EXPECT_EQ(bytes_, into);
}

TEST_F(SystemFile, AnEventfdHoldsItsCountWithoutBlocking) {
  const auto event = sys::eventfd();
  ASSERT_TRUE(event.has_value());
  std::uint64_t value = 3;
  const auto bytes = std::as_writable_bytes(std::span(&value, 1));
  EXPECT_EQ(Errc::try_again, sys::read(event->view(), bytes).error().code);
  EXPECT_EQ(8U, *sys::write(event->view(), bytes));
  value = 0;
  EXPECT_EQ(8U, *sys::read(event->view(), bytes));
  EXPECT_EQ(3U, value);
}

TEST_F(SystemFile, NonBlockingIsAddedToTheOtherFlags) {
  int ends[2];
  ASSERT_EQ(0, ::pipe2(ends, O_CLOEXEC));
  const UniqueFd reader(ends[0]);
  const UniqueFd writer(ends[1]);
  ASSERT_FALSE(is_nonblocking(reader));
  ASSERT_TRUE(sys::set_nonblocking(reader.view()).has_value());
  EXPECT_TRUE(is_nonblocking(reader));
  EXPECT_EQ(EBADF, static_cast<int>(sys::set_nonblocking(FdView()).error().code));
}

}  // namespace
}  // namespace accelmm
