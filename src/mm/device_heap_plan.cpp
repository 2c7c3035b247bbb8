// SPDX-License-Identifier: Apache-2.0
//
// Which moves make a long run, or empty native pages, for the fewest bytes copied.
//
// A run: every window of the wanted length that begins or ends beside something taken is weighed by
// the bytes of what lies in it, and the cheapest whose contents find room outside are emptied.
// Native pages: the emptiest first, each owner's into its own fullest.
#include "mm/device_heap_book.hpp"

#include <algorithm>
#include <cstddef>
#include <optional>
#include <vector>

namespace accelmm::mm {

namespace {

using Move = DeviceHeap::Move;

// Beyond, a window is so dear that a smaller budget would have refused it; each costs a packing.
constexpr std::size_t windows_tried = 32;

bool stays(const HeapPiece& piece) {
  return piece.kind != HeapPiece::Kind::allocation || piece.target != nullptr ||
         piece.record->pinned() || piece.record->waits ||
         piece.record->place == HeapRecord::Place::tiny;
}

/// Free room that moves may go to.
class Room {
 public:
  void add(RegionOffset begin, RegionOffset end) {
    if (begin < end) gaps_.push_back({begin, end});
  }

  /// Takes the smallest gap that a piece fits into.
  [[nodiscard]] std::optional<Extent> take(const HeapPiece& piece) {
    const HeapRecord& record = *piece.record;
    Gap* best = nullptr;
    RegionOffset best_begin;
    for (Gap& gap : gaps_) {
      if (best != nullptr && gap.size() >= best->size()) continue;
      RegionOffset begin = gap.begin;
      RegionOffset end = gap.end;
      if (!record.within.empty()) {
        begin = std::max(begin, record.within.begin);
        end = std::min(end, record.within.end);
      }
      // Gaps are whole units, and a range need not be.
      const auto aligned = round_up(ByteCount(begin.value()), record.alignment);
      if (!aligned || aligned->value() >= end.value()) continue;
      begin = RegionOffset(aligned->value());
      if ((begin - gap.begin).value() % unit_ != 0) continue;
      if (end - begin < piece.extent.length) continue;
      best = &gap;
      best_begin = begin;
    }
    if (best == nullptr) return std::nullopt;
    const Gap after{best_begin + piece.extent.length, best->end};
    best->end = best_begin;
    add(after.begin, after.end);
    return Extent{best_begin, piece.extent.length};
  }

  explicit Room(std::uint64_t unit) : unit_(unit) {}

 private:
  using Gap = Range<RegionOffset>;
  std::vector<Gap> gaps_;
  std::uint64_t unit_;
};

/// Appends moves of all pieces into a room; false, and nothing appended, if one finds no place.
bool pack(std::vector<const HeapPiece*> pieces, Room& room, std::vector<Move>& moves) {
  std::ranges::sort(pieces, [](const HeapPiece* a, const HeapPiece* b) {
    if (a->extent.length != b->extent.length) return a->extent.length > b->extent.length;
    return a->extent.offset < b->extent.offset;
  });
  const std::size_t before = moves.size();
  for (const HeapPiece* piece : pieces) {
    const auto to = room.take(*piece);
    if (!to) {
      moves.resize(before);
      return false;
    }
    moves.push_back({piece->record->id, piece->extent, *to});
  }
  return true;
}

void sort_by_origin(std::vector<Move>& moves) {
  std::ranges::sort(moves, {}, [](const Move& move) { return move.from.offset; });
}

}  // namespace

/// What a book holds, laid out for planning.
class MovePlan {
 public:
  explicit MovePlan(const HeapBook& book) : book_(book) {}

  [[nodiscard]] std::vector<Move> run(ByteCount budget, ByteCount size, Alignment alignment);
  [[nodiscard]] std::vector<Move> pages(ByteCount budget) const;

 private:
  struct Item {
    const HeapPiece* piece;
    std::uint64_t bytes_before;  // of all items before
    std::uint64_t fixed_before;  // items before that stay
  };
  struct Window {
    RegionOffset begin;
    std::uint64_t cost;
  };

  void lay_out();
  void weigh(RegionOffset begin, ByteCount size, std::vector<Window>& windows) const;
  [[nodiscard]] Room room_outside(Range<RegionOffset> window) const;
  /// Indices of the items that a window overlaps.
  [[nodiscard]] std::pair<std::size_t, std::size_t> inside(Range<RegionOffset> window) const;

