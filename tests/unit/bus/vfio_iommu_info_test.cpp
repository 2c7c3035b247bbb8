// SPDX-License-Identifier: Apache-2.0
#include "bus/vfio_iommu_info.hpp"

#include <cstring>
#include <limits>
#include <vector>

#include <gtest/gtest.h>
#include <linux/vfio.h>

namespace accelmm {
namespace {

constexpr std::uint64_t all_ones = std::numeric_limits<std::uint64_t>::max();
constexpr std::uint64_t from_4k_on = ~std::uint64_t{4095};

/// An answer as the kernel lays it out, made piece by piece.
class Answer {
 public:
  explicit Answer(std::uint64_t page_sizes = from_4k_on) {
    head_.flags = VFIO_IOMMU_INFO_PGSIZES | VFIO_IOMMU_INFO_CAPS;
    head_.iova_pgsizes = page_sizes;
    bytes_.resize(sizeof head_);
  }
  std::uint32_t add_ranges(std::uint32_t count, const std::vector<vfio_iova_range>& ranges) {
    const auto at = chain(VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE);
    put(count);
    put(std::uint32_t{0});
    for (const auto& range : ranges) put(range);
    return at;
  }
  std::uint32_t add_available(std::uint32_t count) {
    const auto at = chain(VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL);
    put(count);
    put(std::uint32_t{0});  // the kernel rounds up to 8 bytes
    return at;
  }
  std::uint32_t add_unknown() {
    const auto at = chain(77);
    put(all_ones);
    return at;
  }
  void set_next(std::uint32_t of, std::uint32_t next) {
    std::memcpy(bytes_.data() + of + offsetof(vfio_info_cap_header, next), &next, sizeof next);
  }
  vfio_iommu_type1_info& head() { return head_; }
  [[nodiscard]] std::vector<std::byte> bytes() const {
    auto all = bytes_;
    std::memcpy(all.data(), &head_, sizeof head_);
    return all;
  }
  [[nodiscard]] Result<VfioIommuInfo> parse() const { return parse_iommu_info(bytes()); }

 private:
  template <class Part>
  void put(const Part& part) {
    const auto* const from = reinterpret_cast<const std::byte*>(&part);
    bytes_.insert(bytes_.end(), from, from + sizeof part);
  }
  std::uint32_t chain(std::uint16_t id) {
    const auto at = static_cast<std::uint32_t>(bytes_.size());
    if (last_ == 0)
      head_.cap_offset = at;
    else
      set_next(last_, at);
    last_ = at;
    put(vfio_info_cap_header{id, 1, 0});
    return at;
  }

