// SPDX-License-Identifier: Apache-2.0
#include "mmu/books.hpp"

#include <accelmm/check.hpp>
#include <accelmm/mmu/address_space.hpp>

#include <algorithm>
#include <utility>

// Unmap, what any change at the ends of a range needs, and the way back of what was unmapped. The way back never allocates: the records
// of what is gone, taken when it was mapped, go with it.

namespace accelmm::mmu {

const Piece* Unmapped::next_of(const Piece& piece) {
  return piece.next;
}

Range<DeviceAddr> Unmapped::range_of(const Piece& piece) {
  return piece.range;
}

void Unmapped::absorb(Unmapped&& other) {
  ACCELMM_CHECK(space_ != nullptr && space_ == other.space_);
  {
    const std::lock_guard lock(space_->books_->mutex);
    --space_->books_->unreleased;
  }
  other.space_ = nullptr;
  range_ = {std::min(range_.begin, other.range_.begin), std::max(range_.end, other.range_.end)};
  scope_ = std::max(scope_, other.scope_);
  touched_.add(other.touched_);
  ended_at_ = std::max(ended_at_, other.ended_at_);
  space_->pool_->append(tables_, std::move(other.tables_));
  while (other.pieces_ != nullptr) {
    Piece* const piece = std::exchange(other.pieces_, other.pieces_->next);
    piece->next = std::exchange(pieces_, piece);
  }
}

void Unmapped::release(InvalidationDone done) && {
  AddressSpace* const space = std::exchange(space_, nullptr);
  ACCELMM_CHECK(space != nullptr);
  for_each_range([&](Range<DeviceAddr> range) { ACCELMM_CHECK(done.covers(range)); });
  space->released(std::exchange(pieces_, nullptr), std::move(tables_), ended_at_);
}

Result<Unmapped> AddressSpace::unmap(DeviceAddr start) {
  std::unique_lock lock(books_->mutex);
  Operation operation;
  for (;;) {
    const Piece* const piece = books_->has_ended ? nullptr : books_->containing(start);
    if (piece == nullptr || piece->range.begin != start || piece->kind == Piece::Kind::cover)
      return fail(Errc::invalid_argument, "no mapping begins at this device address");
    operation.range = piece->range;
    if (!books_->operations.conflicts(operation.range, operation.kind)) break;
    books_->ended.wait(lock);  // for what may be the end of this mapping
  }
  books_->operations.begin(operation);
  lock.unlock();
  auto detached = remove(operation.range);
  ACCELMM_CHECK(detached.has_value());  // the leaves of the tree are exactly the mappings
  lock.lock();
  const Touched touched = touched_in(operation.range);
  Unmapped gone = collect(operation.range, std::move(*detached), touched);
  gone.ended_at_ = end(operation);
  return gone;
}

Result<Unmapped> AddressSpace::unmap(Range<DeviceAddr> range) {
  std::unique_lock lock(books_->mutex);
  if (books_->has_ended || !books_->is_inside(range))
    return fail(Errc::invalid_argument, "no range of pages of the address space");
  Operation operation;
  books_->wait_and_begin(lock, operation, range);
  TableList cuts;
  auto nodes = prepare_change(range, cuts, Gaps::skip);
  lock.unlock();
  Result<void> done = nodes ? cut(range, cuts) : fail(nodes.error());
  std::optional<Result<Detached<TablePool>>> detached;
  if (done) {
    detached.emplace(remove(range));
    ACCELMM_CHECK(detached->has_value());  // no leaf crosses its ends any more
  }
  lock.lock();
  if (!done) {
    if (nodes) books_->keep_spares(*nodes);
    settle_cuts(range, cuts);
    end(operation);
    return fail(done.error());
  }
  const Touched touched = touched_in(range);
  cut_books(range, *nodes);
  Unmapped gone = collect(range, std::move(**detached), touched);
  settle_cuts(range, cuts);
  gone.ended_at_ = end(operation);
  return gone;
}

// Records and tables for the cuts at both ends of a range.
Result<PieceChain> AddressSpace::prepare_change(Range<DeviceAddr> range, TableList& cuts,
                                                Gaps gaps) {
  if (!(gaps == Gaps::skip ? books_->is_mapped_in_part(range) : books_->is_mapped_all_over(range)))
    return fail(Errc::invalid_argument, "range is not mapped");
  auto nodes = books_->nodes(2);
  if (!nodes) return nodes;
  if (const auto prepared = prepare_cuts(range, cuts); !prepared) {
    books_->keep_spares(*nodes);
    return fail(prepared.error());
  }
  return nodes;
}

Result<void> AddressSpace::prepare_cuts(Range<DeviceAddr> range, TableList& cuts) {
  std::uint32_t needed = 0;
  for (const DeviceAddr edge : {range.begin, range.end}) {
    Piece* const piece = books_->containing(edge);
    if (piece == nullptr || piece->range.begin == edge) continue;
    needed += facts_.tables_for_cut(piece->leaf_sizes);
    books_->spare_tables -= piece->reserve.count;
    pool_->append(cuts, std::move(piece->reserve));
  }
  if (cuts.count >= needed) return {};
  auto more = pool_->take(needed - cuts.count);
  if (!more) return fail(more.error());
  pool_->append(cuts, std::move(*more));
  return {};
}

// Sets aside tables again for what is left beside a range: a later cut there needs them.
void AddressSpace::settle_cuts(Range<DeviceAddr> range, TableList& cuts) {
  const DeviceAddr before(range.begin.value() - std::min<std::uint64_t>(range.begin.value(), 1));
  for (const DeviceAddr beside : {before, range.begin, range.end - ByteCount(1), range.end}) {
    Piece* const piece = books_->containing(beside);
    if (piece == nullptr) continue;
    const std::uint32_t wanted = 2 * facts_.tables_for_cut(piece->leaf_sizes);
    const std::uint32_t had = piece->reserve.count;
    while (piece->reserve.count < wanted && cuts.count > 0) {
      const Table table = pool_->pop(cuts);
      pool_->push(piece->reserve, table, table.contents);
    }
    if (piece->reserve.count < wanted)
      if (auto more = pool_->take(wanted - piece->reserve.count))
        pool_->append(piece->reserve, std::move(*more));
    books_->spare_tables += piece->reserve.count - had;
  }
  pool_->give_back(std::move(cuts));
}

void AddressSpace::cut_books(Range<DeviceAddr> range, PieceChain& nodes) {
  books_->cut(range.begin, nodes);
  books_->cut(range.end, nodes);
  books_->keep_spares(nodes);
}

// The leaves of a range. To be asked before it is cut: a device may know the large ones still.
Touched AddressSpace::touched_in(Range<DeviceAddr> range) const {
  Touched touched{0, facts_.hops, Touched::Tables::kept};
  for (auto at = books_->from(range.begin);
       at != books_->pieces.end() && at->range.begin < range.end; ++at)
    touched.add({at->leaf_sizes & facts_.leaf_sizes, facts_.first_hop(at->leaf_sizes),
                 Touched::Tables::kept});
  return touched;
}

// Takes the pieces of a range out of the books. Pre: they are cut at its ends.
Unmapped AddressSpace::collect(Range<DeviceAddr> range, Detached<TablePool> detached,
                               Touched touched) {
  touched.add({0, detached.first_hop_,
               detached.tables() > 0 ? Touched::Tables::freed : Touched::Tables::kept});
  Unmapped gone(*this, range, Unmapped::Scope::pieces, touched, std::move(detached.tables_));
  ++books_->unreleased;
  for (auto at = books_->from(range.begin);
       at != books_->pieces.end() && at->range.begin < range.end;) {
    Piece& piece = *at++;
    ACCELMM_CHECK(range.contains(piece.range));
    books_->spare_tables -= piece.reserve.count;
    pool_->give_back(std::move(piece.reserve));
    books_->erase(piece);
    books_->pending.push_back(piece);
    piece.next = std::exchange(gone.pieces_, &piece);
  }
  return gone;
}

Unmapped AddressSpace::unmap_all() {
  const std::lock_guard lock(books_->mutex);
  ACCELMM_CHECK(!books_->has_ended);
  ACCELMM_CHECK(books_->operations.none());
  books_->has_ended = true;
  ++books_->unreleased;
  while (!books_->pieces.empty()) {
    Piece& piece = *books_->pieces.begin();
    books_->spare_tables -= piece.reserve.count;
    pool_->give_back(std::move(piece.reserve));
    books_->erase(piece);
    delete &piece;
  }
  auto detached = remove_all();
  return {*this, detached.range(), Unmapped::Scope::whole, Touched{}, std::move(detached.tables_)};
}

void AddressSpace::released(Piece* pieces, TableList tables, std::uint64_t ended_at) {
  const std::lock_guard lock(books_->mutex);
  PieceChain gone;
  while (pieces != nullptr) {
    Piece& piece = *std::exchange(pieces, pieces->next);
    books_->pending.erase(books_->pending.iterator_to(piece));
    if (!books_->has_ended && piece.kind != Piece::Kind::cover) books_->drop(piece.range);
    gone.push(&piece);
  }
  books_->keep_spares(gone);
  --books_->unreleased;
  if (books_->operations.have_ended(ended_at)) {
    pool_->give_back(std::move(tables));
  } else if (books_->passing.count == 0) {
    books_->passing = std::move(tables);
    books_->passing_since = ended_at;
  } else {
    pool_->append(books_->passing_later, std::move(tables));
    books_->passing_later_since = std::max(books_->passing_later_since, ended_at);
  }
}

// Tables of what was released while operations could still pass them.
void AddressSpace::give_back_passed() const {
  while (books_->passing.count > 0 && books_->operations.have_ended(books_->passing_since)) {
    pool_->give_back(std::move(books_->passing));
    books_->passing = std::move(books_->passing_later);
    books_->passing_since = books_->passing_later_since;
  }
}

}  // namespace accelmm::mmu
