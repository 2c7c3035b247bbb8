// SPDX-License-Identifier: Apache-2.0
#include "mmu/books.hpp"

#include <accelmm/check.hpp>
#include <accelmm/mmu/address_space.hpp>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <utility>

// What changes leaves and leaves mapped what is mapped: protect, merge, and the marks of what was
// written.

namespace accelmm::mmu {

Result<Changed> AddressSpace::protect(Range<DeviceAddr> range, Attributes attributes) {
  std::unique_lock lock(books_->mutex);
  if (books_->has_ended || !books_->is_inside(range))
    return fail(Errc::invalid_argument, "no range of pages of the address space");
  Operation operation;
  books_->wait_and_begin(lock, operation, range);
  TableList cuts;
  auto nodes = prepare_change(range, cuts, Gaps::refuse);
  lock.unlock();
  Result<void> done = nodes ? cut(range, cuts) : fail(nodes.error());
  if (done) done = change(range, attributes);
  lock.lock();
  const Changed changed{range, touched_in(range)};
  if (done) {
    cut_books(range, *nodes);
    for (auto at = books_->from(range.begin);
         at != books_->pieces.end() && at->range.begin < range.end; ++at)
      at->attributes = attributes;
  } else if (nodes) {
    books_->keep_spares(*nodes);
  }
  settle_cuts(range, cuts);
  end(operation);
  if (!done) return fail(done.error());
  return changed;
}

// Mapping by mapping: a leaf that two share would have to be cut again before either goes, and to end
// a mapping must not fail.
Result<Unmapped> AddressSpace::merge(Range<DeviceAddr> range) {
  std::unique_lock lock(books_->mutex);
  if (books_->has_ended || !books_->is_inside(range))
    return fail(Errc::invalid_argument, "no range of pages of the address space");
  Operation operation;
  books_->wait_and_begin(lock, operation, range);
  Touched touched = touched_in(range);
  rejoin(range);
  TableList gone;
  for (DeviceAddr at = range.begin; at < range.end;) {
    const auto piece = books_->from(at);
    if (piece == books_->pieces.end() || piece->range.begin >= range.end) break;
    const Range<DeviceAddr> part{std::max(piece->range.begin, at),
                                 std::min(piece->range.end, range.end)};
    lock.unlock();
    auto detached = join(part);
    std::uint64_t sizes = 0;
    visit(part, [&sizes](const Leaf& leaf) { sizes |= leaf.size.value(); });
    lock.lock();
    if (!detached) {
      ACCELMM_CHECK(gone.count == 0);  // the format refuses all or none
      end(operation);
      return fail(detached.error());
    }
    touched.add({0, detached->first_hop_,
                 detached->tables() > 0 ? Touched::Tables::freed : Touched::Tables::kept});
    pool_->append(gone, std::move(detached->tables_));
    note_sizes(part, sizes);
    at = part.end;
  }
  Unmapped old(*this, range, Unmapped::Scope::moved, touched, std::move(gone));
  ++books_->unreleased;
  old.ended_at_ = end(operation);
  return old;
}

void AddressSpace::rejoin(Range<DeviceAddr> range) {
  PieceChain spare;
  auto at = books_->from(range.begin);
  while (at != books_->pieces.end() && at->range.begin < range.end) {
    const auto next = std::next(at);
    if (next == books_->pieces.end() || next->range.end > range.end ||
        at->range.begin < range.begin || !Books::belong_together(*at, *next)) {
      at = next;
      continue;
    }
    Piece& rest = books_->join_next(at);
    pool_->append(at->reserve, std::move(rest.reserve));
    spare.push(&rest);
  }
  books_->keep_spares(spare);
}

// Leaves of a part of a mapping may be larger now: to cut them takes more tables, if there are any.
// What a mapping has too many, of pieces that were joined, goes back.
void AddressSpace::note_sizes(Range<DeviceAddr> range, std::uint64_t sizes) {
  for (auto at = books_->from(range.begin);
       at != books_->pieces.end() && at->range.begin < range.end; ++at) {
    at->leaf_sizes |= sizes;
    const std::uint32_t wanted = 2 * facts_.tables_for_cut(at->leaf_sizes);
    const std::uint32_t had = at->reserve.count;
    TableList more;
    while (at->reserve.count > wanted) {
      const Table table = pool_->pop(at->reserve);
      pool_->push(more, table, table.contents);
    }
    pool_->give_back(std::move(more));
    if (had < wanted)
      if (auto taken = pool_->take(wanted - had)) pool_->append(at->reserve, std::move(*taken));
    books_->spare_tables += at->reserve.count - had;
  }
}

Result<Changed> AddressSpace::read_and_clear_dirty(
    Range<DeviceAddr> range, const std::function<void(Range<DeviceAddr>)>& f) {
  std::unique_lock lock(books_->mutex);
  if (books_->has_ended || !books_->is_inside(range))
    return fail(Errc::invalid_argument, "no range of pages of the address space");
  Operation operation;
  books_->wait_and_begin(lock, operation, range);
  const Changed changed{range, touched_in(range)};
  lock.unlock();
  const auto cleaned = clean(range, f);
  lock.lock();
  end(operation);
  if (!cleaned) return fail(cleaned.error());
  return changed;
}

}  // namespace accelmm::mmu
