// SPDX-License-Identifier: Apache-2.0
//
// What a region knows again, with memory files; tests/kernel/sharing has it with dma-bufs.
#include "devices/region.hpp"
#include "support/census.hpp"
#include "support/failing_calls.hpp"

#include <array>

#include <gtest/gtest.h>

namespace accelmm::devices {
namespace {

using accelmm::test::count_fds;

class RegionSharing : public testing::Test {
 protected:
  [[nodiscard]] static std::shared_ptr<Region> make_region() {
    return Region::create({.domain = Domain::host, .size = 64_MiB}).value();
  }
  [[nodiscard]] std::shared_ptr<Allocation> allocate(
      ByteCount size, Region::CpuView view = Region::CpuView::read_write) {
    return region_->allocate({size, Region::Contiguity::contiguous, view}, owner_).value();
  }
  [[nodiscard]] std::vector<dmabuf::Piece> export_whole(Allocation& allocation) {
    return region_
        ->export_view(allocation, ByteCount(), allocation.size(),
                      {.access = allocation.cpu_access()})
        .value();
  }
  [[nodiscard]] std::shared_ptr<Allocation> import(std::vector<dmabuf::Piece> pieces,
                                                   RegionOwner& owner) {
    return owner.region().import(dmabuf::import_view(std::move(pieces)).value(), owner).value();
  }

