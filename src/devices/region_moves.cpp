// SPDX-License-Identifier: Apache-2.0
//
// Moves of device memory, as far as they are a region's affair: which, and whose the places are.
#include "devices/region.hpp"

#include <algorithm>
#include <utility>

namespace accelmm::devices {

void MovedAllocation::take(const DeviceHeap::Move& move) {
  const auto extent = std::ranges::find(extents, move.from);
  ACCELMM_CHECK(extent != extents.end());
  *extent = move.to;
}

std::shared_ptr<Allocation> Region::find(AllocationId id) const {
  const auto found = allocations_.find(id);
  return found == allocations_.end() ? nullptr : found->second->weak_from_this().lock();
}

// Whoever is not asked about keeps its memory where it is while this plans.
Result<std::vector<DeviceHeap::Move>> Region::plan_moves(ByteCount budget,
                                                         const DeviceHeap::Goal& goal,
                                                         std::span<const OwnerId> owners) {
  settle();
  heap_.trim();
  // What is being moved stays, and need not be told to.
  const auto stays = [&](const Allocations::value_type& entry) {
    return entry.second->moves_ == 0 &&
           std::ranges::find(owners, entry.second->owner_) == owners.end();
  };
  for (const auto& entry : allocations_)
    if (stays(entry)) ACCELMM_CHECK(heap_.pin(entry.first).has_value());
  auto moves = heap_.plan_moves(budget, goal);
  for (const auto& entry : allocations_)
    if (stays(entry)) ACCELMM_CHECK(heap_.unpin(entry.first).has_value());
  return moves;
}

Result<void> Region::begin_moves(std::span<const DeviceHeap::Move> moves) {
  for (std::size_t i = 0; i < moves.size(); ++i) {
    const auto begun = heap_.begin_move(moves[i]);
    if (!begun) {
      abort_moves(moves.first(i));
      return begun;
    }
    ++allocations_.at(moves[i].allocation)->moves_;
  }
  return {};
}

void Region::commit_moves(std::span<const DeviceHeap::Move> moves) noexcept {
  for (const DeviceHeap::Move& move : moves) {
    window_.clear(move.from);  // what is free reads zero
    ACCELMM_CHECK(heap_.commit_move(move).has_value());
    --allocations_.at(move.allocation)->moves_;
  }
}

void Region::abort_moves(std::span<const DeviceHeap::Move> moves) noexcept {
  for (const DeviceHeap::Move& move : moves) {
    window_.clear(move.to);
    ACCELMM_CHECK(heap_.abort_move(move).has_value());
    --allocations_.at(move.allocation)->moves_;
  }
}

}  // namespace accelmm::devices
