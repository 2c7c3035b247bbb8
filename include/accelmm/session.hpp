// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/access.hpp>
#include <accelmm/timeline.hpp>
#include <accelmm/transport.hpp>
#include <accelmm/units.hpp>

#include <cstdint>
#include <functional>
#include <memory>

namespace accelmm {

class Device;

/// One open of a compute node, as a driver sees it.
///
/// Threads   the runtime's thread; the timeline it gives out may be used from any.
/// Lifetime  from Driver::open to Driver::close. A job that may end later keeps the timeline, not
///           the session.
class Session {
 public:
  Session(Device& device, std::uint64_t id, std::uint32_t asid, const Peer& peer,
          std::shared_ptr<Timeline> jobs)
      : device_(device), id_(id), asid_(asid), peer_(peer), jobs_(std::move(jobs)) {}
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  [[nodiscard]] Device& device() const { return device_; }
  /// Unique in the driver process, never reused.
  [[nodiscard]] std::uint64_t id() const { return id_; }
  /// The address space of the session's engines; 0 on devices without an MMU.
  [[nodiscard]] std::uint32_t asid() const { return asid_; }
  [[nodiscard]] const Peer& peer() const { return peer_; }
  /// ACCELMM_TIMELINE_JOBS of the session.
  [[nodiscard]] const std::shared_ptr<Timeline>& jobs() const { return jobs_; }

  /// Whether the session has mapped all of a range, for this access: what a driver asks before it
  /// hands addresses to hardware whose accesses nobody reports. Devices whose description makes a
  /// bus; false on others, whose MMU knows.
  /// Threads  the runtime's.
  [[nodiscard]] bool reaches(Range<DeviceAddr> range, Access access) const {
    return reaches_ && reaches_(range, access);
  }
  using Reaches = std::function<bool(Range<DeviceAddr>, Access)>;
  void set_reaches(Reaches reaches) { reaches_ = std::move(reaches); }

  /// What the driver keeps for this session; destroyed after Driver::close.
  void set_driver_data(std::shared_ptr<void> data) { driver_data_ = std::move(data); }
  template <class T>
  [[nodiscard]] T* driver_data() const {
    return static_cast<T*>(driver_data_.get());
  }

 private:
  Device& device_;
  std::uint64_t id_;
  std::uint32_t asid_;
  Peer peer_;
  std::shared_ptr<Timeline> jobs_;
  std::shared_ptr<void> driver_data_;
  Reaches reaches_;
};

}  // namespace accelmm
