// SPDX-License-Identifier: Apache-2.0
#include "mmu/books.hpp"

#include <accelmm/check.hpp>
#include <accelmm/mmu/address_space.hpp>
#include <accelmm/mmu/run_cursor.hpp>

#include <algorithm>
#include <mutex>
#include <new>
#include <utility>

// A mapping that leads to other memory from one moment on: for memory that is moved while the device
// does not use it. The books keep the mapping; only its leaves change.

namespace accelmm::mmu {

Result<Remap> AddressSpace::prepare_remap(DeviceAddr start, std::span<const Run> runs) try {
  const std::lock_guard lock(books_->mutex);
  const Piece* const piece = books_->has_ended ? nullptr : books_->containing(start);
  if (piece == nullptr || piece->range.begin != start || piece->kind == Piece::Kind::cover)
    return fail(Errc::invalid_argument, "no mapping begins at this device address");
  const auto length = total_length(runs, books_->page(), facts_.bus_bits);
  if (!length) return fail(length.error());
  if (*length != piece->range.size())
    return fail(Errc::invalid_argument, "other memory has another length");
  Remap remap(*this, piece->range, piece->attributes, {runs.begin(), runs.end()});
  auto room = room_for(start, runs, piece->attributes);
  if (!room) return fail(room.error());
  remap.room_ = std::move(*room);
  return remap;
} catch (const std::bad_alloc&) {
  return fail(Errc::no_memory, "no memory to note a remap");
}

Remap::~Remap() {
  if (space_ != nullptr) space_->pool_->give_back(std::move(room_));
}

Unmapped Remap::apply() && {
  AddressSpace* const space = std::exchange(space_, nullptr);
  ACCELMM_CHECK(space != nullptr);
  return space->apply_remap(range_, runs_, attributes_, std::move(room_));
}

Unmapped AddressSpace::apply_remap(Range<DeviceAddr> range, std::span<const Run> runs,
                                   Attributes attributes, TableList room) {
  std::unique_lock lock(books_->mutex);
  ACCELMM_CHECK(!books_->has_ended);
  Operation operation;
  books_->wait_and_begin(lock, operation, range);
  lock.unlock();
  Detached<TablePool> detached = lead_elsewhere(range, runs, attributes, std::move(room));
  const std::uint64_t now_has = sizes(range.begin, runs);
  lock.lock();
  Piece* const piece = books_->containing(range.begin);
  ACCELMM_CHECK(piece != nullptr && piece->range == range);
  Touched touched = touched_in(range);
  piece->leaf_sizes = now_has;
  touched.add(touched_in(range));
  touched.tables = detached.tables() > 0 ? Touched::Tables::freed : Touched::Tables::kept;
  touched.first_hop = std::min(touched.first_hop, detached.first_hop_);
  Unmapped gone(*this, range, Unmapped::Scope::moved, touched, std::move(detached.tables_));
  ++books_->unreleased;
  gone.ended_at_ = end(operation);
  return gone;
}

}  // namespace accelmm::mmu
