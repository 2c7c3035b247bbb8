// SPDX-License-Identifier: Apache-2.0
//
// Requests below a native page: granules of native pages that one owner shares, and tiny pieces in
// slabs of granules.
#include "mm/device_heap_book.hpp"

#include <accelmm/check.hpp>

#include <algorithm>
#include <bit>
#include <new>
#include <utility>

namespace accelmm::mm {

namespace {

/// Slabs out of an owner's own native pages. The heap's lock is held whenever its Slab calls this.
class OwnerSource final : public SlabSource {
 public:
  OwnerSource(HeapBook& book, HeapOwner& owner) : book_(book), owner_(owner) {}
  [[nodiscard]] Result<Extent> grow(ByteCount size, Alignment alignment) override {
    return book_.take_slab(owner_, size, alignment);
  }
  void give_back(Extent extent) override { book_.give_slab(owner_, extent); }

 private:
  HeapBook& book_;
  HeapOwner& owner_;
};

constexpr std::uint64_t distance(RegionOffset from, RegionOffset to) {
  return to < from ? 0 : (to - from).value();
}

}  // namespace

Result<void> HeapBook::place_small(HeapOwner& owner, const DeviceHeap::Request& request,
                                   HeapRecord& record) {
  auto charge = Charge::make(owner.account, ByteCount(0));
  if (!charge) return fail(charge.error());
  record.one.record = &record;
  const auto taken = take_granules(owner,
                                   {.size = rounded(request),
                                    .alignment = request.alignment,
                                    .lifetime = request.lifetime,
                                    .placement = request.placement,
                                    .within = request.within},
                                   record.one);
  if (!taken) return taken;
  record.place = HeapRecord::Place::granules;
  record.charge = std::move(*charge);
  return {};
}

Result<void> HeapBook::make_slab(HeapOwner& owner) {
  owner.source.reset(new (std::nothrow) OwnerSource(*this, owner));
  if (!owner.source) return fail(Errc::no_memory, "no room for a slab allocator");
  auto slab =
      Slab::create({.source = owner.source.get(), .region = counts_.total, .spare_slabs = 0});
  if (!slab) return fail(slab.error());
  owner.slab.emplace(std::move(*slab));
  return {};
}

Result<void> HeapBook::place_tiny(HeapOwner& owner, const DeviceHeap::Request& request,
                                  HeapRecord& record) {
  auto charge = Charge::make(owner.account, ByteCount(0));
  if (!charge) return fail(charge.error());
  if (!owner.slab)
    if (auto made = make_slab(owner); !made) return made;
  // A class of a power of two is aligned to its size, and every class to 16.
  const std::uint64_t aligned =
      std::bit_ceil(std::max(request.size.value(), request.alignment.value()));
  const auto extent =
      owner.slab->allocate(request.alignment.value() > 16 ? ByteCount(aligned) : request.size);
  if (!extent) return fail(extent.error());
  record.place = HeapRecord::Place::tiny;
  record.charge = std::move(*charge);
  record.one.record = &record;
  record.one.extent = *extent;
  owner.tiny.insert(record.one);
  ++owner.tiny_count;
  return {};
}

// What processors have at hand would keep slabs, and with them native pages.
void HeapBook::tiny_gone(HeapOwner& owner) {
  static_cast<void>(owner.slab->trim());
}

Result<Extent> HeapBook::take_slab(HeapOwner& owner, ByteCount size, Alignment alignment) {
  std::unique_ptr<HeapPiece> piece(new (std::nothrow) HeapPiece);
  if (!piece) return fail(Errc::no_memory, "no room to note a slab");
  piece->kind = HeapPiece::Kind::slab;
  const auto taken = take_granules(owner, {.size = size, .alignment = alignment}, *piece);
  if (!taken) return fail(taken.error());
  return piece.release()->extent;
}

void HeapBook::give_slab(HeapOwner& owner, Extent extent) {
  SmallPage* const page = find_native(extent.offset)->page;
  ACCELMM_CHECK(page != nullptr && &page->owner == &owner);
  const auto found = page->pieces.find(extent.offset);
  ACCELMM_CHECK(found != page->pieces.end() && found->extent == extent);
  const std::unique_ptr<HeapPiece> piece(&*found);
  leave(*page, *piece);
}

// From the oldest page that has room, so that the younger ones become empty; from one that is empty,
// and must be charged, only where no other serves.
Result<void> HeapBook::take_granules(HeapOwner& owner, const PageAllocator::Request& request,
                                     HeapPiece& piece) {
  for (const bool empty : {false, true}) {
    for (SmallPage& page : owner.pages) {
      if ((page.live == 0) != empty || !page.may_have(request.size)) continue;
      const auto extent = take_in(page, request);
      if (extent) return enter(page, piece, *extent);
      if (request.within.empty() && request.alignment.value() <= granule.value())
        page.refused = request.size;
    }
  }
  const auto page = add_page(owner, request.within);
  if (!page) return fail(page.error());
  auto entered = [&]() -> Result<void> {
    const auto extent = take_in(**page, request);
    if (!extent) return fail(extent.error());
    return enter(**page, piece, *extent);
  }();
  if (!entered) give_page(**page);
  return entered;
}

Result<Extent> HeapBook::take_in(SmallPage& page, const PageAllocator::Request& request) {
  PageAllocator::Request local = request;
  const RegionOffset base = page.self.extent.offset;
  if (!request.within.empty()) {
    local.within = {RegionOffset(distance(base, request.within.begin)),
                    RegionOffset(std::min(distance(base, request.within.end), native_))};
    if (local.within.empty()) return fail(Errc::no_memory, "the range misses the page");
  }
  const auto extent = page.granules.allocate(local);
  if (!extent) return fail(extent.error());
  return Extent{base + ByteCount(extent->offset.value()), extent->length};
}

Result<SmallPage*> HeapBook::add_page(HeapOwner& owner, const Range<RegionOffset>& within) {
  auto granules = PageAllocator::create({.size = ByteCount(native_)});
  if (!granules) return fail(granules.error());
  // At the upper end, with all that are cut, away from the runs of native pages.
  PageAllocator::Request wanted{.size = ByteCount(native_),
                                .lifetime = Lifetime::pinned,
                                .placement = Placement::top_down,
                                .within = within};
  auto extent = pages_.allocate(wanted);
  if (!extent && !within.empty()) {
    // No native page lies inside: one that reaches beyond will do.
    const std::uint64_t last = counts_.total.value();
    const std::uint64_t end = std::min(within.end.value(), last);
    wanted.within = {RegionOffset(within.begin.value() / native_ * native_),
                     RegionOffset(end == 0 ? 0 : ((end - 1) / native_ + 1) * native_)};
    if (wanted.within.begin < wanted.within.end) extent = pages_.allocate(wanted);
  }
  if (!extent) return fail(extent.error());
  auto* const page = new (std::nothrow) SmallPage(owner, *extent, std::move(*granules));
  if (page == nullptr) {
    ACCELMM_CHECK(pages_.free(*extent).has_value());
    return fail(Errc::no_memory, "no room for a shared native page");
  }
  taken_.insert(page->self);
  owner.pages.push_back(*page);
  ++owner.spare_pages;
  counts_.free -= extent->length;
  counts_.spare += extent->length;
  return page;
}

Result<void> HeapBook::enter(SmallPage& page, HeapPiece& piece, Extent extent) {
  const ByteCount whole = page.self.extent.length;
  if (page.live == 0) {
    auto charge = Charge::make(page.owner.account, whole, 0);
    if (!charge) {
      ACCELMM_CHECK(page.granules.free(page.local(extent)).has_value());
      return fail(charge.error());
    }
    page.charge = std::move(*charge);
    hold(page.owner, whole);
    --page.owner.spare_pages;
    counts_.spare -= whole;
    counts_.shared += whole;
  }
  piece.extent = extent;
  piece.page = &page;
  page.pieces.insert(piece);
  ++page.live;
  page.live_bytes += extent.length;
  return {};
}

// The last piece of a page leaves it empty: charged to nobody, kept or given back.
void HeapBook::leave(SmallPage& page, HeapPiece& piece) {
  page.pieces.erase(page.pieces.iterator_to(piece));
  ACCELMM_CHECK(page.granules.free(page.local(piece.extent)).has_value());
  page.refused = ByteCount(std::numeric_limits<std::uint64_t>::max());
  --page.live;
  page.live_bytes -= piece.extent.length;
  if (page.live > 0) return;
  HeapOwner& owner = page.owner;
  page.charge = {};
  drop(owner, page.self.extent.length);
  ++owner.spare_pages;
  counts_.spare += page.self.extent.length;
  counts_.shared -= page.self.extent.length;
  if (owner.closed || owner.spare_pages > options_.spare_pages) give_page(page);
}

// Pre: empty.
void HeapBook::give_page(SmallPage& page) {
  ACCELMM_CHECK(page.live == 0);
  const Extent extent = page.self.extent;
  HeapOwner& owner = page.owner;
  taken_.erase(taken_.iterator_to(page.self));
  owner.pages.erase(owner.pages.iterator_to(page));
  --owner.spare_pages;
  counts_.spare -= extent.length;
  counts_.free += extent.length;
  delete &page;
  ACCELMM_CHECK(pages_.free(extent).has_value());
}

ByteCount HeapBook::trim() {
  const ByteCount before = counts_.free;
  for (const auto& [id, owner] : owners_) {
    if (owner->slab) static_cast<void>(owner->slab->trim());
    for (auto page = owner->pages.begin(); page != owner->pages.end();) {
      SmallPage& at = *page++;
      if (at.live == 0) give_page(at);
    }
  }
  return counts_.free - before;
}

}  // namespace accelmm::mm
