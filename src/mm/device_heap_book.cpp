// SPDX-License-Identifier: Apache-2.0
#include "mm/device_heap_book.hpp"

#include <accelmm/check.hpp>

#include <algorithm>
#include <bit>
#include <new>
#include <utility>

namespace accelmm::mm {

namespace {

constexpr const char* not_live = "owner has no such allocation";

}  // namespace

HeapBook::HeapBook(const DeviceHeap::Options& options, PageAllocator pages)
    : options_(options),
      native_(options.native_page.value()),
      cuts_(options.native_page > granule),
      cuts_slabs_(native_ % slab_unit.value() == 0 && native_ > slab_unit.value()),
      pages_(std::move(pages)) {
  counts_.total = options.size;
  counts_.free = options.size;
}

HeapBook::~HeapBook() {
  while (!records_.empty()) {
    HeapRecord& record = *records_.begin();
    for (HeapPiece& piece : record.pieces())
      if (piece.target != nullptr) {
        const DeviceHeap::Move move{record.id, piece.extent, piece.target->extent};
        ACCELMM_CHECK(abort_move(move).has_value());
      }
    release(record);
  }
  while (!owners_.empty()) {
    HeapOwner& owner = *owners_.begin()->second;
    if (owner.slab) owner.slab.reset();
    while (!owner.pages.empty()) give_page(owner.pages.front());
    owners_.erase(owners_.begin());
  }
  taken_.clear_and_dispose([](HeapPiece* piece) { delete piece; });  // reservations
}

HeapOwner* HeapBook::find_owner(OwnerId id) const {
  const auto found = owners_.find(id);
  return found == owners_.end() ? nullptr : found->second.get();
}

Result<OwnerId> HeapBook::add_owner(std::shared_ptr<Account> account) {
  const OwnerId id{last_owner_ + 1};
  try {
    auto owner = std::make_unique<HeapOwner>();
    owner->id = id;
    owner->account = std::move(account);
    owners_.emplace(id, std::move(owner));
  } catch (const std::bad_alloc&) {
    return fail(Errc::no_memory, "no room for an owner");
  }
  ++last_owner_;
  ++counts_.owners;
  return id;
}

Result<void> HeapBook::close_owner(OwnerId id) {
  HeapOwner* const owner = find_owner(id);
  if (owner == nullptr || owner->closed) return fail(Errc::invalid_argument, "no such owner");
  owner->closed = true;
  if (owner->tiny_count == 0) owner->slab.reset();
  for (auto page = owner->pages.begin(); page != owner->pages.end();) {
    SmallPage& at = *page++;
    if (at.live == 0) give_page(at);
  }
  forget_if_over(*owner);
  return {};
}

void HeapBook::forget_if_over(HeapOwner& owner) {
  if (!owner.closed || owner.records > 0) return;
  owner.slab.reset();
  ACCELMM_CHECK(owner.pages.empty());
  --counts_.owners;
  owners_.erase(owner.id);
}

void HeapBook::hold(HeapOwner& owner, ByteCount bytes) {
  owner.held += bytes;
  owner.peak = std::max(owner.peak, owner.held);
  counts_.held += bytes;
}

void HeapBook::drop(HeapOwner& owner, ByteCount bytes) {
  owner.held -= bytes;
  counts_.held -= bytes;
}

ByteCount HeapBook::whole_pages(ByteCount size) const {
  if (size > counts_.total) return size;  // refused wherever it is looked for
  return ByteCount(((size.value() - 1) / native_ + 1) * native_);
}

bool HeapBook::is_small(const DeviceHeap::Request& request) const {
  return cuts_ && request.size.value() <= native_ - granule.value() &&
         native_ % request.alignment.value() == 0;
}

bool HeapBook::is_tiny(const DeviceHeap::Request& request) const {
  return cuts_slabs_ && request.size <= largest_tiny &&
         request.alignment.value() <= largest_tiny.value() && request.within.empty();
}

ByteCount HeapBook::rounded(const DeviceHeap::Request& request) const {
  if (!is_small(request)) return whole_pages(request.size);
  return ByteCount((request.size.value() + granule.value() - 1) & ~(granule.value() - 1));
}

Result<DeviceHeap::Allocated> HeapBook::allocate(OwnerId id, const DeviceHeap::Request& request,
                                                 std::unique_ptr<HeapRecord>& room) {
  HeapOwner* const owner = find_owner(id);
  if (owner == nullptr || owner->closed) return fail(Errc::invalid_argument, "no such owner");
  if (request.size == ByteCount(0)) return fail(Errc::invalid_argument, "size is 0");
  if (request.within.end < request.within.begin)
    return fail(Errc::invalid_argument, "the range ends before it begins");
  HeapRecord& record = *room;
  record.owner = owner;
  record.lifetime = request.lifetime;
  record.alignment = request.alignment;
  record.within = request.within;
  record.requested = request.size;
  if (auto placed = place(*owner, request, record); !placed) return fail(placed.error());
  record.id = AllocationId{++last_record_};
  records_.insert(records_.end(), *room.release());
  ++owner->records;
  owner->requested += record.requested;
  counts_.requested += record.requested;
  if (record.place != HeapRecord::Place::native) counts_.small_requested += record.requested;
  ++counts_.allocations;
  return DeviceHeap::Allocated{record.id, record.pieces()[0].extent, record.count};
}

Result<void> HeapBook::place(HeapOwner& owner, const DeviceHeap::Request& request,
                             HeapRecord& record) {
  auto placed = place_as_it_is(owner, request, record);
  // What nobody uses goes before an error is told.
  if (placed || placed.error().code != Errc::no_memory || trim() == ByteCount(0)) return placed;
  return place_as_it_is(owner, request, record);
}

Result<void> HeapBook::place_as_it_is(HeapOwner& owner, const DeviceHeap::Request& request,
                                      HeapRecord& record) {
  if (request.preferred > request.alignment && request.layout == DeviceHeap::Layout::contiguous) {
    DeviceHeap::Request aligned = request;
    aligned.alignment = request.preferred;
    auto placed = place_aligned(owner, aligned, record);
    if (placed || placed.error().code != Errc::no_memory) return placed;
  }
  return place_aligned(owner, request, record);
}

Result<void> HeapBook::place_aligned(HeapOwner& owner, const DeviceHeap::Request& request,
                                     HeapRecord& record) {
  if (!is_small(request)) return place_native(owner, request, record);
  if (is_tiny(request)) {
    auto placed = place_tiny(owner, request, record);
    if (placed || placed.error().code != Errc::no_memory) return placed;
  }
  return place_small(owner, request, record);  // also where no slab fits any more
}

Result<void> HeapBook::place_native(HeapOwner& owner, const DeviceHeap::Request& request,
                                    HeapRecord& record) {
  const bool scattered = request.layout == DeviceHeap::Layout::scattered;
  if (scattered && (!request.within.empty() || native_ % request.alignment.value() != 0))
    return fail(Errc::not_supported, "extents are scattered without a range or an alignment");
  const ByteCount size = whole_pages(request.size);
  auto charge = Charge::make(owner.account, size);
  if (!charge) return fail(charge.error());
  record.place = HeapRecord::Place::native;
  if (scattered) {
    auto extents = pages_.allocate_scattered(size, request.lifetime);
    if (!extents) return fail(extents.error());
    if (extents->size() > 1) {
      record.many.reset(new (std::nothrow) HeapPiece[extents->size()]);
      if (!record.many) {
        for (const Extent& extent : *extents) ACCELMM_CHECK(pages_.free(extent).has_value());
        return fail(Errc::no_memory, "no room for the extents");
      }
    }
    record.count = record.live = extents->size();
    for (std::size_t i = 0; i < record.count; ++i) record.pieces()[i].extent = (*extents)[i];
  } else {
    const auto extent = pages_.allocate({.size = size,
                                         .alignment = request.alignment,
                                         .lifetime = request.lifetime,
                                         .placement = request.placement,
                                         .within = request.within});
    if (!extent) return fail(extent.error());
    record.one.extent = *extent;
  }
  for (HeapPiece& piece : record.pieces()) {
    piece.record = &record;
    taken_.insert(piece);
  }
  record.charge = std::move(*charge);
  counts_.free -= size;
  hold(owner, size);
  return {};
}

HeapPiece* HeapBook::find_native(RegionOffset offset) const {
  auto found = taken_.upper_bound(offset);
  if (found == taken_.begin()) return nullptr;
  --found;
  return offset < found->extent.end() ? const_cast<HeapPiece*>(&*found) : nullptr;
}

HeapPiece* HeapBook::find_piece(const HeapOwner& owner, Extent extent) const {
  HeapPiece* piece = find_native(extent.offset);
  if (piece == nullptr) return nullptr;
  if (SmallPage* const page = piece->page) {
    auto found = page->pieces.upper_bound(extent.offset);
    if (found == page->pieces.begin()) return nullptr;
    piece = &*--found;
    if (piece->kind == HeapPiece::Kind::slab) {
      const auto tiny = owner.tiny.find(extent.offset);
      if (tiny == owner.tiny.end()) return nullptr;
      piece = const_cast<HeapPiece*>(&*tiny);
    }
  }
  const bool is_it = piece->kind == HeapPiece::Kind::allocation && piece->extent == extent &&
                     !piece->record->waits;
  return is_it ? piece : nullptr;
}

Result<OwnerId> HeapBook::owner_of(Extent extent) const {
  const HeapPiece* const piece = find_native(extent.offset);
  if (piece != nullptr) {
    const HeapOwner* owner = piece->page != nullptr     ? &piece->page->owner
                             : piece->record != nullptr ? piece->record->owner
                                                        : nullptr;
    if (owner != nullptr && find_piece(*owner, extent) != nullptr) return owner->id;
  }
  return fail(Errc::invalid_argument, "extent is nobody's");
}

HeapRecord* HeapBook::live_record(AllocationId allocation) const {
  const auto found = records_.find(allocation);
  if (found == records_.end() || found->waits) return nullptr;
  return const_cast<HeapRecord*>(&*found);
}

Result<HeapRecord*> HeapBook::freeable(OwnerId id, AllocationId allocation) const {
  HeapRecord* const record = live_record(allocation);
  if (record == nullptr || record->owner->id != id) return fail(Errc::invalid_argument, not_live);
  if (record->moves > 0) return fail(Errc::busy, "allocation is being moved");
  return record;
}

Result<void> HeapBook::free(OwnerId id, AllocationId allocation) {
  const auto record = freeable(id, allocation);
  if (!record) return fail(record.error());
  release(**record);
  return {};
}

Result<void> HeapBook::free(OwnerId id, Extent extent) {
  const HeapOwner* const owner = find_owner(id);
  if (owner == nullptr) return fail(Errc::invalid_argument, "no such owner");
  HeapPiece* const piece = find_piece(*owner, extent);
  if (piece == nullptr || piece->record->owner != owner)
    return fail(Errc::invalid_argument, not_live);
  if (piece->target != nullptr) return fail(Errc::busy, "extent is being moved");
  HeapRecord& record = *piece->record;
  if (record.live == 1)
    release(record);
  else
    release_piece(record, *piece);
  return {};
}

Result<void> HeapBook::free_after(OwnerId id, AllocationId allocation, std::uint64_t point) {
  const auto found = freeable(id, allocation);
  if (!found) return fail(found.error());
  HeapRecord& record = **found;
  if (point <= reached_) {
    release(record);
    return {};
  }
  record.waits = true;
  --counts_.allocations;
  ++counts_.pending_allocations;
  counts_.pending += record.requested;
  record.owner->pending += record.requested;
  deferred_.add(record.wait, {record.pieces()[0].extent.offset, record.requested}, point);
  return {};
}

ByteCount HeapBook::retire(std::uint64_t point, std::size_t limit) {
  reached_ = std::max(reached_, point);
  ByteCount retired;
  DeferredFrees::Entry* entry = deferred_.take_reached(reached_, limit);
  while (entry != nullptr) {
    DeferredFrees::Entry* const next = entry->next();
    HeapRecord& record = static_cast<HeapRecord::Wait&>(*entry).record;
    retired += record.requested;
    record.waits = false;
    ++counts_.allocations;
    --counts_.pending_allocations;
    counts_.pending -= record.requested;
    record.owner->pending -= record.requested;
    release(record);
    entry = next;
  }
  return retired;
}

void HeapBook::release_piece(HeapRecord& record, HeapPiece& piece) {
  HeapOwner& owner = *record.owner;
  const ByteCount requested = std::min(record.requested, piece.extent.length);
  record.requested -= requested;
  owner.requested -= requested;
  counts_.requested -= requested;
  --record.live;
  switch (record.place) {
    case HeapRecord::Place::native:
      taken_.erase(taken_.iterator_to(piece));
      ACCELMM_CHECK(pages_.free(piece.extent).has_value());
      record.charge.shrink(piece.extent.length);
      counts_.free += piece.extent.length;
      drop(owner, piece.extent.length);
      return;
    case HeapRecord::Place::granules:
      counts_.small_requested -= requested;
      leave(*piece.page, piece);
      return;
    case HeapRecord::Place::tiny:
      counts_.small_requested -= requested;
      owner.tiny.erase(owner.tiny.iterator_to(piece));
      ACCELMM_CHECK(owner.slab->free(piece.extent.offset).has_value());
      if (--owner.tiny_count == 0) tiny_gone(owner);
      return;
  }
}

void HeapBook::release(HeapRecord& record) {
  for (HeapPiece& piece : record.pieces())
    if (piece.is_linked()) release_piece(record, piece);
  forget(record);
}

void HeapBook::forget(HeapRecord& record) {
  HeapOwner& owner = *record.owner;
  --counts_.allocations;
  --owner.records;
  records_.erase(records_.iterator_to(record));
  delete &record;
  forget_if_over(owner);
}

Result<void> HeapBook::reserve(Extent extent) {
  std::unique_ptr<HeapPiece> piece(new (std::nothrow) HeapPiece);
  if (!piece) return fail(Errc::no_memory, "no room to note it");
  if (auto reserved = pages_.reserve(extent); !reserved) return reserved;
  piece->extent = extent;
  piece->kind = HeapPiece::Kind::reservation;
  taken_.insert(*piece.release());
  counts_.free -= extent.length;
  counts_.reserved += extent.length;
  return {};
}

}  // namespace accelmm::mm