  vfio_iommu_type1_info head_{};
  std::vector<std::byte> bytes_;
  std::uint32_t last_ = 0;
};

Range<BusAddr> range(std::uint64_t begin, std::uint64_t end) {
  return {BusAddr(begin), BusAddr(end)};
}

TEST(VfioIommuInfo, RangesEndBehindTheLastByteThatTheKernelNames) {
  Answer answer;
  answer.add_unknown();
  answer.add_ranges(2, {{0, 0xfedfffff}, {0xfef00000, 0x7fffffffff}});
  answer.add_available(65535);
  const auto info = answer.parse();
  ASSERT_TRUE(info.has_value());
  EXPECT_EQ(from_4k_on, info->page_sizes);
  EXPECT_EQ((std::vector{range(0, 0xfee00000), range(0xfef00000, 0x8000000000)}), info->ranges);
  EXPECT_EQ(65535U, info->mappings_left);
}

TEST(VfioIommuInfo, ARangeUpToTheLastByteOf64BitsEndsAPageEarlier) {
  Answer answer;
  answer.add_ranges(1, {{0x1000, all_ones}});
  EXPECT_EQ(std::vector{range(0x1000, all_ones & from_4k_on)}, answer.parse()->ranges);
}

TEST(VfioIommuInfo, RangesAreCutToWholePages) {
  Answer answer(~std::uint64_t{0xffff});
  answer.add_ranges(3, {{0x1000, 0x2ffff}, {0x31000, 0x3ffff}, {0x50000, 0x6ffff}});
  EXPECT_EQ((std::vector{range(0x10000, 0x30000), range(0x50000, 0x70000)}),
            answer.parse()->ranges);
}

TEST(VfioIommuInfo, AKernelWithoutCapabilitiesMapsEverything) {
  Answer answer;
  answer.head().flags = VFIO_IOMMU_INFO_PGSIZES;
  auto bytes = answer.bytes();
  bytes.resize(offsetof(vfio_iommu_type1_info, cap_offset));
  const auto info = parse_iommu_info(bytes);
  ASSERT_TRUE(info.has_value());
  EXPECT_EQ(std::vector{range(0, all_ones & from_4k_on)}, info->ranges);
  EXPECT_EQ(std::nullopt, info->mappings_left);
}

TEST(VfioIommuInfo, AnswersThatContradictThemselvesAreRefused) {
  const auto refused = [](const Answer& answer) {
    const auto info = answer.parse();
    return !info && info.error().code == Errc::protocol_error;
  };
  EXPECT_TRUE(refused(Answer(0)));  // no page size
  Answer no_pages;
  no_pages.head().flags = VFIO_IOMMU_INFO_CAPS;
  EXPECT_TRUE(refused(no_pages));
  EXPECT_TRUE(refused(Answer()));  // says that there are capabilities, and has none
  Answer loop;
  const auto first = loop.add_unknown();
  loop.set_next(loop.add_available(1), first);
  EXPECT_TRUE(refused(loop));
  Answer itself;
  const auto only = itself.add_unknown();
  itself.set_next(only, only);
  EXPECT_TRUE(refused(itself));
  Answer outside;
  outside.set_next(outside.add_unknown(), 4096);
  EXPECT_TRUE(refused(outside));
  Answer far_outside;
  far_outside.set_next(far_outside.add_unknown(), 0xfffffffc);
  EXPECT_TRUE(refused(far_outside));
  Answer in_the_head;
  in_the_head.add_unknown();
  in_the_head.head().cap_offset = 4;
  EXPECT_TRUE(refused(in_the_head));
  Answer short_list;
  short_list.add_ranges(1000, {{0, 0xfff}});
  EXPECT_TRUE(refused(short_list));
  Answer many;
  many.add_ranges(0xffffffff, {{0, 0xfff}});
  EXPECT_TRUE(refused(many));
  Answer twice;
  twice.add_ranges(1, {{0, 0xfff}});
  twice.add_ranges(1, {{0x1000, 0x1fff}});
  EXPECT_TRUE(refused(twice));
  Answer backwards;
  backwards.add_ranges(1, {{0x2000, 0xfff}});
  EXPECT_TRUE(refused(backwards));
  Answer overlapping;
  overlapping.add_ranges(2, {{0, 0x1fff}, {0x1000, 0x2fff}});
  EXPECT_TRUE(refused(overlapping));
  Answer without;
  without.add_ranges(0, {});
  EXPECT_TRUE(refused(without));
}

TEST(VfioIommuInfo, EveryCutOfAnAnswerIsRefusedOrUnderstood) {
  Answer answer;
  answer.add_ranges(2, {{0, 0xfff}, {0x2000, 0x3fff}});
  answer.add_available(3);
  const auto bytes = answer.bytes();
  const auto whole = parse_iommu_info(bytes);
  ASSERT_TRUE(whole.has_value());
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    // In memory of its own, so that a byte beyond it is seen by the sanitizer.
    const std::vector<std::byte> cut(bytes.begin(), bytes.begin() + static_cast<long>(size));
    const auto info = parse_iommu_info(cut);
    if (info) continue;
    EXPECT_EQ(Errc::protocol_error, info.error().code) << size;
  }
}

}  // namespace
}  // namespace accelmm
