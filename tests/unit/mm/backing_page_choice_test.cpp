// SPDX-License-Identifier: Apache-2.0
//
// Which kinds of pages are tried, and which a policy refuses.
#include "mm/backing/huge_pages.hpp"
#include "mm/backing/memory_window.hpp"
#include "support/failing_calls.hpp"

#include <cstdint>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace accelmm {
namespace {

using enum PageSize;
using test::FailingSite;

std::vector<PageSize> candidates(PageSize wanted, BackingRule rule) {
  const auto span = page_candidates(wanted, rule);
  return {span.begin(), span.end()};
}

TEST(PageChoice, TheNextSmallerKindComesNext) {
  const auto effort = BackingRule::best_effort;
  EXPECT_EQ((std::vector{huge_1g, huge_2m, transparent, base}), candidates(huge_1g, effort));
  EXPECT_EQ((std::vector{huge_2m, transparent, base}), candidates(huge_2m, effort));
  EXPECT_EQ((std::vector{transparent, base}), candidates(transparent, effort));
  EXPECT_EQ((std::vector{base}), candidates(base, effort));
}

TEST(PageChoice, AnExactRequestHasOneCandidate) {
  for (const PageSize pages : {huge_1g, huge_2m, transparent, base})
    EXPECT_EQ((std::vector{pages}), candidates(pages, BackingRule::exact));
}

Errc verdict(PageSize pages, Importable importable, Access outside, const BackingPolicy& policy) {
  const auto checked = check_pages(pages, importable, outside, policy);
  return checked ? Errc{} : checked.error().code;
}

TEST(PageChoice, PoolsAreForWhomThePolicySays) {
  const auto no = Importable::not_needed;
  BackingPolicy policy;
  for (const PageSize pool : {huge_2m, huge_1g}) {
    policy.hugetlb = HugetlbUse::none;
    EXPECT_EQ(Errc::not_permitted, verdict(pool, no, Access::read, policy));
    policy.hugetlb = HugetlbUse::read_only;
    EXPECT_EQ(Errc{}, verdict(pool, no, Access::read, policy));
    EXPECT_EQ(Errc::not_permitted, verdict(pool, no, Access::read_write, policy));
    policy.hugetlb = HugetlbUse::every_buffer;
    EXPECT_EQ(Errc{}, verdict(pool, no, Access::read_write, policy));
    policy.hugetlb = static_cast<HugetlbUse>(9);
    EXPECT_EQ(Errc::invalid_argument, verdict(pool, no, Access::read, policy));
  }
}

TEST(PageChoice, ImportableBuffersHaveBasePagesUnlessThePolicyTrustsTheKernel) {
  BackingPolicy policy;
  policy.hugetlb = HugetlbUse::every_buffer;
  for (const PageSize pages : {huge_1g, huge_2m, transparent})
    EXPECT_EQ(Errc::not_permitted, verdict(pages, Importable::needed, Access::read_write, policy));
  EXPECT_EQ(Errc{}, verdict(base, Importable::needed, Access::read_write, policy));
  policy.huge_importable = HugeImportable::allowed;
  EXPECT_EQ(Errc{}, verdict(huge_2m, Importable::needed, Access::read_write, policy));
}

TEST(PageChoice, TransparentPagesAreNotTriedWhereTheKernelDoesNotSayThatItHasThem) {
  {
    const FailingSite failing("open", ENOENT);
    EXPECT_EQ(Errc::not_supported, check_transparent_pages().error().code);
  }
  const FailingSite failing("read", EIO);
  const auto checked = check_transparent_pages();
  ASSERT_FALSE(checked.has_value());
  EXPECT_TRUE(checked.error().code == Errc::io_error ||
              checked.error().code == Errc::not_supported);
}

TEST(PageChoice, AWindowBeginsWhereTheLargestPageThatFitsCanBegin) {
  const std::pair<ByteCount, PageSize> windows[] = {
      {4_KiB, base}, {2_MiB - 4_KiB, base}, {2_MiB, huge_2m}, {1_GiB, huge_1g}, {3_GiB, huge_1g}};
  // Several at once: one alone may be aligned by luck.
  std::vector<MemoryWindow> kept;
  for (int i = 0; i < 3; ++i)
    for (const auto& [size, pages] : windows) {
      auto window = MemoryWindow::create(size, Backdrop::none);
      ASSERT_TRUE(window.has_value());
      const auto begin = reinterpret_cast<std::uintptr_t>(window->data(RegionOffset()));
      EXPECT_TRUE(largest_page(pages).divides(begin)) << size.value();
      kept.push_back(std::move(*window));
    }
}

TEST(PageChoice, TheLargestPageOfAKindIsWhatItsPlacesAreAlignedTo) {
  EXPECT_EQ(std::uint64_t{1} << 30, largest_page(huge_1g).value());
  EXPECT_EQ(std::uint64_t{2} << 20, largest_page(huge_2m).value());
  EXPECT_EQ(std::uint64_t{2} << 20, largest_page(transparent).value());
  EXPECT_EQ(std::uint64_t{4096}, largest_page(base).value());
  EXPECT_TRUE(is_hugetlb(huge_1g) && is_hugetlb(huge_2m));
  EXPECT_FALSE(is_hugetlb(transparent) || is_hugetlb(base));
}

}  // namespace
}  // namespace accelmm
