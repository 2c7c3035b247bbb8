// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/account.hpp>
#include <accelmm/deferred_frees.hpp>
#include <accelmm/device_heap.hpp>
#include <accelmm/slab.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>

#include <boost/intrusive/list.hpp>
#include <boost/intrusive/set.hpp>

namespace accelmm::mm {

struct HeapRecord;
struct SmallPage;
struct HeapOwner;

/// An extent of the heap that is taken. It is in one set: that of all native pages, that of the
/// small page it lies in, or that of its owner's tiny pieces.
struct HeapPiece : boost::intrusive::set_base_hook<> {
  enum class Kind : std::uint8_t {
    allocation,
    small_page,   // of native pages: cut into granules
    slab,         // of granules: cut into tiny pieces
    reservation,  // of native pages, for ever
    destination,  // where a piece of an allocation is being moved to
  };
  Extent extent;
  Kind kind = Kind::allocation;
  HeapRecord* record = nullptr;  // of an allocation and of a destination
  SmallPage* page = nullptr;     // that it is, or lies in; null for other native pages
  HeapPiece* target = nullptr;   // its destination, while it is moved
};

struct HeapPieceOffset {
  using type = RegionOffset;
  const type& operator()(const HeapPiece& piece) const { return piece.extent.offset; }
};
using HeapPieceSet =
    boost::intrusive::set<HeapPiece, boost::intrusive::key_of_value<HeapPieceOffset>,
                          boost::intrusive::constant_time_size<false>>;

/// An allocation. Made before it has memory, so that whatever comes later needs none of its own.
struct HeapRecord : boost::intrusive::set_base_hook<> {
  enum class Place : std::uint8_t { native, granules, tiny };

  [[nodiscard]] std::span<HeapPiece> pieces() {
    return many ? std::span(many.get(), count) : std::span(&one, 1);
  }
  [[nodiscard]] bool pinned() const { return pins > 0 || lifetime == Lifetime::pinned; }

  AllocationId id{};
  HeapOwner* owner = nullptr;
  Place place = Place::native;
  Lifetime lifetime = Lifetime::short_lived;
  bool waits = false;  // for a point
  Alignment alignment{1};
  Range<RegionOffset> within{};
  ByteCount requested;
  std::uint32_t pins = 0;
  std::uint32_t moves = 0;  // of its pieces, begun and not ended
  std::size_t count = 1;    // of pieces, those freed one by one included
  std::size_t live = 1;     // of pieces
  Charge charge;            // of native pages; an allocation of small pieces is charged 0 bytes
  HeapPiece one;
  std::unique_ptr<HeapPiece[]> many;  // instead of `one`
  struct Wait : DeferredFrees::Entry {
    explicit Wait(HeapRecord& of) : record(of) {}
    HeapRecord& record;
  };
  Wait wait{*this};
};

struct HeapRecordId {
  using type = AllocationId;
  const type& operator()(const HeapRecord& record) const { return record.id; }
};
using HeapRecordSet =
    boost::intrusive::set<HeapRecord, boost::intrusive::key_of_value<HeapRecordId>,
                          boost::intrusive::constant_time_size<false>>;

/// A native page that the small pieces of one owner share.
struct SmallPage : boost::intrusive::list_base_hook<> {
  SmallPage(HeapOwner& of, Extent extent, PageAllocator cut) : owner(of), granules(std::move(cut)) {
    self.extent = extent;
    self.kind = HeapPiece::Kind::small_page;
    self.page = this;
  }
  /// What is not known to fail.
  [[nodiscard]] bool may_have(ByteCount size) const { return size < refused; }
  [[nodiscard]] Extent local(Extent extent) const {
    return {RegionOffset((extent.offset - self.extent.offset).value()), extent.length};
  }

  HeapOwner& owner;
  HeapPiece self;
  PageAllocator granules;  // offsets inside the page
  HeapPieceSet pieces;     // offsets in the heap
  std::size_t live = 0;    // of pieces
  ByteCount live_bytes;
  Charge charge;  // while a piece is live
  // The least size that was not found here since a piece was last freed.
  ByteCount refused{std::numeric_limits<std::uint64_t>::max()};
};
using SmallPageList =
    boost::intrusive::list<SmallPage, boost::intrusive::constant_time_size<false>>;

struct HeapOwner {
  OwnerId id{};
  std::shared_ptr<Account> account;
  bool closed = false;
  std::uint64_t records = 0;  // live and waiting
  ByteCount held;
  ByteCount peak;
  ByteCount requested;
  ByteCount pending;
  SmallPageList pages;  // oldest first
  std::uint32_t spare_pages = 0;
  HeapPieceSet tiny;
  std::uint64_t tiny_count = 0;
  std::unique_ptr<SlabSource> source;
  std::optional<Slab> slab;  // from the first tiny piece on
};

}  // namespace accelmm::mm
