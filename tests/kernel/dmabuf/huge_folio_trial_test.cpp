// SPDX-License-Identifier: Apache-2.0
//
// Linux 6.12 maps huge pages of a dma-buf wrongly for its drivers: the trial must find that out, with a camera that
// captures into one.
#include "base/mapping.hpp"
#include "kernel/dmabuf/camera.hpp"
#include "kernel/dmabuf/guest.hpp"

#include <accelmm/huge_folio_trial.hpp>

#include <algorithm>

namespace accelmm::dmabuf {
namespace {

class HugeFolioTrial : public testing::Test {
 protected:
  HugeFolioTrial() {
    std::ofstream("/proc/sys/vm/nr_hugepages") << "4";
    EXPECT_TRUE(camera_.valid());
  }
  guest::Camera camera_;
};

TEST_F(HugeFolioTrial, TheKernelIsFoundOut) {
  const auto verdict = try_huge_folios(
      [&](FdView buffer, ByteCount) { return camera_.capture(buffer); }, camera_.frame());
  ASSERT_TRUE(verdict.has_value()) << verdict.error().what;
  EXPECT_EQ(HugeImportable::refused, *verdict);
}

// What the verdict is about: the same camera and base pages.
TEST_F(HugeFolioTrial, OverBasePagesEveryPageOfAFrameIsWritten) {
  const ByteCount size = *round_up(camera_.frame(), Alignment(4096));
  const auto file = guest::memfd(size);
  const auto view = Mapping::create(file.view(), 0, size, PROT_READ | PROT_WRITE).value();
  std::ranges::fill(view.bytes(), std::byte{0xa5});
  const FileRange range{file.view(), size, ByteCount(), size};
  const auto pieces = guest::udmabuf()->export_view({.ranges = std::span(&range, 1)}).value();
  ASSERT_TRUE(camera_.capture(pieces.front().fd.view()).has_value());
  std::size_t untouched = 0;
  for (std::size_t at = 0; at + 4096 <= camera_.frame().value(); at += 4096)
    untouched += std::ranges::all_of(view.bytes().subspan(at, 4096),
                                     [](std::byte byte) { return byte == std::byte{0xa5}; })
                     ? 1U
                     : 0U;
  EXPECT_EQ(0U, untouched);
}

TEST_F(HugeFolioTrial, ADriverThatWritesThemAllIsTrusted) {
  const auto verdict = try_huge_folios(
      [](FdView buffer, ByteCount length) -> Result<void> {
        const auto view = Mapping::create(buffer, 0, length, PROT_READ | PROT_WRITE);
        if (!view) return fail(view.error());
        std::ranges::fill(view->bytes(), std::byte{1});
        return {};
      },
      1_MiB);
  ASSERT_TRUE(verdict.has_value()) << verdict.error().what;
  EXPECT_EQ(HugeImportable::allowed, *verdict);
}

TEST_F(HugeFolioTrial, OnePageThatIsNotWrittenIsEnoughToRefuse) {
  const auto verdict = try_huge_folios(
      [](FdView buffer, ByteCount length) -> Result<void> {
        const auto view = Mapping::create(buffer, 0, length, PROT_READ | PROT_WRITE);
        if (!view) return fail(view.error());
        std::ranges::fill(view->bytes().first(length.value() - 4096), std::byte{1});
        return {};
      },
      1_MiB);
  ASSERT_TRUE(verdict.has_value()) << verdict.error().what;
  EXPECT_EQ(HugeImportable::refused, *verdict);
}

TEST_F(HugeFolioTrial, WithoutAPoolNothingIsShown) {
  std::ofstream("/proc/sys/vm/nr_hugepages") << "0";
  const auto verdict = try_huge_folios([](FdView, ByteCount) { return Result<void>{}; }, 1_MiB);
  ASSERT_FALSE(verdict.has_value());
  EXPECT_EQ(Errc::no_memory, verdict.error().code);
}

}  // namespace
}  // namespace accelmm::dmabuf
