// SPDX-License-Identifier: Apache-2.0
#include "base/system.hpp"

#include <array>
#include <cerrno>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <unistd.h>

namespace accelmm {
namespace {

constexpr ByteCount size = 64_KiB;
constexpr std::size_t page = 4096;

/// A memory file of 16 pages that nobody has touched, mapped.
class SystemPages : public testing::Test {
 protected:
  SystemPages()
      : fd_(std::move(*sys::memfd_create("pages", size))),
        place_(*sys::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.view(), 0)) {}
  ~SystemPages() override { sys::munmap(place_, size); }

  [[nodiscard]] std::uint64_t taken() const {
    return static_cast<std::uint64_t>(sys::fstat(fd_.view())->st_blocks) * 512;
  }

  UniqueFd fd_;
  std::byte* place_;
};

TEST_F(SystemPages, PopulatingTakesAllPagesAndKeepsTheirContents) {
  place_[page] = std::byte{7};
  ASSERT_TRUE(sys::populate(place_, size).has_value());
  EXPECT_EQ(size.value(), taken());
  EXPECT_EQ(std::byte{7}, place_[page]);
}

TEST_F(SystemPages, PopulatingWhatCannotBeWrittenIsAnErrorAndNoSignal) {
  const auto read_only = sys::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd_.view(), 0);
  ASSERT_TRUE(read_only.has_value());
  EXPECT_FALSE(sys::populate(*read_only, size).has_value());
  sys::munmap(*read_only, size);
  EXPECT_EQ(0U, taken());
}

TEST_F(SystemPages, TheNodeOfAPageIsKnownOnceItIsThere) {
  place_[0] = std::byte{1};
  std::array<void*, 2> pages{place_, place_ + page};
  std::array<int, 2> nodes{-1, 1};
  const auto told = sys::nodes_of_pages(pages, nodes);
  if (!told && told.error().code == static_cast<Errc>(ENOSYS))
    GTEST_SKIP() << "kernel without nodes";
  ASSERT_TRUE(told.has_value());
  EXPECT_GE(nodes[0], 0);
  EXPECT_EQ(-ENOENT, nodes[1]);
}

TEST_F(SystemPages, ANodeThatDoesNotExistIsRefused) {
  const auto bound = sys::mbind(place_, size, MPOL_BIND, std::uint64_t{1} << 63);
  ASSERT_FALSE(bound.has_value());
}

TEST_F(SystemPages, AnOrdinaryPageIsNotHuge) {
  place_[0] = std::byte{1};
  const auto pagemap = sys::open("/proc/self/pagemap", O_RDONLY);
  ASSERT_TRUE(pagemap.has_value());
  const auto huge = sys::is_huge_page(pagemap->view(), place_ + 5);
  if (!huge && huge.error().code == Errc::unknown_ioctl) GTEST_SKIP() << "kernel before 6.7";
  ASSERT_TRUE(huge.has_value()) << static_cast<int>(huge.error().code);
  EXPECT_FALSE(*huge);
  EXPECT_FALSE(*sys::is_huge_page(pagemap->view(), place_ + page)) << "no page at all";
}

TEST_F(SystemPages, SeekingFindsWhatWasWritten) {
  place_[3 * page] = std::byte{1};
  EXPECT_EQ(3 * page, *sys::seek(fd_.view(), 0, SEEK_DATA));
  EXPECT_EQ(4 * page, *sys::seek(fd_.view(), 3 * page, SEEK_HOLE));
  EXPECT_EQ(ENXIO, static_cast<int>(sys::seek(fd_.view(), 4 * page, SEEK_DATA).error().code));
}

TEST_F(SystemPages, WhatIsNoMappingIsNotLocked) {
  EXPECT_TRUE(sys::lock_on_fault(place_, size).has_value());
  const auto gone = sys::mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, FdView(), 0);
  sys::munmap(*gone, size);
  EXPECT_EQ(Errc::no_memory, sys::lock_on_fault(*gone, size).error().code);
}

}  // namespace
}  // namespace accelmm
