// SPDX-License-Identifier: Apache-2.0
//
// Theory. A request is first looked for in the bins, which answer in constant time: a few holes of
// its own list, then any hole of the lists above, all of which fit. For the two alignments that
// matter, the page and the large page, the bins of that length are exact, and so is the greatest
// Room in the tree: where the bins have nothing surely long enough, the tree finds a hole that
// fits, or shows that there is none, on one way from root to leaf. For any other alignment a hole of
// length + alignment - page always fits, and only when no such hole is left are all holes of the
// length looked at.
#include "mm/va_space.hpp"

#include <bit>
#include <limits>

namespace accelmm::mm {

namespace {

// Holes tried, from the lowest up or the highest down, before the search asks for one that is sure
// to fit: what 2 or 3 leaves of the tree hold.
constexpr std::uint64_t max_misses = 32;
constexpr std::uint64_t any_number = std::numeric_limits<std::uint64_t>::max();

/// The length of a hole that fits wherever it begins; above every hole if that overflows.
std::uint64_t sure_length(const Wish& wish, std::uint64_t page) {
  const std::uint64_t slack = wish.alignment - page;
  return wish.length > any_number - slack ? any_number : wish.length + slack;
}

}  // namespace

VaSpace::VaSpace(VaInterval range, std::uint64_t page, const OpenParts& parts)
    : range_(range),
      page_(page),
      page_log2_(static_cast<unsigned>(std::countr_zero(page))),
      parts_(parts),
      tree_(parts_, holes_),
      whole_(0, (range.end - range.begin) >> page_log2_),
      large_(1, (range.end - range.begin) >> page_log2_) {}

bool VaSpace::start() {
  HolePool::Chunk chunk = holes_.next_chunk();
  if (!chunk || !whole_.ok() || !large_.ok()) return false;
  holes_.adopt(std::move(chunk));
  const VaId hole = holes_.take();
  holes_[hole] = {range_.begin, range_.end, {}};
  const VaUse use(VaUse::Kind::hole, hole);
  if (!tree_.start(range_, use)) return false;
  enter(hole);
  count_in(use, range_.end - range_.begin);
  return true;
}

/// Whether one of the two lengths of a hole tells if the wish fits in one of its parts.
bool VaSpace::is_exact(const Wish& wish) const {
  return wish.alignment == page_ || (wish.alignment == parts_.large() && wish.phase == 0);
}

std::optional<std::uint64_t> VaSpace::place(const Wish& wish, VaId id) {
  ++looked_at_;
  const Hole& hole = holes_[id];
  return parts_.place(wish, hole.begin, hole.end);
}

/// Tries the first holes of the wish's own list.
std::optional<std::uint64_t> VaSpace::probe(const Wish& wish, unsigned link) {
  VaId id = (link == 0 ? whole_ : large_).same(wish.length >> page_log2_);
  for (unsigned tried = 0; id != 0 && tried < VaBins::probes; ++tried) {
    if (const auto at = place(wish, id)) return at;
    id = holes_[id].link[link].next;
  }
  return std::nullopt;
}

std::optional<std::uint64_t> VaSpace::find_best(const Wish& wish) {
  const bool exact = is_exact(wish);
  const unsigned link = exact && wish.alignment != page_ ? 1 : 0;
  VaId id = (link == 0 ? whole_ : large_).sure(wish.length >> page_log2_);
  if (id != 0) __builtin_prefetch(&holes_[id]);  // one miss with the first probe
  if (const auto at = probe(wish, link)) return at;
  if (exact) {
    return id != 0 ? place(wish, id) : find_nearest(wish, 1);
  }
  id = 0;
  // With the phase below it, the length from the first aligned address always does.
  if (wish.alignment == parts_.large() && wish.phase < any_number - wish.length)
    id = large_.sure((wish.length + wish.phase) >> page_log2_);
  if (id == 0) id = whole_.sure(sure_length(wish, page_) >> page_log2_);
  return id != 0 ? place(wish, id) : find_nearest(wish, 1);
}

std::optional<std::uint64_t> VaSpace::find_nearest(const Wish& wish, unsigned look_on) {
  if (is_exact(wish)) {
    const bool page = wish.alignment == page_;
    return visit(wish, {page ? wish.length : 0, page ? 0 : wish.length}, look_on, any_number);
  }
  if (const auto at = visit(wish, {wish.length, 0}, look_on, max_misses)) return at;
  if (const auto at = visit(wish, {sure_length(wish, page_), 0}, look_on, any_number)) return at;
  return visit(wish, {wish.length, 0}, 1, any_number);
}

/// The best of the first `look_on` holes with such room that fit; gives up after so many misses.
std::optional<std::uint64_t> VaSpace::visit(const Wish& wish, const Room& need, unsigned look_on,
                                            std::uint64_t misses) {
  std::optional<std::uint64_t> found;
  std::uint64_t shortest = any_number;
  tree_.visit_holes({wish.low, wish.high}, need,
                    wish.from_the_top ? VaTree::Walk::downwards : VaTree::Walk::upwards,
                    [&](VaId, std::uint64_t begin, std::uint64_t end) {
                      ++looked_at_;
                      const auto at = parts_.place(wish, begin, end);
                      if (!at) return --misses == 0;
                      if (!found || end - begin < shortest) {
                        found = at;
                        shortest = end - begin;
                      }
                      return --look_on == 0;
                    });
  return found;
}

void VaSpace::enter(VaId id) {
  const Room room = parts_.room_of(holes_[id].begin, holes_[id].end);
  whole_.insert(holes_, id, room.whole >> page_log2_);
  large_.insert(holes_, id, room.large >> page_log2_);
}

void VaSpace::drop(VaId id, const Room& room) {
  whole_.remove(holes_, id, room.whole >> page_log2_);
  large_.remove(holes_, id, room.large >> page_log2_);
}

/// Moves a hole to other lists only where the new lengths belong there.
void VaSpace::resize(VaId id, VaInterval to) {
  Hole& hole = holes_[id];
  const Room from = parts_.room_of(hole.begin, hole.end);
  const Room room = parts_.room_of(to.begin, to.end);
  hole.begin = to.begin;
  hole.end = to.end;
  const auto move = [&](VaBins& bins, std::uint64_t old_length, std::uint64_t new_length) {
    old_length >>= page_log2_;
    new_length >>= page_log2_;
    if (VaBins::bin_of(old_length) == VaBins::bin_of(new_length)) return;
    bins.remove(holes_, id, old_length);
    bins.insert(holes_, id, new_length);
  };
  move(whole_, from.whole, room.whole);
  move(large_, from.large, room.large);
}

void VaSpace::add(Counts& counts, VaUse use, std::uint64_t bytes) const {
  Count& count = counts.of_kind[static_cast<std::size_t>(use.kind())];
  ++count.intervals;
  count.bytes += bytes;
  if (use.kind() == VaUse::Kind::taken)
    counts.guard_bytes += std::uint64_t{use.detail()} << page_log2_;
}

void VaSpace::count_in(VaUse use, std::uint64_t bytes) {
  add(counts_, use, bytes);
}

void VaSpace::count_out(VaUse use, std::uint64_t bytes) {
  Count& count = counts_.of_kind[static_cast<std::size_t>(use.kind())];
  --count.intervals;
  count.bytes -= bytes;
  if (use.kind() == VaUse::Kind::taken)
    counts_.guard_bytes -= std::uint64_t{use.detail()} << page_log2_;
}

/// Gets memory for one interval in use more, and for all holes that giving back may ever leave.
bool VaSpace::prepare(const VaTree::Leaf& leaf) {
  VaTree::Growth growth = tree_.grow_for_split(leaf);
  if (!growth.ok()) return false;
  // Between any two holes is an interval in use: n of these part n + 1 holes.
  std::size_t in_use = 1;
  for (std::size_t kind = 1; kind < counts_.of_kind.size(); ++kind)
    in_use += counts_.of_kind[kind].intervals;
  if (holes_.capacity() < in_use + 1) {
    HolePool::Chunk chunk = holes_.next_chunk();
    if (!chunk) return false;
    holes_.adopt(std::move(chunk));
  }
  tree_.adopt(std::move(growth));
  return true;
}

Result<void> VaSpace::take(VaTree::Spot& spot, VaInterval piece, VaUse use) {
  const VaInterval hole{spot.begin(), tree_.end_of(spot)};
  ACCELMM_CHECK(spot.use().is_hole() && !use.is_hole());
  ACCELMM_CHECK(hole.begin <= piece.begin && piece.begin < piece.end && piece.end <= hole.end);
  if (!prepare(*spot.leaf)) return fail(Errc::no_memory, "no room for the node of an interval");
  count_out(spot.use(), hole.end - hole.begin);
  count_in(use, piece.end - piece.begin);
  split_hole(spot, hole, piece, use);
  return {};
}

void VaSpace::split_hole(VaTree::Spot& spot, VaInterval hole, VaInterval piece, VaUse use) {
  const VaId id = spot.use().detail();
  const Room room = parts_.room_of(hole.begin, hole.end);
  const bool may_split_leaf = spot.leaf->count + 2 > VaTree::fanout;
  const bool front = hole.begin < piece.begin;
  const bool back = piece.end < hole.end;
  if (front) {
    resize(id, {hole.begin, piece.begin});
    count_in(spot.use(), piece.begin - hole.begin);
    tree_.split(spot, piece.begin, use);
  } else {
    tree_.set(spot, use);
  }
  if (back) {
    VaId rest = id;
    if (front) {
      rest = holes_.take();
      holes_[rest] = {piece.end, hole.end, {}};
      enter(rest);
    } else {
      resize(id, {piece.end, hole.end});
    }
    const VaUse rest_use(VaUse::Kind::hole, rest);
    count_in(rest_use, hole.end - piece.end);
    if (may_split_leaf)
      spot = tree_.find(piece.begin);
    else if (front)
      ++spot.at;
    tree_.split(spot, piece.end, rest_use);
  }
  if (!front && !back) {
    drop(id, room);
    holes_.give(id);
  }
  if (!may_split_leaf) {
    tree_.lower_room(spot, room);
    return;
  }
  tree_.refresh_room(tree_.find(hole.begin));
  tree_.refresh_room(tree_.find(hole.end - 1));
}

void VaSpace::give(VaTree::Spot& spot) {
  ACCELMM_DCHECK(!spot.use().is_hole());
  const VaUse use_before = tree_.use_before(spot);
  const VaUse use_behind = tree_.use_behind(spot);
  const VaId before = use_before.is_hole() ? use_before.detail() : 0;
  const VaId behind = use_behind.is_hole() ? use_behind.detail() : 0;
  if (before != 0) __builtin_prefetch(&holes_[before]);
  if (behind != 0) __builtin_prefetch(&holes_[behind]);
  const bool far_before = before != 0 && spot.at == 0;
  const bool far_behind = behind != 0 && spot.at + 1 == spot.leaf->count;
  VaInterval merged{spot.begin(), VaTree::end_of(spot)};
  count_out(spot.use(), merged.end - merged.begin);
  if (before != 0) {
    const std::uint64_t begin = far_before ? holes_[before].begin : spot.leaf->begin[spot.at - 1];
    count_out(use_before, merged.begin - begin);
    merged.begin = begin;
  }
  if (behind != 0) {
    const VaInterval hole{
        merged.end, far_behind ? holes_[behind].end : VaTree::end_of(*spot.leaf, spot.at + 1)};
    count_out(use_behind, hole.end - hole.begin);
    merged.end = hole.end;
    if (before != 0) {
      drop(behind, parts_.room_of(hole.begin, hole.end));
      holes_.give(behind);
    }
  }
  const VaId id = keep_hole(before != 0 ? before : behind, merged);
  const VaUse use(VaUse::Kind::hole, id);
  count_in(use, merged.end - merged.begin);
  if (far_before || far_behind) {
    join_far(spot, before, behind, id);
    return;
  }
  if (before == 0) tree_.set(spot, use);
  tree_.raise_room(spot, parts_.room_of(merged.begin, merged.end));
  if (before == 0) ++spot.at;
  const unsigned gone = static_cast<unsigned>(before != 0) + static_cast<unsigned>(behind != 0);
  if (gone > 0) tree_.join(spot, gone);
}

/// Gives a hole these ends, or makes one where the number is 0.
VaId VaSpace::keep_hole(VaId id, VaInterval ends) {
  if (id != 0) {
    resize(id, ends);
    return id;
  }
  id = holes_.take();
  holes_[id] = {ends.begin, ends.end, {}};
  enter(id);
  return id;
}

/// The rest of give(), where a neighbour lies in another leaf.
void VaSpace::join_far(VaTree::Spot& spot, VaId before, VaId behind, VaId id) {
  const std::uint64_t begin = spot.begin();
  const Hole merged = holes_[id];
  const VaUse use(VaUse::Kind::hole, id);
  if (behind != 0) {
    const VaTree::Spot next = tree_.find(tree_.end_of(spot));
    tree_.set(next, spot.use());
    tree_.refresh_room(next);
    tree_.join(next, 1);
    spot = tree_.find(begin);
  }
  if (before != 0)
    tree_.join(spot, 1);
  else
    tree_.set(spot, use);
  tree_.refresh_room(tree_.find(merged.begin));
}

void VaSpace::change(const VaTree::Spot& spot, VaUse use) {
  ACCELMM_DCHECK(!spot.use().is_hole() && !use.is_hole());
  const std::uint64_t bytes = tree_.end_of(spot) - spot.begin();
  count_out(spot.use(), bytes);
  count_in(use, bytes);
  tree_.set(spot, use);
}

VaSpace::Counts VaSpace::recount() const {
  Counts counts;
  for_each(
      [&](std::uint64_t begin, std::uint64_t end, VaUse use) { add(counts, use, end - begin); });
  return counts;
}

std::size_t VaSpace::bytes() const {
  return sizeof *this + holes_.bytes() + tree_.bytes() + whole_.bytes() + large_.bytes();
}

void VaSpace::validate() const {
  tree_.validate();
  bool hole_before = false;
  for_each([&](std::uint64_t begin, std::uint64_t end, VaUse use) {
    ACCELMM_CHECK((begin & (page_ - 1)) == 0 && (end & (page_ - 1)) == 0);
    ACCELMM_CHECK(!(hole_before && use.is_hole()));
    hole_before = use.is_hole();
  });
  const Counts counts = recount();
  ACCELMM_CHECK(counts == counts_);
  const std::size_t holes = counts[VaUse::Kind::hole].intervals;
  ACCELMM_CHECK(holes == holes_.live());
  std::size_t in_use = 0;
  for (std::size_t kind = 1; kind < counts.of_kind.size(); ++kind)
    in_use += counts.of_kind[kind].intervals;
  ACCELMM_CHECK(holes_.capacity() >= in_use + 1);
  const VaBins* const sets[] = {&whole_, &large_};
  for (unsigned link = 0; link < 2; ++link) {
    std::size_t with_length = 0;
    for_each([&](std::uint64_t begin, std::uint64_t end, VaUse use) {
      const Room room = parts_.room_of(begin, end);
      if (use.is_hole() && (link == 0 ? room.whole : room.large) > 0) ++with_length;
    });
    std::size_t in_lists = 0;
    sets[link]->for_each(holes_, [&](VaId id, unsigned bin) {
      const Room room = parts_.room_of(holes_[id].begin, holes_[id].end);
      ACCELMM_CHECK(bin == VaBins::bin_of((link == 0 ? room.whole : room.large) >> page_log2_));
      ACCELMM_CHECK(tree_.find(holes_[id].begin).use().detail() == id);
      ++in_lists;
    });
    ACCELMM_CHECK(in_lists == with_length);
  }
}

}  // namespace accelmm::mm
