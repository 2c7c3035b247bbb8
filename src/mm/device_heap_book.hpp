// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "mm/device_heap_records.hpp"

#include <accelmm/deferred_frees.hpp>
#include <accelmm/device_heap.hpp>

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

namespace accelmm::mm {

/// Who holds what of a heap: all of DeviceHeap but the lock and the calls outward.
///
/// Native pages come from one PageAllocator. Each is free there, or in a piece of `native_`: an
/// allocation's, a small page, a reservation, a destination. Small pages are cut by an allocator of
/// granules each, and slabs of granules by one Slab an owner.
/// Threads   externally synchronised.
class HeapBook {
 public:
  static constexpr ByteCount granule{4096};
  /// Above, a piece takes granules: half of one is the least that a class of its own would save.
  static constexpr ByteCount largest_tiny{2048};
  static constexpr ByteCount slab_unit{std::uint64_t{1} << 16};  // slabs of tiny classes

  HeapBook(const DeviceHeap::Options& options, PageAllocator pages);
  ~HeapBook();
  HeapBook(const HeapBook&) = delete;
  HeapBook& operator=(const HeapBook&) = delete;

  // device_heap_book.cpp
  [[nodiscard]] Result<OwnerId> add_owner(std::shared_ptr<Account> account);
  [[nodiscard]] Result<void> close_owner(OwnerId id);
  /// Takes `room` on success.
  [[nodiscard]] Result<DeviceHeap::Allocated> allocate(OwnerId id,
                                                       const DeviceHeap::Request& request,
                                                       std::unique_ptr<HeapRecord>& room);
  [[nodiscard]] Result<void> free(OwnerId id, AllocationId allocation);
  [[nodiscard]] Result<void> free(OwnerId id, Extent extent);
  [[nodiscard]] Result<void> free_after(OwnerId id, AllocationId allocation, std::uint64_t point);
  ByteCount retire(std::uint64_t point, std::size_t limit);
  [[nodiscard]] Result<void> reserve(Extent extent);
  [[nodiscard]] Result<OwnerId> owner_of(Extent extent) const;
  [[nodiscard]] HeapRecord* live_record(AllocationId allocation) const;

  // device_heap_small.cpp
  ByteCount trim();
  [[nodiscard]] Result<Extent> take_slab(HeapOwner& owner, ByteCount size, Alignment alignment);
  void give_slab(HeapOwner& owner, Extent extent);

  // device_heap_moves.cpp
  [[nodiscard]] Result<void> begin_move(const DeviceHeap::Move& move);
  [[nodiscard]] Result<void> commit_move(const DeviceHeap::Move& move);
  [[nodiscard]] Result<void> abort_move(const DeviceHeap::Move& move);
  /// Throws std::bad_alloc.
  [[nodiscard]] std::vector<DeviceHeap::Move> plan_moves(ByteCount budget,
                                                         const DeviceHeap::Goal& goal) const;

  // device_heap_report.cpp
  [[nodiscard]] Shortage explain(OwnerId id, const DeviceHeap::Request& request) const;
  [[nodiscard]] const DeviceHeap::Statistics& statistics() const { return counts_; }
  [[nodiscard]] DeviceHeap::Statistics recount() const;
  void validate() const;

  /// What could be had: free, and spare.
  [[nodiscard]] ByteCount available() const { return counts_.free + counts_.spare; }
  /// The size of a request as it would be charged or cut, or more than there is.
  [[nodiscard]] ByteCount rounded(const DeviceHeap::Request& request) const;

 private:
  friend class MovePlan;
  using Owners = std::map<OwnerId, std::unique_ptr<HeapOwner>>;

  [[nodiscard]] HeapOwner* find_owner(OwnerId id) const;
  void validate(const HeapOwner& owner) const;
  [[nodiscard]] bool is_small(const DeviceHeap::Request& request) const;
  [[nodiscard]] bool is_tiny(const DeviceHeap::Request& request) const;
  [[nodiscard]] ByteCount whole_pages(ByteCount size) const;
  [[nodiscard]] Result<void> place(HeapOwner& owner, const DeviceHeap::Request& request,
                                   HeapRecord& record);
  [[nodiscard]] Result<void> place_as_it_is(HeapOwner& owner, const DeviceHeap::Request& request,
                                            HeapRecord& record);
  [[nodiscard]] Result<void> place_aligned(HeapOwner& owner, const DeviceHeap::Request& request,
                                           HeapRecord& record);
  [[nodiscard]] Result<void> place_native(HeapOwner& owner, const DeviceHeap::Request& request,
                                          HeapRecord& record);
  [[nodiscard]] Result<void> place_small(HeapOwner& owner, const DeviceHeap::Request& request,
                                         HeapRecord& record);
  [[nodiscard]] Result<void> make_slab(HeapOwner& owner);
  [[nodiscard]] Result<void> place_tiny(HeapOwner& owner, const DeviceHeap::Request& request,
                                        HeapRecord& record);
  [[nodiscard]] HeapPiece* find_piece(const HeapOwner& owner, Extent extent) const;
  [[nodiscard]] HeapPiece* find_native(RegionOffset offset) const;
  [[nodiscard]] Result<HeapRecord*> freeable(OwnerId id, AllocationId allocation) const;
  void release(HeapRecord& record);
  void release_piece(HeapRecord& record, HeapPiece& piece);
  void forget(HeapRecord& record);
  void forget_if_over(HeapOwner& owner);
  void hold(HeapOwner& owner, ByteCount bytes);
  void drop(HeapOwner& owner, ByteCount bytes);

  [[nodiscard]] Result<void> take_granules(HeapOwner& owner, const PageAllocator::Request& request,
                                           HeapPiece& piece);
  [[nodiscard]] Result<Extent> take_in(SmallPage& page, const PageAllocator::Request& request);
  [[nodiscard]] Result<SmallPage*> add_page(HeapOwner& owner, const Range<RegionOffset>& within);
  /// Makes a piece of granules that are taken one of the page's. Errors  over_quota.
  [[nodiscard]] Result<void> enter(SmallPage& page, HeapPiece& piece, Extent extent);
  void leave(SmallPage& page, HeapPiece& piece);
  void give_page(SmallPage& page);
  void tiny_gone(HeapOwner& owner);

  struct MovedPiece {
    HeapRecord* record = nullptr;
    HeapPiece* piece = nullptr;
  };
  [[nodiscard]] Result<MovedPiece> movable(const DeviceHeap::Move& move) const;
  [[nodiscard]] Result<MovedPiece> moving(const DeviceHeap::Move& move) const;
  void end_move(const MovedPiece& moved);
  [[nodiscard]] bool may_lie(const HeapRecord& record, Extent extent) const;
  [[nodiscard]] ByteCount least_to_move(ByteCount size) const;

  const DeviceHeap::Options options_;
  const std::uint64_t native_;  // bytes of a native page
  const bool cuts_;             // native pages are larger than granules
  const bool cuts_slabs_;       // and hold slabs
  PageAllocator pages_;
  HeapPieceSet taken_;  // native pages
  HeapRecordSet records_;
  Owners owners_;
  DeferredFrees deferred_;
  std::uint64_t reached_ = 0;
  std::uint64_t last_owner_ = 0;
  std::uint64_t last_record_ = 0;
  DeviceHeap::Statistics counts_;
};

}  // namespace accelmm::mm
