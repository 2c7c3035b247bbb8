// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "devices/point_waits.hpp"
#include "devices/region.hpp"
#include "devices/session_address_space.hpp"
#include "devices/session_bus_mappings.hpp"
#include "devices/shortage_report.hpp"
#include "devices/user_accounts.hpp"

#include <accelmm/completion.hpp>
#include <accelmm/driver.hpp>
#include <accelmm/handle_table.hpp>
#include <accelmm/session.hpp>
#include <accelmm/uapi.h>

#include <cstdint>
#include <memory>
#include <optional>

namespace accelmm::devices {

class HostedDevice;

/// What one open of a compute node holds: buffers, an address space, timelines, and who waits for
/// them.
///
/// Threads   the loop's.
/// Lifetime  open(), then calls, then stop(), then close(), each ended before the next begins; then
/// destroyed.
class ComputeSession {
 public:
  /// `space` is empty on devices without an MMU; `asid` is 0 then.
  ComputeSession(HostedDevice& device, const Peer& peer, std::uint32_t asid,
                 std::unique_ptr<SessionAddressSpace> space,
                 HandleTable<std::shared_ptr<Allocation>> buffers);
  ComputeSession(const ComputeSession&) = delete;
  ComputeSession& operator=(const ComputeSession&) = delete;

  /// Maps on a bus, where the device has no MMU. Before open().
  void map_on(Bus& bus);
  void open(Completion done);
  /// Stops the session's work, once: a second call ends when the first has.
  void stop(Completion done);
  /// Gives everything back, in the order unmap, invalidate, free. Pre: stopped, and no call is
  /// being answered.
  void close(Completion done);

  /// The common ioctls of a compute node, bound to this session.
  [[nodiscard]] const IoctlTable& ioctls() const { return ioctls_; }
  [[nodiscard]] Session& session() { return session_; }
  [[nodiscard]] const Session& session() const { return session_; }
  /// That the device has forgotten the address space, once this is closed; nothing if it may not
  /// have, or there is none.
  [[nodiscard]] std::optional<mmu::InvalidationDone> forgotten() const {
    return space_ ? space_->forgotten() : std::nullopt;
  }
  [[nodiscard]] accelmm_info_session info() const;
  [[nodiscard]] std::size_t buffers() const { return buffers_.size(); }
  [[nodiscard]] std::size_t mappings() const {
    return space_ ? space_->mappings() : bus_mappings_ ? bus_mappings_->mappings() : 0;
  }
  /// Whether nothing that the device does for it can use its memory before its next call.
  [[nodiscard]] bool is_resting() const {
    return work_ == Work::running && session_.jobs()->is_idle() && space_ && space_->is_resting();
  }
  /// Whose device memory it is; nobody's before the first.
  [[nodiscard]] OwnerId memory_owner() const {
    return memory_ ? Region::id_of(*memory_) : OwnerId{};
  }
  /// As those of SessionAddressSpace. Pre: is_resting().
  [[nodiscard]] Result<SessionAddressSpace::Moving> prepare_moves(
      std::span<const MovedAllocation> moved) {
    return space_->prepare_moves(moved);
  }
  void apply_moves(SessionAddressSpace::Moving moving, Completion done) {
    space_->apply_moves(std::move(moving), std::move(done));
  }
  /// Ends every WAIT with `code`.
  void abandon_waits(Errc code) { waits_->abandon(code); }

  // The ioctls, in the order of their numbers (accelmm/uapi.h says what each does and which errors
  // it has).
  [[nodiscard]] Result<void> allocate(accelmm_alloc& args);
  [[nodiscard]] Result<void> free(const accelmm_free& args);
  [[nodiscard]] Result<void> map_cpu(IoctlCall& call, accelmm_map_cpu& args);
  [[nodiscard]] Result<void> map_device(accelmm_map_device& args);
  [[nodiscard]] Result<void> unmap_device(accelmm_unmap_device& args);
  [[nodiscard]] Result<void> export_view(IoctlCall& call, accelmm_export& args);
  [[nodiscard]] Result<void> import_view(IoctlCall& call, accelmm_import& args);
  void wait(const accelmm_wait& args, Completion done);
  [[nodiscard]] Result<void> open_events(IoctlCall& call, accelmm_events& args);
  [[nodiscard]] Result<void> watch(const accelmm_watch& args);
  [[nodiscard]] Result<void> shortage(accelmm_shortage& args) const;
  [[nodiscard]] Result<void> map_memory(accelmm_map_memory& args);
  /// Ends with `args` filled in, which live until then.
  void backing(accelmm_backing& args, Completion done);

 private:
  [[nodiscard]] Result<void> report_backing(accelmm_backing& args);
  [[nodiscard]] Result<View> view(std::uint64_t handle, std::uint64_t offset, std::uint64_t length);
  void note_failure(const Region::Request& request, Error error) noexcept;
  void finish_close();
  [[nodiscard]] Result<Timeline*> timeline(const accelmm_point& point);
  [[nodiscard]] Timeline* mapping_timeline();
  struct Mapped {
    DeviceAddr address;
    std::uint64_t point;
  };
  [[nodiscard]] Result<Mapped> map(View view, mmu::Placement placement, Access access,
                                   Charge charge);
  [[nodiscard]] Result<Charge> charge_mapping();

  HostedDevice& device_;
  Session session_;
  UserAccounts::Of user_;
  std::shared_ptr<Account> account_;
  RegionOwner host_;
  std::optional<RegionOwner> memory_;  // none: the device has no memory
  FailedRequests failures_;
  std::unique_ptr<SessionAddressSpace> space_;
  std::optional<SessionBusMappings>
      bus_mappings_;  // of a device without an MMU, on a bus of its own
  HandleTable<std::shared_ptr<Allocation>> buffers_;
  std::shared_ptr<PointWaits> waits_;
  IoctlTable ioctls_;
  enum class Work : std::uint8_t { running, stopping, stopped } work_ = Work::running;
  std::vector<Completion> when_stopped_;
  std::optional<Completion> closed_;
};

}  // namespace accelmm::devices
