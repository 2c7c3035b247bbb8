// SPDX-License-Identifier: Apache-2.0
#include "bus/vfio_iommu_info.hpp"

#include <bit>
#include <cstring>
#include <limits>
#include <new>

#include <linux/vfio.h>

namespace accelmm {
namespace {

constexpr std::uint64_t last_byte = std::numeric_limits<std::uint64_t>::max();

/// Copies a struct out of an answer, if it lies in it.
template <class Part>
std::optional<Part> part_at(std::span<const std::byte> answer, std::uint64_t offset) {
  if (offset > answer.size() || sizeof(Part) > answer.size() - offset) return std::nullopt;
  Part part;
  std::memcpy(&part, answer.data() + offset, sizeof part);
  return part;
}

Result<void> add_ranges(std::span<const std::byte> answer, std::uint64_t offset,
                        VfioIommuInfo& info) {
  // The fixed part of vfio_iommu_type1_info_cap_iova_range, which ends in an array without bounds.
  struct Fixed {
    vfio_info_cap_header header;
    std::uint32_t count;
    std::uint32_t reserved;
  };
  static_assert(sizeof(Fixed) == sizeof(vfio_iommu_type1_info_cap_iova_range));
  const auto fixed = part_at<Fixed>(answer, offset);
  if (!fixed || !info.ranges.empty())
    return fail(Errc::protocol_error, "ranges of the IOMMU are cut short, or told twice");
  const std::uint64_t page = std::uint64_t{1} << std::countr_zero(info.page_sizes);
  std::uint64_t at = offset + sizeof *fixed;
  for (std::uint32_t i = 0; i < fixed->count; ++i, at += sizeof(vfio_iova_range)) {
    const auto range = part_at<vfio_iova_range>(answer, at);
    if (!range || range->start > range->end)
      return fail(Errc::protocol_error, "a range of the IOMMU ends before it begins");
    if (!info.ranges.empty() && BusAddr(range->start) < info.ranges.back().end)
      return fail(Errc::protocol_error, "ranges of the IOMMU are not in order");
    // The kernel's end is the last byte. Whole pages only, and 2^64 is no address.
    if (range->start > last_byte - page + 1) continue;
    const std::uint64_t begin = (range->start + page - 1) & ~(page - 1);
    const std::uint64_t end = (range->end == last_byte ? last_byte : range->end + 1) & ~(page - 1);
    if (begin < end) info.ranges.push_back({BusAddr(begin), BusAddr(end)});
  }
  return {};
}

Result<void> read_capabilities(std::span<const std::byte> answer, std::uint64_t first,
                               VfioIommuInfo& info) {
  if (first == 0) return fail(Errc::protocol_error, "capabilities of the IOMMU are missing");
  std::uint64_t earliest = sizeof(vfio_iommu_type1_info);
  for (std::uint64_t at = first; at != 0;) {
    const auto header = part_at<vfio_info_cap_header>(answer, at);
    if (!header || at < earliest || at % alignof(vfio_info_cap_header) != 0)
      return fail(Errc::protocol_error, "capabilities of the IOMMU lie outside the answer");
    earliest = at + sizeof *header;
    if (header->id == VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE) {
      if (auto added = add_ranges(answer, at, info); !added) return added;
      if (info.ranges.empty())
        return fail(Errc::protocol_error, "the IOMMU has no address that can be mapped");
    } else if (header->id == VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL) {
      const auto available = part_at<vfio_iommu_type1_info_dma_avail>(answer, at);
      if (!available) return fail(Errc::protocol_error, "number of mappings is cut short");
      info.mappings_left = available->avail;
    }
    at = header->next;
  }
  return {};
}

}  // namespace

Result<VfioIommuInfo> parse_iommu_info(std::span<const std::byte> answer) try {
  // Kernels before 5.4 know the struct without cap_offset.
  constexpr std::size_t without_capabilities = offsetof(vfio_iommu_type1_info, cap_offset);
  if (answer.size() < without_capabilities)
    return fail(Errc::protocol_error, "the IOMMU's answer is cut short");
  vfio_iommu_type1_info fixed{};
  std::memcpy(&fixed, answer.data(), std::min(answer.size(), sizeof fixed));
  VfioIommuInfo info;
  if ((fixed.flags & VFIO_IOMMU_INFO_PGSIZES) == 0 || fixed.iova_pgsizes == 0)
    return fail(Errc::protocol_error, "the IOMMU has no page size");
  info.page_sizes = fixed.iova_pgsizes;
  if ((fixed.flags & VFIO_IOMMU_INFO_CAPS) != 0 && answer.size() >= sizeof fixed)
    if (auto read = read_capabilities(answer, fixed.cap_offset, info); !read)
      return fail(read.error());
  if (info.ranges.empty()) {
    const std::uint64_t page = std::uint64_t{1} << std::countr_zero(info.page_sizes);
    info.ranges.push_back({BusAddr(0), BusAddr(last_byte & ~(page - 1))});
  }
  return info;
} catch (const std::bad_alloc&) {
  return fail(Errc::no_memory, "no memory for the ranges of an IOMMU");
}

}  // namespace accelmm
