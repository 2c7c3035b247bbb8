// SPDX-License-Identifier: Apache-2.0
//
// One move: its destination is taken, the driver copies, then one of the two places is freed. Until
// then both are taken, so that no state in between loses a byte or gives it twice.
#include "mm/device_heap_book.hpp"

#include <accelmm/check.hpp>

#include <algorithm>
#include <new>

namespace accelmm::mm {

namespace {

HeapPiece* piece_at(HeapRecord& record, Extent extent) {
  const auto pieces = record.pieces();
  const auto found = std::ranges::find_if(
      pieces, [&](const HeapPiece& piece) { return piece.is_linked() && piece.extent == extent; });
  return found == pieces.end() ? nullptr : &*found;
}

}  // namespace

bool HeapBook::may_lie(const HeapRecord& record, Extent extent) const {
  const std::uint64_t offset = extent.offset.value();
  if (extent.length > counts_.total || offset > (counts_.total - extent.length).value())
    return false;
  if (!record.alignment.divides(extent.offset)) return false;
  if (!record.within.empty() && !record.within.contains({extent.offset, extent.end()}))
    return false;
  return offset % (record.place == HeapRecord::Place::native ? native_ : granule.value()) == 0;
}

Result<HeapBook::MovedPiece> HeapBook::movable(const DeviceHeap::Move& move) const {
  HeapRecord* const record = live_record(move.allocation);
  HeapPiece* const piece = record == nullptr ? nullptr : piece_at(*record, move.from);
  if (piece == nullptr) return fail(Errc::invalid_argument, "allocation has no such extent");
  if (record->pinned() || record->place == HeapRecord::Place::tiny)
    return fail(Errc::invalid_argument, "allocation cannot be moved");
  if (piece->target != nullptr) return fail(Errc::invalid_argument, "extent is being moved");
  if (move.to.length != move.from.length || !may_lie(*record, move.to))
    return fail(Errc::invalid_argument, "allocation may not lie there");
  return MovedPiece{record, piece};
}

Result<HeapBook::MovedPiece> HeapBook::moving(const DeviceHeap::Move& move) const {
  HeapRecord* const record = live_record(move.allocation);
  HeapPiece* const piece = record == nullptr ? nullptr : piece_at(*record, move.from);
  if (piece == nullptr || piece->target == nullptr || piece->target->extent != move.to)
    return fail(Errc::invalid_argument, "no such move was begun");
  return MovedPiece{record, piece};
}

Result<void> HeapBook::begin_move(const DeviceHeap::Move& move) {
  const auto found = movable(move);
  if (!found) return fail(found.error());
  std::unique_ptr<HeapPiece> target(new (std::nothrow) HeapPiece);
  if (!target) return fail(Errc::no_memory, "no room to note the move");
  target->kind = HeapPiece::Kind::destination;
  target->record = found->record;
  target->extent = move.to;
  if (found->record->place == HeapRecord::Place::native) {
    if (auto taken = pages_.reserve(move.to); !taken) return taken;
    taken_.insert(*target);
    counts_.free -= move.to.length;
    counts_.moving += move.to.length;
  } else {
    const HeapPiece* const place = find_native(move.to.offset);
    SmallPage* const page = place == nullptr ? nullptr : place->page;
    if (page == nullptr || &page->owner != found->record->owner ||
        move.to.end() > page->self.extent.end())
      return fail(Errc::invalid_argument, "small pieces move inside their owner's native pages");
    if (auto taken = page->granules.reserve(page->local(move.to)); !taken) return taken;
    if (auto entered = enter(*page, *target, move.to); !entered) return entered;
  }
  found->piece->target = target.release();
  ++found->record->moves;
  return {};
}

void HeapBook::end_move(const MovedPiece& moved) {
  delete moved.piece->target;
  moved.piece->target = nullptr;
  --moved.record->moves;
}

Result<void> HeapBook::commit_move(const DeviceHeap::Move& move) {
  const auto moved = moving(move);
  if (!moved) return fail(moved.error());
  HeapPiece& piece = *moved->piece;
  HeapPiece& target = *piece.target;
  if (moved->record->place == HeapRecord::Place::native) {
    taken_.erase(taken_.iterator_to(piece));
    taken_.erase(taken_.iterator_to(target));
    ACCELMM_CHECK(pages_.free(move.from).has_value());
    piece.extent = move.to;
    taken_.insert(piece);
    counts_.free += move.to.length;
    counts_.moving -= move.to.length;
  } else {
    leave(*piece.page, piece);
    target.page->pieces.erase(target.page->pieces.iterator_to(target));
    piece.page = target.page;
    piece.extent = move.to;
    piece.page->pieces.insert(piece);
  }
  end_move(*moved);
  return {};
}

Result<void> HeapBook::abort_move(const DeviceHeap::Move& move) {
  const auto moved = moving(move);
  if (!moved) return fail(moved.error());
  HeapPiece& target = *moved->piece->target;
  if (moved->record->place == HeapRecord::Place::native) {
    taken_.erase(taken_.iterator_to(target));
    ACCELMM_CHECK(pages_.free(move.to).has_value());
    counts_.free += move.to.length;
    counts_.moving -= move.to.length;
  } else {
    leave(*target.page, target);
  }
  end_move(*moved);
  return {};
}

}  // namespace accelmm::mm
