// SPDX-License-Identifier: Apache-2.0
//
// Input: what a kernel may answer to VFIO_IOMMU_GET_INFO. Whatever the reader makes of it must be
// what a book of addresses can be made of, and that gives out addresses inside it only.
#include "bus/iova_book.hpp"
#include "bus/vfio_iommu_info.hpp"

#include <accelmm/check.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace {

using namespace accelmm;

void judge_ranges(const VfioIommuInfo& info, std::uint64_t page) {
  ACCELMM_CHECK(!info.ranges.empty());
  BusAddr behind;
  for (const auto& range : info.ranges) {
    ACCELMM_CHECK(!range.empty());
    ACCELMM_CHECK(range.begin >= behind);
    ACCELMM_CHECK(range.begin.value() % page == 0 && range.end.value() % page == 0);
    behind = range.end;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  // In memory of its own, so that a byte read beyond it is seen.
  std::vector<std::byte> answer(size);
  std::copy_n(reinterpret_cast<const std::byte*>(data), size, answer.begin());
  const auto info = parse_iommu_info(answer);
  if (!info) {
    ACCELMM_CHECK(info.error().code == Errc::protocol_error);
    return 0;
  }
  const std::uint64_t smallest = std::uint64_t{1} << std::countr_zero(info->page_sizes);
  judge_ranges(*info, smallest);
  const Alignment page(std::max<std::uint64_t>(smallest, 4096));
  const Alignment large(std::max<std::uint64_t>(page.value(), std::uint64_t{2} << 20));
  const unsigned bits = size % 2 == 0 ? 39 : 64;
  auto book = IovaBook::create(info->ranges, {.page = page, .large = large, .address_bits = bits});
  if (!book) return 0;
  const Extent extent{RegionOffset(0), ByteCount(page.value())};
  const auto entered = book->enter(extent, Access::read, ByteCount(0));
  if (!entered) return 0;
  const Range<BusAddr> taken{entered->run.address, entered->run.address + entered->run.length};
  ACCELMM_CHECK(bits == 64 || taken.end.value() <= std::uint64_t{1} << bits);
  ACCELMM_CHECK(
      std::ranges::any_of(info->ranges, [&](const auto& range) { return range.contains(taken); }));
  book->validate();
  book->leave(entered->run);
  return 0;
}
