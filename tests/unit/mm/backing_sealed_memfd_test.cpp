// SPDX-License-Identifier: Apache-2.0
#include "base/mapping.hpp"
#include "base/system.hpp"
#include "mm/backing/sealed_memfd.hpp"
#include "support/census.hpp"
#include "support/temporary_folder.hpp"

#include <algorithm>
#include <cerrno>
#include <string>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

namespace accelmm {
namespace {

using test::Census;
using test::take_census;

constexpr std::byte mark{0x5a};

UniqueFd reopen(FdView fd, int flags) {
  return UniqueFd(::open(("/proc/self/fd/" + std::to_string(fd.get())).c_str(), flags | O_CLOEXEC));
}

UniqueFd raw_memfd(ByteCount size, int seals) {
  UniqueFd fd(::memfd_create("raw", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  EXPECT_EQ(0, ::ftruncate(fd.get(), static_cast<off_t>(size.value())));
  if (seals != 0) {
    EXPECT_EQ(0, ::fcntl(fd.get(), F_ADD_SEALS, seals));
  }
  return fd;
}

constexpr int fixed = F_SEAL_SHRINK | F_SEAL_GROW;

TEST(SealedMemfd, ANewFileIsZeroAndOfTheSizeAskedFor) {
  const auto memfd = SealedMemfd::create("buffer", 64_KiB);
  ASSERT_TRUE(memfd.has_value());
  EXPECT_EQ(64_KiB, memfd->size());
  EXPECT_EQ(Access::read_write, memfd->access());
  const auto view = Mapping::create(memfd->fd(), 0, memfd->size(), PROT_READ);
  ASSERT_TRUE(view.has_value());
  EXPECT_TRUE(std::ranges::all_of(view->bytes(), [](std::byte b) { return b == std::byte{}; }));
}

TEST(SealedMemfd, ASizeThatIsNotWholePagesIsRefused) {
  for (const ByteCount size : {0_B, 1_B, 4095_B, 4097_B}) {
    const auto memfd = SealedMemfd::create("buffer", size);
    ASSERT_FALSE(memfd.has_value()) << size.value();
    EXPECT_EQ(Errc::invalid_argument, memfd.error().code);
  }
}

TEST(SealedMemfd, NobodyChangesTheSizeEvenAfterReopening) {
  const auto memfd = SealedMemfd::create("buffer", 8_KiB);
  ASSERT_TRUE(memfd.has_value());
  const UniqueFd other = reopen(memfd->fd(), O_RDWR);
  ASSERT_TRUE(other.valid());
  for (const FdView fd : {memfd->fd(), other.view()}) {
    for (const off_t size : {0, 4096, 1 << 20}) {
      EXPECT_EQ(-1, ::ftruncate(fd.get(), size));
      EXPECT_EQ(EPERM, errno);
    }
  }
}

TEST(SealedMemfd, SealingLeavesNoSealToAdd) {
  auto memfd = SealedMemfd::create("buffer", 4_KiB);
  ASSERT_TRUE(memfd.has_value());
  ASSERT_TRUE(memfd->seal(Sealing::fixed_size).has_value());
  EXPECT_EQ(Access::read_write, memfd->access());
  EXPECT_EQ(-1, ::fcntl(memfd->fd().get(), F_ADD_SEALS, F_SEAL_WRITE));
  EXPECT_EQ(EPERM, errno);
}

TEST(SealedMemfd, ReadOnlySealingSparesTheOwnersMappingAndNoOther) {
  auto memfd = SealedMemfd::create("buffer", 4_KiB);
  ASSERT_TRUE(memfd.has_value());
  const auto owner = Mapping::create(memfd->fd(), 0, 4_KiB, PROT_READ | PROT_WRITE);
  ASSERT_TRUE(owner.has_value());
  ASSERT_TRUE(memfd->seal(Sealing::fixed_size_read_only).has_value());
  EXPECT_EQ(Access::read, memfd->access());

  const UniqueFd given = reopen(memfd->fd(), O_RDWR);
  EXPECT_FALSE(Mapping::create(given.view(), 0, 4_KiB, PROT_READ | PROT_WRITE).has_value());
  EXPECT_EQ(-1, ::pwrite(given.get(), &mark, 1, 0));
  EXPECT_EQ(EPERM, errno);
  const auto reader = Mapping::create(given.view(), 0, 4_KiB, PROT_READ);
  ASSERT_TRUE(reader.has_value());
  EXPECT_EQ(-1, ::mprotect(reader->bytes().data(), 4096, PROT_READ | PROT_WRITE));
  owner->bytes()[7] = mark;
  EXPECT_EQ(mark, reader->bytes()[7]);
}

TEST(SealedMemfd, ADuplicateReachesTheSameFileAndOutlivesIt) {
  UniqueFd copy;
  {
    auto memfd = SealedMemfd::create("buffer", 4_KiB);
    ASSERT_TRUE(memfd.has_value());
    ASSERT_TRUE(memfd->seal(Sealing::fixed_size).has_value());
    const auto writer = Mapping::create(memfd->fd(), 0, 4_KiB, PROT_READ | PROT_WRITE);
    ASSERT_TRUE(writer.has_value());
    writer->bytes()[0] = mark;
    auto duplicate = memfd->duplicate();
    ASSERT_TRUE(duplicate.has_value());
    copy = std::move(*duplicate);
  }
  EXPECT_NE(0, ::fcntl(copy.get(), F_GETFD) & FD_CLOEXEC);
  const auto reader = Mapping::create(copy.view(), 0, 4_KiB, PROT_READ);
  ASSERT_TRUE(reader.has_value());
  EXPECT_EQ(mark, reader->bytes()[0]);
}

TEST(SealedMemfdDeathTest, AnUnsealedFileIsNeverGivenAway) {
  const auto memfd = SealedMemfd::create("buffer", 4_KiB);
  ASSERT_TRUE(memfd.has_value());
  EXPECT_DEATH(static_cast<void>(memfd->duplicate()), "seals_ == Seals::final");
}

TEST(SealedMemfdDeathTest, SealingTwiceIsAMistakeOfOurs) {
  auto memfd = SealedMemfd::create("buffer", 4_KiB);
  ASSERT_TRUE(memfd.has_value());
  ASSERT_TRUE(memfd->seal(Sealing::fixed_size).has_value());
  EXPECT_DEATH(static_cast<void>(memfd->seal(Sealing::fixed_size)), "seals_ == Seals::open");
}

TEST(SealedMemfd, AdoptingRecognisesTheFile) {
  auto memfd = SealedMemfd::create("buffer", 12_KiB);
  const auto stranger = SealedMemfd::create("buffer", 12_KiB);
  ASSERT_TRUE(memfd.has_value() && stranger.has_value());
  ASSERT_TRUE(memfd->seal(Sealing::fixed_size).has_value());
  auto copy = memfd->duplicate();
  ASSERT_TRUE(copy.has_value());
  const auto adopted = SealedMemfd::adopt(std::move(*copy));
  ASSERT_TRUE(adopted.has_value());
  EXPECT_EQ(12_KiB, adopted->size());
  EXPECT_EQ(Access::read_write, adopted->access());
  EXPECT_EQ(memfd->identity(), adopted->identity());
  EXPECT_NE(stranger->identity(), adopted->identity());
  EXPECT_TRUE(adopted->duplicate().has_value());
}

TEST(SealedMemfd, AdoptingTellsWhatCannotBeMappedWritable) {
  const UniqueFd plain = raw_memfd(4_KiB, fixed);
  const auto read_only = SealedMemfd::adopt(reopen(plain.view(), O_RDONLY));
  ASSERT_TRUE(read_only.has_value());
  EXPECT_EQ(Access::read, read_only->access());

  for (const int seal : {F_SEAL_WRITE, F_SEAL_FUTURE_WRITE}) {
    const auto sealed = SealedMemfd::adopt(raw_memfd(4_KiB, fixed | seal));
    ASSERT_TRUE(sealed.has_value());
    EXPECT_EQ(Access::read, sealed->access());
  }
}

Errc refusal(UniqueFd fd) {
  const Census before = take_census();
  EXPECT_TRUE(fd.valid());
  const auto adopted = SealedMemfd::adopt(std::move(fd));
  EXPECT_FALSE(adopted.has_value());
  EXPECT_EQ(before.fds - 1, take_census().fds) << "a refused descriptor is closed";
  return adopted ? Errc{} : adopted.error().code;
}

TEST(SealedMemfd, WhatIsNoMemoryFileIsNotSupported) {
  const test::TemporaryFolder folder;
  int ends[2];
  ASSERT_EQ(0, ::pipe2(ends, O_CLOEXEC));
  EXPECT_EQ(Errc::not_supported, refusal(UniqueFd(ends[0])));
  EXPECT_EQ(Errc::not_supported, refusal(UniqueFd(ends[1])));
  EXPECT_EQ(Errc::not_supported,
            refusal(UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0))));
  EXPECT_EQ(Errc::not_supported, refusal(UniqueFd(::open("/", O_RDONLY | O_CLOEXEC))));
  EXPECT_EQ(Errc::not_supported, refusal(UniqueFd(::open("/dev/null", O_RDWR | O_CLOEXEC))));
  EXPECT_EQ(Errc::not_supported, refusal(UniqueFd(::open("/proc/self/maps", O_RDONLY))));
  EXPECT_EQ(Errc::not_supported, refusal(UniqueFd(::eventfd(0, EFD_CLOEXEC))));
  const UniqueFd memfd = raw_memfd(4_KiB, fixed);
  EXPECT_EQ(Errc::not_supported, refusal(reopen(memfd.view(), O_PATH)));
  EXPECT_EQ(Errc::not_supported, refusal(reopen(memfd.view(), O_WRONLY)));
}

TEST(SealedMemfd, AMemoryFileThatMayChangeItsSizeIsRefused) {
  EXPECT_EQ(Errc::invalid_argument, refusal(raw_memfd(4_KiB, 0)));
  EXPECT_EQ(Errc::invalid_argument, refusal(raw_memfd(4_KiB, F_SEAL_SHRINK)));
  EXPECT_EQ(Errc::invalid_argument, refusal(raw_memfd(4_KiB, F_SEAL_GROW)));
  EXPECT_EQ(Errc::invalid_argument, refusal(raw_memfd(4_KiB, F_SEAL_SEAL | F_SEAL_WRITE)));
}

TEST(SealedMemfd, AMemoryFileWithoutWholePagesIsRefused) {
  for (const ByteCount size : {0_B, 1_B, 4095_B, 6_KiB})
    EXPECT_EQ(Errc::invalid_argument, refusal(raw_memfd(size, fixed))) << size.value();
}

TEST(SealedMemfd, AFileOfHugePagesIsNotSupported) {
  UniqueFd fd(::memfd_create("huge", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB));
  if (!fd.valid()) GTEST_SKIP() << "this kernel makes no memfd of huge pages";
  ASSERT_EQ(0, ::ftruncate(fd.get(), 2 << 20));
  ASSERT_EQ(0, ::fcntl(fd.get(), F_ADD_SEALS, fixed));
  EXPECT_EQ(Errc::not_supported, refusal(std::move(fd)));
}

TEST(SealedMemfd, NoDescriptorIsAnInvalidArgument) {
  const auto adopted = SealedMemfd::adopt(UniqueFd());
  ASSERT_FALSE(adopted.has_value());
  EXPECT_EQ(Errc::invalid_argument, adopted.error().code);
}

}  // namespace
}  // namespace accelmm
