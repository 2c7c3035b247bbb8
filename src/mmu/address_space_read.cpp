// SPDX-License-Identifier: Apache-2.0
#include "mmu/books.hpp"

#include <accelmm/check.hpp>
#include <accelmm/mmu/address_space.hpp>

#include <optional>
#include <utility>

// What reads the tree and the books. A look at the tree is an operation too: it waits for who writes
// there, and tables that are unmapped meanwhile outlive it.

namespace accelmm::mmu {

template <class Look>
auto AddressSpace::read(Range<DeviceAddr> range, Look&& look) const {
  using Answer = decltype(look());
  std::unique_lock lock(books_->mutex);
  if (books_->has_ended) return Answer();
  Operation operation;
  operation.kind = Operation::Kind::reads;
  books_->wait_and_begin(lock, operation, range);
  lock.unlock();
  Answer answer = look();
  lock.lock();
  end(operation);
  return answer;
}

namespace {

Range<DeviceAddr> page_of(DeviceAddr va, Alignment page) {
  const DeviceAddr begin(va.value() & ~(page.value() - 1));
  return {begin, DeviceAddr(begin.value() + (page.value() - 1))};
}

}  // namespace

std::optional<Translation> AddressSpace::translate(DeviceAddr va) const {
  return read(page_of(va, books_->page()), [&] { return look_up(va); });
}

Walk AddressSpace::walk(DeviceAddr va) const {
  return read(page_of(va, books_->page()), [&] { return trace(va); });
}

void AddressSpace::for_each_leaf(Range<DeviceAddr> range,
                                 const std::function<void(const Leaf&)>& f) const {
  if (range.empty()) return;
  (void)read(range, [&] {
    visit(range, f);
    return true;
  });
}

FaultReport::Covered AddressSpace::covered_by(const Piece& piece) {
  switch (piece.kind) {
    case Piece::Kind::memory:
      return FaultReport::Covered::mapping;
    case Piece::Kind::null:
      return FaultReport::Covered::null;
    case Piece::Kind::cover:
      return FaultReport::Covered::cover;
  }
  return FaultReport::Covered::nothing;
}

FaultReport AddressSpace::explain(const FaultedAccess& access) const {
  FaultReport report{access, walk(access.address), FaultReport::Covered::nothing, {}, {}};
  const std::lock_guard lock(books_->mutex);
  const DeviceAddr va = access.address;
  const Range<DeviceAddr> page = page_of(va, books_->page());
  if (!books_->is_inside({page.begin, DeviceAddr(page.end.value() + 1)})) {
    report.covered = FaultReport::Covered::outside;
  } else if (const Piece* piece = books_->containing(va)) {
    report.covered = covered_by(*piece);
    report.range = piece->range;
    report.attributes = piece->attributes;
  } else if (const Piece* gone = books_->pending_in({page.begin, page.end})) {
    report.covered = FaultReport::Covered::unmapped;
    report.range = gone->range;
    report.attributes = gone->attributes;
  } else if (books_->is_reserved(page)) {
    const auto reservation = std::prev(books_->reservations.upper_bound(va));
    report.covered = FaultReport::Covered::reservation;
    report.range = {reservation->first, reservation->second};
  }
  return report;
}

Result<void> AddressSpace::prefetch(Range<DeviceAddr> range) const {
  if (range.empty() || !range_.contains(range))
    return fail(Errc::invalid_argument, "range lies outside the address space");
  if (books_->prefetch) books_->prefetch(range);
  return {};
}

ByteCount AddressSpace::table_bytes() const {
  const std::uint64_t tables = read(range_, [&] { return count_tables(); });
  return ByteCount(tables * pool_->table_bytes());
}

std::size_t AddressSpace::mappings() const {
  const std::lock_guard lock(books_->mutex);
  return books_->mappings;
}

ByteCount AddressSpace::mapped_bytes() const {
  const std::lock_guard lock(books_->mutex);
  return books_->mapped_bytes;
}

std::uint32_t AddressSpace::spare_tables() const {
  const std::lock_guard lock(books_->mutex);
  return books_->spare_tables;
}

void AddressSpace::validate() const {
  const std::lock_guard lock(books_->mutex);
  if (books_->has_ended) return;
  ACCELMM_CHECK(books_->operations.none());
  ACCELMM_CHECK(books_->passing.count == 0);
  books_->validate();
  const ByteCount in_leaves = check_tree();
  std::uint32_t spare_tables = 0;
  for (const Piece& piece : books_->pieces) {
    spare_tables += piece.reserve.count;
    for (DeviceAddr va = piece.range.begin; va < piece.range.end;) {
      const auto leaf = look_up(va);
      ACCELMM_CHECK(leaf.has_value() && leaf->remaining <= piece.range.end - va);
      ACCELMM_CHECK((leaf->leaf_size.value() & piece.leaf_sizes) != 0);
      ACCELMM_CHECK(leaf->attributes == piece.attributes);
      va += leaf->remaining;
    }
  }
  ACCELMM_CHECK(spare_tables == books_->spare_tables);
  ACCELMM_CHECK(books_->mapped_bytes + books_->covered_bytes == in_leaves);
}

}  // namespace accelmm::mmu
