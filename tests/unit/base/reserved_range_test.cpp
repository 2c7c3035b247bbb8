// SPDX-License-Identifier: Apache-2.0
#include "base/reserved_range.hpp"

#include "base/fork_mark.hpp"
#include "base/system.hpp"
#include "support/census.hpp"
#include "support/failing_calls.hpp"

#include <cerrno>
#include <cstdint>
#include <utility>

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

namespace accelmm {
namespace {

constexpr Alignment two_mib(2 << 20);

TEST(ReservedRange, BeginsAtAMultipleOfTheAlignment) {
  for (unsigned log2 = 12; log2 < 32; ++log2) {
    const Alignment alignment(std::uint64_t{1} << log2);
    const auto range = ReservedRange::create(64_KiB, alignment);
    ASSERT_TRUE(range);
    EXPECT_TRUE(alignment.divides(reinterpret_cast<std::uintptr_t>(range->base())));
  }
}

TEST(ReservedRange, ShowsAFileWhereItWasPlacedUntilItIsRemoved) {
  const auto fd = sys::memfd_create("range-test", 16_KiB);
  auto range = ReservedRange::create(1_MiB, two_mib);
  ASSERT_TRUE(fd && range);
  const Extent extent{.offset = RegionOffset(8192), .length = 8_KiB};
  ASSERT_TRUE(range->place(extent, fd->view(), 4096, Access::read_write));
  range->base()[8192] = std::byte{9};
  std::byte seen{};
  ASSERT_EQ(1, ::pread(fd->get(), &seen, 1, 4096));
  EXPECT_EQ(std::byte{9}, seen);
  EXPECT_EQ(1U, test::count_maps("/memfd:range-test"));
  ASSERT_TRUE(range->remove(extent));
  EXPECT_EQ(0U, test::count_maps("/memfd:range-test"));
  EXPECT_DEATH(static_cast<void>(*static_cast<volatile std::byte*>(range->base() + 8192)), "");
}

TEST(ReservedRange, IsGoneWhenItEndsHoweverItWasMoved) {
  const auto before = test::count_mapped_bytes();
  {
    auto range = ReservedRange::create(ByteCount(std::uint64_t{1} << 40), two_mib);
    ASSERT_TRUE(range);
    const ReservedRange other = std::move(*range);
  }
  EXPECT_LT(test::count_mapped_bytes(), before + (std::uint64_t{1} << 39));
}

TEST(ReservedRange, RefusesWhatItCannotBe) {
  EXPECT_EQ(Errc::invalid_argument, ReservedRange::create(0_B, two_mib).error().code);
  EXPECT_EQ(Errc::overflow,
            ReservedRange::create(ByteCount(~std::uint64_t{0}), two_mib).error().code);
  const test::FailingSite failing("mmap", ENOMEM);
  EXPECT_EQ(Errc::no_memory, ReservedRange::create(1_MiB, two_mib).error().code);
}

TEST(ReservedRange, AForkedChildHasNoPieceAndUnmapsNothing) {
  const auto fd = sys::memfd_create("range-test", 16_KiB);
  auto range = ReservedRange::create(1_MiB, two_mib);
  ASSERT_TRUE(fd && range);
  ASSERT_TRUE(
      range->place({.offset = RegionOffset(), .length = 8_KiB}, fd->view(), 0, Access::read_write));
  const pid_t child = ::fork();
  if (child == 0) {
    const std::size_t seen = test::count_maps("/memfd:range-test");
    void* const own = sys::mmap(range->base(), 4_KiB, 3, 0x32, FdView(), 0).value();
    {
      const ReservedRange ended = std::move(*range);
    }
    *static_cast<volatile char*>(own) = 1;
    ::_exit(seen == 0 ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(child, ::waitpid(child, &status, 0));
  EXPECT_EQ(0, status);
}

TEST(ForkMark, IsWipedInAForkedChild) {
  auto mark = ForkMark::create();
  ASSERT_TRUE(mark);
  EXPECT_FALSE(mark->in_forked_child());
  EXPECT_EQ(1U, mark->word().load());
  const pid_t child = ::fork();
  if (child == 0) {
    const bool told = mark->in_forked_child();
    {
      const ForkMark ended = std::move(*mark);
    }
    ::_exit(told ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(child, ::waitpid(child, &status, 0));
  EXPECT_EQ(0, status);
  EXPECT_FALSE(mark->in_forked_child());
}

TEST(ForkMark, EachCallMayFail) {
  const auto before = test::count_mapped_bytes();
  for (long k = 1; k <= 2; ++k) {
    const test::FailingCall failing(k, ENOMEM);
    EXPECT_EQ(Errc::no_memory, ForkMark::create().error().code) << k;
  }
  EXPECT_LE(test::count_mapped_bytes(), before + (1 << 20));
}

}  // namespace
}  // namespace accelmm
