// SPDX-License-Identifier: Apache-2.0
#include "devices/memory_moves.hpp"

#include "devices/client_port.hpp"
#include "devices/compute_session.hpp"
#include "devices/hosted_device.hpp"
#include "devices/in_loop.hpp"

#include <algorithm>
#include <new>
#include <utility>

namespace accelmm::devices {

MemoryMoves::MemoryMoves(HostedDevice& device, CopyEngine& engine, DefragmentedFunction done)
    : device_(device), engine_(engine), done_(std::move(done)) {}

MemoryMoves::~MemoryMoves() {
  ACCELMM_CHECK(parts_.empty());
}

void MemoryMoves::start(const Defragmentation& wanted) {
  const auto prepared = prepare(wanted);
  if (!prepared) return give_up(prepared.error());
  if (parts_.empty()) return finish();
  // Not to fail from here on for want of memory: a copy that went well is used.
  engine_.copy(copies_, in_loop_surely(device_.transport(),
                                       [self = shared_from_this()](Result<void> result) {
                                         self->copied(result);
                                       }));
}

Result<void> MemoryMoves::prepare(const Defragmentation& wanted) try {
  Region& memory = *device_.memory();
  const std::vector<std::shared_ptr<ClientPort>> resting = device_.resting_ports();
  std::vector<OwnerId> owners;
  owners.reserve(resting.size());
  for (const auto& port : resting) owners.push_back(port->session()->memory_owner());
  const bool pages = wanted.run == ByteCount(0);
  auto moves = memory.plan_moves(
      wanted.budget,
      {.kind = pages ? DeviceHeap::Goal::Kind::pages : DeviceHeap::Goal::Kind::run,
       .size = wanted.run},
      owners);
  if (!moves) return fail(moves.error());
  if (const auto shared = share_out(*moves, resting); !shared) return shared;
  return take_places();
} catch (const std::bad_alloc&) {
  return fail(Errc::no_memory, "no memory to prepare moves");
}

Result<void> MemoryMoves::share_out(const std::vector<DeviceHeap::Move>& moves,
                                    const std::vector<std::shared_ptr<ClientPort>>& resting) {
  Region& memory = *device_.memory();
  copies_.reserve(moves.size());
  parts_.reserve(resting.size());
  for (const auto& port : resting) {
    auto part = std::make_shared<Part>();
    for (const DeviceHeap::Move& move : moves) {
      const auto allocation = memory.find(move.allocation);
      ACCELMM_CHECK(allocation != nullptr);
      if (allocation->owner() != port->session()->memory_owner()) continue;
      part->moves.push_back(move);
      const auto known =
          std::ranges::find(part->allocations, allocation, &MovedAllocation::allocation);
      MovedAllocation& moved =
          known != part->allocations.end() ? *known : part->allocations.emplace_back(allocation);
      moved.take(move);
      copies_.push_back(
          {BusAddr(move.from.offset.value()), BusAddr(move.to.offset.value()), move.from.length});
    }
    if (part->moves.empty()) continue;
    auto mappings = port->session()->prepare_moves(part->allocations);
    if (!mappings) return fail(mappings.error());
    part->mappings = std::move(*mappings);
    parts_.push_back(std::move(part));
    parts_.back()->port = port;
    port->hold();
  }
  ACCELMM_CHECK(copies_.size() == moves.size());
  return {};
}

// All of them or none.
Result<void> MemoryMoves::take_places() {
  Region& memory = *device_.memory();
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    const auto begun = memory.begin_moves(parts_[i]->moves);
    if (begun) continue;
    while (i-- > 0) memory.abort_moves(parts_[i]->moves);
    return begun;
  }
  return {};
}

void MemoryMoves::copied(Result<void> result) {
  if (!result) {
    for (const auto& part : parts_) device_.memory()->abort_moves(part->moves);
    return give_up(result.error());
  }
  remapping_ = parts_.size();
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    Part& part = *parts_[i];
    for (MovedAllocation& moved : part.allocations) moved.apply();
    auto done = [self = shared_from_this(), &part](Result<void> outcome) {
      self->remapped(part, outcome);
    };
    part.port->session()->apply_moves(std::move(part.mappings), Completion(std::move(done)));
  }
}

void MemoryMoves::remapped(Part& part, Result<void> result) {
  part.outcome = result;
  if (--remapping_ == 0) finish();
}

void MemoryMoves::finish() {
  Defragmented defragmented;
  std::optional<Error> failed;
  for (const auto& part : parts_) {
    if (!part->outcome) {
      // The device may still use the old places: both stay taken until it is down.
      failed = part->outcome.error();
      device_.quarantine([memory = device_.memory(), part] {
        memory->commit_moves(part->moves);
        part->allocations.clear();
      });
      continue;
    }
    device_.memory()->commit_moves(part->moves);
    for (const DeviceHeap::Move& move : part->moves) defragmented.bytes += move.from.length;
    defragmented.moves += part->moves.size();
  }
  device_.memory()->trim();
  device_.counters().moves += defragmented.moves;
  device_.counters().moved_bytes += defragmented.bytes.value();
  release_ports();
  auto done = std::move(done_);
  failed ? done(fail(*failed)) : done(defragmented);
}

void MemoryMoves::give_up(Error error) {
  release_ports();
  auto done = std::move(done_);
  done(fail(error));
}

// Last, since what was held back goes on in here.
void MemoryMoves::release_ports() {
  device_.moves_ended();
  for (const auto& part : std::exchange(parts_, {})) {
    part->mappings = {};
    if (part->outcome) part->allocations.clear();  // else they are in quarantine
    std::exchange(part->port, nullptr)->release_hold();
  }
}

}  // namespace accelmm::devices
