// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "devices/region.hpp"
#include "devices/session_address_space.hpp"

#include <accelmm/defragmentation.hpp>
#include <accelmm/device_heap.hpp>

#include <cstddef>
#include <memory>
#include <vector>

namespace accelmm::devices {

class ClientPort;
class HostedDevice;

/// Memory of sessions on its way to other places of a device.
///
/// Sessions whose memory is moved are held from the plan to the end: their next calls wait, so that
/// nothing is submitted, mapped, freed or exported meanwhile. Memory of a session that is not at
/// rest stays where it is, as does memory that a CPU may see. All that can fail is made before the
/// copy; from then on only the device can.
///
///   plan, take the new places, make the remaps ready
///     -> copy -> write the tables -> invalidate -> free the old places -> the sessions go on
///
/// Threads   the loop's.
/// Lifetime  shared with the operations it waits for; keeps its ports, and so its device.
class MemoryMoves : public std::enable_shared_from_this<MemoryMoves> {
 public:
  MemoryMoves(HostedDevice& device, CopyEngine& engine, DefragmentedFunction done);
  MemoryMoves(const MemoryMoves&) = delete;
  MemoryMoves& operator=(const MemoryMoves&) = delete;
  ~MemoryMoves();

  /// Begins; ends by calling `done`, maybe before it returns.
  void start(const Defragmentation& wanted);

 private:
  // The part of one session.
  struct Part {
    std::shared_ptr<ClientPort> port;
    std::vector<MovedAllocation> allocations;
    std::vector<DeviceHeap::Move> moves;
    SessionAddressSpace::Moving mappings;
    Result<void> outcome = {};
  };

  [[nodiscard]] Result<void> prepare(const Defragmentation& wanted);
  [[nodiscard]] Result<void> share_out(const std::vector<DeviceHeap::Move>& moves,
                                       const std::vector<std::shared_ptr<ClientPort>>& resting);
  [[nodiscard]] Result<void> take_places();
  void copied(Result<void> result);
  void remapped(Part& part, Result<void> result);
  void give_up(Error error);
  void finish();
  void release_ports();

  HostedDevice& device_;
  CopyEngine& engine_;
  DefragmentedFunction done_;
  std::vector<std::shared_ptr<Part>> parts_;
  std::vector<MemoryCopy> copies_;
  std::size_t remapping_ = 0;  // parts whose invalidation has not ended
};

}  // namespace accelmm::devices
