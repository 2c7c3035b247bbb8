// SPDX-License-Identifier: Apache-2.0
#include "mmu/address_space_writing.hpp"
#include "mmu/books.hpp"

#include <accelmm/check.hpp>
#include <accelmm/mmu/address_space.hpp>

#include <algorithm>
#include <array>
#include <map>
#include <new>
#include <stdexcept>
#include <utility>
#include <vector>

// Addresses without memory of their own: reservations, and what the default page lies behind.

namespace accelmm::mmu {

Result<Range<DeviceAddr>> AddressSpace::reserve(ByteCount size, Placement placement,
                                                Alignment alignment) {
  const std::lock_guard lock(books_->mutex);
  if (books_->has_ended) return fail(Errc::invalid_argument, "address space has ended");
  if (size == ByteCount(0) || !books_->page().divides(size))
    return fail(Errc::invalid_argument, "size of a reservation is not whole pages");
  std::map<DeviceAddr, DeviceAddr> made;
  try {
    made[DeviceAddr(0)];
  } catch (const std::bad_alloc&) {
    return fail(Errc::no_memory, "no memory for a reservation");
  }
  auto range = take_reservation(size, placement, alignment);
  if (!range) return range;
  auto node = made.extract(made.begin());
  node.key() = range->begin;
  node.mapped() = range->end;
  ACCELMM_CHECK(books_->reservations.insert(std::move(node)).inserted);
  return range;
}

Result<Range<DeviceAddr>> AddressSpace::take_reservation(ByteCount size, Placement placement,
                                                         Alignment alignment) {
  const Alignment at_least = std::max(alignment, books_->page());
  if (placement.kind != Placement::Kind::anywhere) {
    const DeviceAddr begin = placement.address;
    Result<void> held = fail(Errc::invalid_argument, "reservation is unaligned or outside");
    if (at_least.divides(begin) && size.value() <= ~begin.value() &&
        books_->is_inside({begin, begin + size})) {
      const Range<DeviceAddr> range{begin, begin + size};
      const bool taken = books_->is_mapped_in_part(range) || books_->is_reserved(range) ||
                         books_->crosses_reservation(range) ||
                         books_->pending_in(range) != nullptr ||
                         books_->operations.conflicts(range, Operation::Kind::writes);
      held = taken ? Result<void>(fail(Errc::address_in_use, "device addresses are taken"))
                   : books_->hold(range);
      if (held) return range;
    }
    if (placement.kind == Placement::Kind::fixed || held.error().code == Errc::no_memory)
      return fail(held.error());
  }
  const std::array<Fit, 1> fits{Fit{at_least, ByteCount(0)}};
  return books_->take(size, fits, placement.use);
}

Result<void> AddressSpace::end_reservation(DeviceAddr start) {
  const std::lock_guard lock(books_->mutex);
  const auto found = books_->reservations.find(start);
  if (books_->has_ended || found == books_->reservations.end())
    return fail(Errc::invalid_argument, "no reservation begins at this device address");
  const Range<DeviceAddr> range{found->first, found->second};
  if (books_->is_mapped_in_part(range) ||
      books_->operations.conflicts(range, Operation::Kind::writes))
    return fail(Errc::busy, "a part of the reservation is mapped");
  books_->reservations.erase(found);
  books_->drop(range);
  return {};
}

// The default page, again and again.
Result<std::vector<Run>> AddressSpace::null_runs(ByteCount size) const {
  if (!books_->default_page) return fail(Errc::not_supported, "address space has no default page");
  const Run page = *books_->default_page;
  if (size == ByteCount(0)) return fail(Errc::invalid_argument, "nothing to map");
  const std::uint64_t whole = size.value() / page.length.value();
  const std::uint64_t rest = size.value() % page.length.value();
  try {
    std::vector<Run> runs(whole, page);
    if (rest > 0) runs.push_back({page.address, ByteCount(rest)});
    return runs;
  } catch (const std::bad_alloc&) {
    return fail(Errc::no_memory, "no memory for the runs of a null mapping");
  } catch (const std::length_error&) {
    return fail(Errc::no_memory, "null mapping is longer than memory can list");
  }
}

Result<MappedRange> AddressSpace::map_null(ByteCount size, Placement placement, Access access) {
  const auto runs = null_runs(size);
  if (!runs) return fail(runs.error());
  Writing writing{.runs = *runs, .attributes = access, .kind = Piece::Kind::null};
  return write_new(writing, placement);
}

Result<Replaced> AddressSpace::cover(Range<DeviceAddr> range, Access access) {
  if (range.empty()) return fail(Errc::invalid_argument, "nothing to cover");
  const auto runs = null_runs(range.size());
  if (!runs) return fail(runs.error());
  Writing writing{.runs = *runs, .attributes = access, .kind = Piece::Kind::cover};
  return write_over(writing, {Placement::Kind::fixed, range.begin});
}

}  // namespace accelmm::mmu