  std::shared_ptr<Region> region_ = make_region();
  std::shared_ptr<Account> account_ = std::make_shared<Account>(Account::Options{});
  RegionOwner owner_{region_, account_};
};

TEST_F(RegionSharing, WhatComesBackWholeIsWhatItWas) {
  const auto made = allocate(64_KiB);
  EXPECT_EQ(made, import(export_whole(*made), owner_));
  EXPECT_EQ(64_KiB, account_->used());
}

TEST_F(RegionSharing, AReadOnlyExportThatComesBackGrantsNoMore) {
  const auto made = allocate(64_KiB, Region::CpuView::read_only);
  ASSERT_EQ(Access::read_write, made->device_access());
  const auto back = import(export_whole(*made), owner_);
  EXPECT_NE(made, back);
  EXPECT_EQ(Access::read, back->device_access());
}

TEST_F(RegionSharing, APartOfAFileIsNotTheWholeOfIt) {
  const auto made = allocate(64_KiB);
  auto pieces = export_whole(*made);
  pieces.front().length = 32_KiB;
  const auto part = import(std::move(pieces), owner_);
  EXPECT_NE(made, part);
  EXPECT_EQ(32_KiB, part->size());
}

TEST_F(RegionSharing, TheSameImportTwiceIsOneUntilItsLastHolderEnds) {
  const auto elsewhere = make_region();
  RegionOwner theirs(elsewhere, account_);
  auto made = allocate(64_KiB);
  auto first = import(export_whole(*made), theirs);
  auto second = import(export_whole(*made), theirs);
  EXPECT_EQ(first, second);
  EXPECT_EQ(64_KiB, elsewhere->used());
  first.reset();
  EXPECT_EQ(64_KiB, elsewhere->used());
  second.reset();
  EXPECT_EQ(ByteCount(), elsewhere->used());
  EXPECT_EQ(ByteCount(64 << 10), import(export_whole(*made), theirs)->size());
}

TEST_F(RegionSharing, ImportsOfSeveralPiecesAreOneRangeInOrder) {
  const auto elsewhere = make_region();
  RegionOwner theirs(elsewhere, account_);
  auto first = allocate(8_KiB);
  auto second = allocate(16_KiB);
  const std::array mark{std::byte{1}};
  ASSERT_TRUE(region_->window().write(first->extents()[0].offset, mark).has_value());
  const std::array other{std::byte{2}};
  ASSERT_TRUE(region_->window().write(second->extents()[0].offset, other).has_value());
  auto pieces = export_whole(*second);
  pieces.push_back(std::move(export_whole(*first).front()));
  {
    const auto joined = import(std::move(pieces), theirs);
    EXPECT_EQ(24_KiB, joined->size());
    ASSERT_EQ(1U, joined->extents().size());
    const RegionOffset at = joined->extents().front().offset;
    std::array<std::byte, 1> byte{};
    ASSERT_TRUE(elsewhere->window().read(at, byte).has_value());
    EXPECT_EQ(std::byte{2}, byte[0]);
    ASSERT_TRUE(elsewhere->window().read(at + 16_KiB, byte).has_value());
    EXPECT_EQ(std::byte{1}, byte[0]);
    // Over the seam CPUs need two mappings.
    EXPECT_TRUE(joined->file_range(16_KiB, 8_KiB).has_value());
    EXPECT_EQ(Errc::not_supported, joined->file_range(12_KiB, 8_KiB).error().code);
  }
  EXPECT_EQ(0U, elsewhere->window().placements());
  EXPECT_EQ(ByteCount(), elsewhere->used());
}

// Emptying a place can fail, and is tried again: nothing is free before all of it is.
TEST_F(RegionSharing, AnImportWhosePlacesCannotBeEmptiedIsGivenBackWhenTheyCan) {
  const auto elsewhere = make_region();
  RegionOwner theirs(elsewhere, account_);
  auto first = allocate(8_KiB);
  auto second = allocate(16_KiB);
  auto pieces = export_whole(*second);
  pieces.push_back(std::move(export_whole(*first).front()));
  auto joined = import(std::move(pieces), theirs);
  {
    const test::FailingSite failing("mmap", ENOMEM);
    joined.reset();
    ASSERT_GT(failing.failures(), 0);
  }
  EXPECT_EQ(2U, elsewhere->window().pending_removals());
  EXPECT_EQ(24_KiB, elsewhere->used());
  elsewhere->settle();
  EXPECT_EQ(0U, elsewhere->window().pending_removals());
  EXPECT_EQ(ByteCount(), elsewhere->used());
}

TEST_F(RegionSharing, TheKthCallOfAnImportFailingLeavesNothing) {
  const auto elsewhere = make_region();
  RegionOwner theirs(elsewhere, account_);
  auto first = allocate(8_KiB);
  auto second = allocate(16_KiB);
  const std::size_t fds = count_fds();
  bool succeeded = false;
  for (long k = 1; k < 60 && !succeeded; ++k) {
    auto pieces = export_whole(*second);
    pieces.push_back(std::move(export_whole(*first).front()));
    {
      const test::FailingCall failing(k, ENOMEM);
      auto view = dmabuf::import_view(std::move(pieces));
      if (view) {
        const auto joined = elsewhere->import(std::move(*view), theirs);
        succeeded = failing.calls() < k;
      }
    }
    elsewhere->settle();
    ASSERT_EQ(ByteCount(), elsewhere->used()) << k;
    ASSERT_EQ(fds, count_fds()) << k;
  }
  EXPECT_TRUE(succeeded);
}

TEST_F(RegionSharing, ImportsArePassedOnWholeAsTheyCame) {
  const auto elsewhere = make_region();
  RegionOwner theirs(elsewhere, account_);
  auto made = allocate(64_KiB);
  const auto taken = import(export_whole(*made), theirs);
  const auto pieces =
      elsewhere->export_view(*taken, ByteCount(), 64_KiB, {.access = Access::read_write}).value();
  EXPECT_EQ(made, import(
                      [&] {
                        std::vector<dmabuf::Piece> copies;
                        for (const auto& piece : pieces)
                          copies.push_back(
                              {duplicate(piece.fd.view()).value(), piece.offset, piece.length});
                        return copies;
                      }(),
                      owner_));
  EXPECT_EQ(Errc::not_supported,
            elsewhere->export_view(*taken, ByteCount(), 4_KiB, {}).error().code);
}

}  // namespace
}  // namespace accelmm::devices
