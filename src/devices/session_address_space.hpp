// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "devices/region.hpp"

#include <accelmm/bus.hpp>
#include <accelmm/completion.hpp>
#include <accelmm/driver.hpp>
#include <accelmm/mmu/address_space.hpp>
#include <accelmm/timeline.hpp>
#include <accelmm/transport.hpp>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace accelmm::devices {

/// What a session's address space hangs from.
struct AddressSpaceBinding {
  Transport& transport;
  Bus& bus;
  MmuHardware& hardware;
  std::uint32_t asid;
  /// Keeps what a device that would not be invalidated may still reach, and runs this once the
  /// device is down.
  std::function<void(std::move_only_function<void()>)> quarantine;
};

/// The mappings of one session: joins views, bus, page tables and the device's invalidation.
///
/// The order at the end of a mapping is fixed here: clear the entries, invalidate, and only then
/// give back the tables, the addresses, the bus attachment and the reference to the memory. Threads
/// the loop's.
class SessionAddressSpace {
 public:
  struct Retired;

  SessionAddressSpace(AddressSpaceBinding binding, std::shared_ptr<mmu::AddressSpace> tables);
  SessionAddressSpace(const SessionAddressSpace&) = delete;
  SessionAddressSpace& operator=(const SessionAddressSpace&) = delete;

  /// Shows the tables to the device.
  void bind(Completion done);

  struct Mapped {
    DeviceAddr address;
    std::uint64_t point;
  };
  /// Errors  those of mmu::AddressSpace::map, not_permitted: the memory is read-only.
  /// `charge` is kept with the mapping.
  [[nodiscard]] Result<Mapped> map(View view, mmu::Placement placement, Access access,
                                   Charge charge);
  /// Takes the mapping that begins at `start` away; the point is reached when the device has been
  /// invalidated. Errors  invalid_argument: no mapping begins there.
  [[nodiscard]] Result<std::uint64_t> unmap(DeviceAddr start);
  /// Mappings that are about to lead to where their memory is moved.
  struct Moving {
    std::vector<mmu::Remap> remaps;
    std::shared_ptr<Retired> retired;
  };
  /// Makes ready what the mappings of these allocations need. Dropping it changes nothing.
  /// Pre: is_resting(), until it was applied or dropped.  Errors  those of prepare_remap().
  [[nodiscard]] Result<Moving> prepare_moves(std::span<const MovedAllocation> moved);
  /// Writes them. Ends when the device has been invalidated, and uses the old places no more; else
  /// with the error, and what it may still use of the tables in quarantine.
  void apply_moves(Moving moving, Completion done);
  /// Whether the device holds nothing stale of this space, and will not before something is unmapped.
  [[nodiscard]] bool is_resting() const { return invalidating_ == 0 && !tainted_ && !closed_; }

  /// Takes everything away. The device's work must have been stopped. Ends without error; what
  /// could not be invalidated stays in quarantine.
  void close(Completion done);

  /// The proof that the device has forgotten this space, once it is closed; nothing if the device may
  /// still hold something stale: its number must not be used again then.
  [[nodiscard]] std::optional<mmu::InvalidationDone> forgotten() const {
    return tainted_ ? std::nullopt : forgotten_;
  }
  [[nodiscard]] Timeline& timeline() { return timeline_; }
  [[nodiscard]] std::size_t mappings() const { return mappings_.size(); }
  [[nodiscard]] ByteCount mapped_bytes() const { return tables_->mapped_bytes(); }
  [[nodiscard]] ByteCount table_bytes() const { return tables_->table_bytes(); }

 private:
  struct Mapping {
    View view;
    std::vector<Run> attached;  // host memory only: device memory needs no attaching
    Charge charge;
  };
  using Mappings = std::map<DeviceAddr, Mapping>;

  [[nodiscard]] Result<std::vector<Run>> attach(Mapping& mapping, Access access) const;
  [[nodiscard]] bool remembers_faults() const;
  /// Has the device forget what `retired` gathered. Waits for memory where there is none.
  void invalidate(std::shared_ptr<Retired> retired);
  /// What runs when the invalidation of `retired` has ended.
  [[nodiscard]] Completion::Function when_invalidated(std::shared_ptr<Retired> retired);
  /// Releases what was retired if the invalidation ended well, quarantines it if not.
  void invalidated(std::shared_ptr<Retired> retired, Result<void> result);
  void close_idle();
  void finish_close();
  void quarantine(std::shared_ptr<Retired> retired);

  AddressSpaceBinding binding_;
  std::shared_ptr<mmu::AddressSpace> tables_;
  Mappings mappings_;
  Timeline timeline_;
  std::size_t invalidating_ = 0;
  bool tainted_ = false;
  std::optional<mmu::InvalidationDone> forgotten_;
  std::optional<Completion> closed_;  // set once the session ends
};

}  // namespace accelmm::devices
