// SPDX-License-Identifier: Apache-2.0
#include "base/mapping.hpp"

#include "base/system.hpp"
#include "support/census.hpp"
#include "support/failing_calls.hpp"

#include <cerrno>
#include <utility>

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

namespace accelmm {
namespace {

constexpr std::byte mark{0x66};
constexpr int read_write = PROT_READ | PROT_WRITE;

UniqueFd numbered_file() {
  auto fd = sys::memfd_create("mapping-test", 16_KiB);
  EXPECT_TRUE(fd.has_value());
  const auto all = Mapping::create(fd->view(), 0, 16_KiB, read_write);
  EXPECT_TRUE(all.has_value());
  for (std::size_t i = 0; i < all->bytes().size(); ++i)
    all->bytes()[i] = std::byte(static_cast<unsigned char>(i % 251));
  return std::move(*fd);
}

TEST(Mapping, ShowsExactlyTheBytesAskedForAtAnyOffset) {
  const UniqueFd fd = numbered_file();
  for (const std::uint64_t offset : {0U, 1U, 4095U, 4096U, 5000U})
    for (const std::uint64_t length : {1U, 10U, 4096U, 9000U}) {
      const auto mapping = Mapping::create(fd.view(), offset, ByteCount(length), PROT_READ);
      ASSERT_TRUE(mapping.has_value());
      ASSERT_EQ(length, mapping->bytes().size());
      for (std::uint64_t i = 0; i < length; ++i)
        ASSERT_EQ(std::byte(static_cast<unsigned char>((offset + i) % 251)), mapping->bytes()[i]);
    }
}

TEST(Mapping, IsSharedWithTheFile) {
  const UniqueFd fd = numbered_file();
  const auto one = Mapping::create(fd.view(), 4097, 10_B, read_write);
  const auto other = Mapping::create(fd.view(), 0, 16_KiB, PROT_READ);
  ASSERT_TRUE(one.has_value() && other.has_value());
  one->bytes()[0] = mark;
  EXPECT_EQ(mark, other->bytes()[4097]);
}

TEST(Mapping, LeavesNoAreaBehindHoweverItEnds) {
  const UniqueFd fd = numbered_file();
  const std::size_t before = test::count_maps("/memfd:mapping-test");
  {
    auto first = Mapping::create(fd.view(), 100, 5000_B, PROT_READ);
    auto second = Mapping::create(fd.view(), 0, 4_KiB, PROT_READ);
    ASSERT_TRUE(first.has_value() && second.has_value());
    EXPECT_EQ(before + 2, test::count_maps("/memfd:mapping-test"));
    *second = std::move(*first);
    EXPECT_FALSE(first->valid());
    EXPECT_EQ(before + 1, test::count_maps("/memfd:mapping-test"));
    const Mapping third = std::move(*second);
    EXPECT_EQ(5000U, third.bytes().size());
    EXPECT_EQ(before + 1, test::count_maps("/memfd:mapping-test"));
  }
  EXPECT_EQ(before, test::count_maps("/memfd:mapping-test"));
  auto last = Mapping::create(fd.view(), 0, 4_KiB, PROT_READ);
  last->reset();
  EXPECT_FALSE(last->valid());
  EXPECT_EQ(before, test::count_maps("/memfd:mapping-test"));
}

TEST(Mapping, OutlivesItsDescriptor) {
  Mapping mapping;
  EXPECT_FALSE(mapping.valid());
  mapping = std::move(*Mapping::create(numbered_file().view(), 0, 4_KiB, PROT_READ));
  EXPECT_EQ(std::byte{5}, mapping.bytes()[5]);
}

TEST(Mapping, WhatCannotBeMappedIsRefused) {
  const UniqueFd fd = numbered_file();
  const auto error = [&](std::uint64_t offset, ByteCount length) {
    const auto mapping = Mapping::create(fd.view(), offset, length, PROT_READ);
    return mapping ? Errc{} : mapping.error().code;
  };
  EXPECT_EQ(Errc::invalid_argument, error(0, 0_B));
  EXPECT_EQ(Errc::overflow, error(1, ByteCount(UINT64_MAX)));
  EXPECT_EQ(Errc::overflow, error(0, ByteCount(UINT64_MAX)));
  EXPECT_EQ(Errc::overflow, error(UINT64_MAX - 4095, 4096_B));
  EXPECT_EQ(Errc::invalid_argument, Mapping::reserve(0_B).error().code);
  EXPECT_EQ(Errc::overflow, Mapping::reserve(ByteCount(UINT64_MAX)).error().code);
  EXPECT_EQ(Errc::no_memory, Mapping::reserve(ByteCount(std::uint64_t{1} << 60)).error().code);
}

TEST(Mapping, AReservationIsOutOfReachAndTakesNoMemory) {
  const auto pipe = sys::pipe();
  const auto reserved = Mapping::reserve(64_GiB);
  ASSERT_TRUE(pipe.has_value() && reserved.has_value());
  EXPECT_EQ((64_GiB).value(), reserved->bytes().size());
  // The kernel reads it for write(2), and says EFAULT instead of stopping the process.
  for (const std::size_t at : {std::size_t{0}, reserved->bytes().size() - 1}) {
    const auto written = sys::write(pipe->writer.view(), reserved->bytes().subspan(at, 1));
    ASSERT_FALSE(written.has_value());
    EXPECT_EQ(Errc::fault, written.error().code);
  }
}

TEST(Mapping, CanBeLeftOutOfForkedChildren) {
  const UniqueFd fd = numbered_file();
  auto mapping = Mapping::create(fd.view(), 0, 16_KiB, PROT_READ);
  ASSERT_TRUE(mapping.has_value());
  {
    const test::FailingSite failing("madvise", EAGAIN);
    EXPECT_EQ(Errc::try_again, mapping->exclude_from_fork().error().code);
  }
  ASSERT_TRUE(mapping->exclude_from_fork().has_value());
  const pid_t child = ::fork();
  if (child == 0) ::_exit(static_cast<int>(test::count_maps("/memfd:mapping-test")));
  int status = 0;
  ASSERT_EQ(child, ::waitpid(child, &status, 0));
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(0, WEXITSTATUS(status));
}

}  // namespace
}  // namespace accelmm