  const HeapBook& book_;
  std::vector<Item> items_;  // and one behind the last
};

void MovePlan::lay_out() {
  std::uint64_t bytes = 0;
  std::uint64_t fixed = 0;
  for (const HeapPiece& piece : book_.taken_) {
    items_.push_back({&piece, bytes, fixed});
    bytes += piece.extent.length.value();
    if (stays(piece)) ++fixed;
  }
  items_.push_back({nullptr, bytes, fixed});
}

std::pair<std::size_t, std::size_t> MovePlan::inside(Range<RegionOffset> window) const {
  const auto last = items_.end() - 1;
  const auto first = std::partition_point(items_.begin(), last, [&](const Item& item) {
    return item.piece->extent.end() <= window.begin;
  });
  const auto end = std::partition_point(
      first, last, [&](const Item& item) { return item.piece->extent.offset < window.end; });
  return {static_cast<std::size_t>(first - items_.begin()),
          static_cast<std::size_t>(end - items_.begin())};
}

void MovePlan::weigh(RegionOffset begin, ByteCount size, std::vector<Window>& windows) const {
  const ByteCount total = book_.counts_.total;
  if (size > total || begin.value() > (total - size).value()) return;
  const auto [first, end] = inside({begin, begin + size});
  if (items_[end].fixed_before != items_[first].fixed_before) return;
  windows.push_back({begin, items_[end].bytes_before - items_[first].bytes_before});
}

Room MovePlan::room_outside(Range<RegionOffset> window) const {
  Room room(book_.native_);
  RegionOffset at(0);
  const auto add = [&](RegionOffset begin, RegionOffset end) {
    room.add(begin, std::min(end, window.begin));
    room.add(std::max(begin, window.end), end);
  };
  for (std::size_t i = 0; i + 1 < items_.size(); ++i) {
    add(at, items_[i].piece->extent.offset);
    at = items_[i].piece->extent.end();
  }
  add(at, RegionOffset(book_.counts_.total.value()));
  return room;
}

std::vector<Move> MovePlan::run(ByteCount budget, ByteCount size, Alignment alignment) {
  if (size == ByteCount(0) || size > book_.counts_.free) return {};
  lay_out();
  size = book_.whole_pages(size);
  // Windows begin at multiples of both the native page and the alignment.
  std::uint64_t step = book_.native_;
  while (step % alignment.value() != 0) step *= 2;
  std::vector<Window> windows;
  weigh(RegionOffset(0), size, windows);
  for (std::size_t i = 0; i + 1 < items_.size(); ++i) {
    const Extent& extent = items_[i].piece->extent;
    const std::uint64_t after = (extent.end().value() + step - 1) / step * step;
    weigh(RegionOffset(after), size, windows);
    if (extent.offset.value() >= size.value())
      weigh(RegionOffset((extent.offset.value() - size.value()) / step * step), size, windows);
  }
  std::ranges::sort(windows, [](const Window& a, const Window& b) {
    return a.cost != b.cost ? a.cost < b.cost : a.begin < b.begin;
  });
  std::size_t tried = 0;
  std::vector<Move> moves;
  for (const Window& window : windows) {
    if (window.cost == 0 || window.cost > budget.value() || ++tried > windows_tried) break;
    const Range<RegionOffset> place{window.begin, window.begin + size};
    const auto [first, end] = inside(place);
    std::vector<const HeapPiece*> pieces;
    for (std::size_t i = first; i < end; ++i) pieces.push_back(items_[i].piece);
    Room room = room_outside(place);
    if (pack(std::move(pieces), room, moves)) break;
  }
  sort_by_origin(moves);
  return moves;
}

std::vector<Move> MovePlan::pages(ByteCount budget) const {
  struct Candidate {
    const SmallPage* page;
    bool chosen = false;  // emptied, or filled
  };
  std::vector<Candidate> candidates;
  for (const auto& [id, owner] : book_.owners_)
    for (const SmallPage& page : owner->pages)
      if (page.live > 0) candidates.push_back({&page});
  std::ranges::sort(candidates, [](const Candidate& a, const Candidate& b) {
    if (a.page->live_bytes != b.page->live_bytes) return a.page->live_bytes < b.page->live_bytes;
    return a.page->self.extent.offset < b.page->self.extent.offset;
  });
  std::vector<Move> moves;
  for (std::size_t from = 0; from < candidates.size(); ++from) {
    const SmallPage& page = *candidates[from].page;
    if (candidates[from].chosen) continue;
    if (page.live_bytes > budget) break;
    std::vector<const HeapPiece*> pieces;
    for (const HeapPiece& piece : page.pieces)
      if (!stays(piece)) pieces.push_back(&piece);
    if (pieces.size() != page.live) continue;
    // The fullest page of this owner that takes all of it.
    for (std::size_t to = candidates.size() - 1; to > from; --to) {
      const SmallPage& target = *candidates[to].page;
      if (candidates[to].chosen || &target.owner != &page.owner) continue;
      Room room(HeapBook::granule.value());
      RegionOffset at = target.self.extent.offset;
      for (const HeapPiece& piece : target.pieces) {
        room.add(at, piece.extent.offset);
        at = piece.extent.end();
      }
      room.add(at, target.self.extent.end());
      if (!pack(pieces, room, moves)) continue;
      candidates[from].chosen = candidates[to].chosen = true;
      budget -= page.live_bytes;
      break;
    }
  }
  sort_by_origin(moves);
  return moves;
}

std::vector<DeviceHeap::Move> HeapBook::plan_moves(ByteCount budget,
                                                   const DeviceHeap::Goal& goal) const {
  MovePlan plan(*this);
  return goal.kind == DeviceHeap::Goal::Kind::run ? plan.run(budget, goal.size, goal.alignment)
                                                  : plan.pages(budget);
}

}  // namespace accelmm::mm
