// SPDX-License-Identifier: Apache-2.0
#include "bus/iova_book.hpp"

#include <accelmm/check.hpp>

#include <algorithm>
#include <new>

// The VA allocator counts addresses of devices; those behind an IOMMU are bus addresses to us, and
// the same numbers.

namespace accelmm {
namespace {

constexpr unsigned bits_of_addresses = 64;

}  // namespace

Result<IovaBook> IovaBook::create(std::span<const Range<BusAddr>> ranges,
                                  const Options& options) try {
  IovaBook book(options);
  const std::uint64_t page = options.page.value();
  for (const auto& range : ranges) {
    std::uint64_t end = range.end.value();
    if (options.address_bits < bits_of_addresses)
      end = std::min(end, std::uint64_t{1} << options.address_bits);
    const auto first = round_up(ByteCount(range.begin.value()), options.page);
    end &= ~(page - 1);
    if (!first || first->value() >= end) continue;
    auto made = VaAllocator::create({DeviceAddr(first->value()), DeviceAddr(end)}, options.page,
                                    {.large = options.large});
    if (!made) return fail(made.error());
    book.ranges_.push_back(std::move(*made));
  }
  if (book.ranges_.empty())
    return fail(Errc::not_supported, "the device reaches no address that the IOMMU maps");
  return book;
} catch (const std::bad_alloc&) {
  return fail(Errc::no_memory, "no memory for the addresses of an IOMMU");
}

Result<BusAddr> IovaBook::take(ByteCount length, ByteCount phase) {
  const bool wants_large = length >= ByteCount(options_.large.value());
  for (const Alignment alignment : {options_.large, options_.page}) {
    if (alignment == options_.large && !wants_large) continue;
    for (VaAllocator& range : ranges_) {
      const auto taken =
          range.allocate(length, alignment, alignment == options_.large ? phase : ByteCount(0));
      if (taken) return BusAddr(taken->begin.value());
      if (taken.error().code != Errc::no_memory) return fail(taken.error());
    }
  }
  return fail(Errc::no_memory, "no address of the IOMMU is free");
}

void IovaBook::give_back(BusAddr iova) noexcept {
  const DeviceAddr begin(iova.value());
  for (VaAllocator& range : ranges_)
    if (range.range().contains(begin)) {
      ACCELMM_CHECK(range.free(begin).has_value());
      return;
    }
  ACCELMM_CHECK(false);
}

Result<IovaBook::Entered> IovaBook::enter(Extent extent, Access access, ByteCount phase,
                                          Entry entry) {
  ACCELMM_CHECK(extent.length != ByteCount());
  if (!options_.page.divides(extent.length) || !options_.page.divides(phase))
    return fail(Errc::not_supported, "memory is not whole pages of the IOMMU");
  const Key key{extent, access, entry == Entry::own ? ++last_own_ : 0};
  if (const auto found = mappings_.find(key); found != mappings_.end()) {
    ++found->second.holders;
    return Entered{{found->second.iova, extent.length}, Sharing::shared};
  }
  const auto iova = take(extent.length, phase);
  if (!iova) return fail(iova.error());
  auto made = mappings_.end();
  try {
    made = mappings_.emplace(key, Mapping{*iova, 1}).first;
    by_address_.emplace(*iova, made);
  } catch (const std::bad_alloc&) {
    if (made != mappings_.end()) mappings_.erase(made);
    give_back(*iova);
    return fail(Errc::no_memory, "no memory to note what is mapped");
  }
  mapped_ += extent.length;
  return Entered{{*iova, extent.length}, Sharing::alone};
}

IovaBook::Mappings::iterator IovaBook::find(Run run) const noexcept {
  const auto found = by_address_.find(run.address);
  ACCELMM_CHECK(found != by_address_.end());
  ACCELMM_CHECK(found->second->first.extent.length == run.length);
  return found->second;
}

IovaBook::Sharing IovaBook::sharing(Run run) const noexcept {
  return find(run)->second.holders == 1 ? Sharing::alone : Sharing::shared;
}

void IovaBook::leave(Run run) noexcept {
  const auto mapping = find(run);
  if (--mapping->second.holders > 0) return;
  give_back(run.address);
  mapped_ -= run.length;
  by_address_.erase(run.address);
  mappings_.erase(mapping);
}

void IovaBook::validate() const {
  ACCELMM_CHECK(by_address_.size() == mappings_.size());
  ByteCount total;
  BusAddr behind(options_.page.value());  // nothing is at address 0
  for (const auto& [iova, mapping] : by_address_) {
    ACCELMM_CHECK(mapping->second.iova == iova);
    ACCELMM_CHECK(mapping->second.holders > 0);
    ACCELMM_CHECK(options_.page.divides(iova));
    ACCELMM_CHECK(iova >= behind);
    const ByteCount length = mapping->first.extent.length;
    const Range<DeviceAddr> taken{DeviceAddr(iova.value()), DeviceAddr(iova.value()) + length};
    ACCELMM_CHECK(std::ranges::any_of(
        ranges_, [&](const VaAllocator& range) { return range.range().contains(taken); }));
    behind = iova + length;
    total += length;
  }
  ACCELMM_CHECK(total == mapped_);
  ByteCount taken;
  for (const VaAllocator& range : ranges_) {
    range.validate();
    taken += range.statistics().taken;
  }
  ACCELMM_CHECK(taken == mapped_);
}

}  // namespace accelmm
