// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "bus/window_bus.hpp"
#include "devices/compute_session.hpp"
#include "devices/pressure_watch.hpp"
#include "devices/region.hpp"
#include "devices/shortage_report.hpp"
#include "devices/user_accounts.hpp"

#include <accelmm/defragmentation.hpp>
#include <accelmm/device.hpp>
#include <accelmm/driver.hpp>
#include <accelmm/mmu/asid_pool.hpp>
#include <accelmm/mmu/table_pool.hpp>
#include <accelmm/node.hpp>
#include <accelmm/transport.hpp>

#include <atomic>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

namespace accelmm::devices {

class ClientPort;

/// A registered device: its driver, its memory, and the connections to its nodes.
///
/// Threads   the loop's.
/// Lifetime  shared: lives until it was removed and its last session has ended.
class HostedDevice : public std::enable_shared_from_this<HostedDevice> {
 public:
  /// What grows as the device is used.
  struct Counters {
    std::uint64_t sessions = 0;
    std::uint64_t ioctls = 0;
    std::uint64_t exports = 0;
    std::uint64_t imports = 0;
    std::uint64_t moves = 0;  // extents of device memory
    std::uint64_t moved_bytes = 0;
  };

  /// Errors  invalid_argument: the description contradicts itself or the driver.  Any of making its
  /// memory.
  [[nodiscard]] static Result<std::shared_ptr<HostedDevice>> create(DeviceDescription description,
                                                                    std::unique_ptr<Driver> driver,
                                                                    std::uint32_t number,
                                                                    Transport& transport,
                                                                    std::shared_ptr<Region> host);
  ~HostedDevice();

  void probe(Completion done);
  /// The device goes: from now on every call is ENODEV. Ends when the work of all sessions has
  /// stopped.
  void remove(Completion done);
  /// Makes a removed device live until its last connection has ended.
  void keep_until_empty();
  /// Ends every connection; `done` when the last session is gone. Pre: removed.
  void disconnect(Completion done);

  /// A connection was made to one of the nodes. Null: there is no memory for it.
  [[nodiscard]] ConnectionEvents* accept(NodeKind kind, std::unique_ptr<Connection> connection);
  /// Opens a compute session for a port, at once, or after one that is just ending. Ends with the
  /// session in the port. Errors  busy: the device is taken.  no_device.  What the driver refuses
  /// with.
  void open_session(const std::shared_ptr<ClientPort>& port);
  /// A port has ended, and its session with it.
  void forget(const std::shared_ptr<ClientPort>& port);

  /// Answers ACCELMM_IOCTL_INFO for one node; `session` is null on a control node.
  [[nodiscard]] Result<void> info(NodeKind kind, ComputeSession* session, accelmm_info& args);

  /// Logs from now on.
  void log_to(Log log) { log_.emplace(device_->number(), std::move(log)); }
  /// A request of device memory failed, which is told to nobody but who asked until somebody wants
  /// to know.
  void note_failure(const FailedRequest& failed) noexcept;
  /// All of the device's requests that failed.
  [[nodiscard]] const FailedRequests& failures() const { return failures_; }
  /// Answers ACCELMM_IOCTL_SHORTAGE about what `owner` asks for in `args`, or about the last of
  /// `failures`.
  /// Errors  invalid_argument: a request that makes no sense.  not_supported: no device memory.
  [[nodiscard]] Result<void> explain(accelmm_shortage& args, const FailedRequests& failures,
                                     OwnerId owner, Disclosure disclosure) const;
  /// Moves device memory of sessions that are at rest.
  /// Errors (through done)  invalid_argument: no budget.  not_supported: the device has no MMU, or
  ///         its driver no engine that copies.  busy: it is at it already.  no_device.  no_memory.
  ///         What the copy failed with: everything is where it was.  What an invalidation failed
  ///         with: what could not be invalidated is in quarantine.
  void defragment(const Defragmentation& wanted, DefragmentedFunction done);
  /// The ports whose sessions are at rest. Throws std::bad_alloc.
  [[nodiscard]] std::vector<std::shared_ptr<ClientPort>> resting_ports() const;
  void moves_ended() { moving_ = false; }
  /// Keeps what the device may still reach, and runs this once it is down. Waits for memory.
  void quarantine(std::move_only_function<void()> release);
  /// Null: the device has no memory.
  [[nodiscard]] PressureWatch* pressure() { return pressure_.get(); }

  [[nodiscard]] bool removed() const { return removed_; }
  [[nodiscard]] const DeviceDescription& description() const { return description_; }
  [[nodiscard]] Device& device() { return *device_; }
  [[nodiscard]] Driver& driver() { return *driver_; }
  [[nodiscard]] const IoctlTable& driver_ioctls() const { return driver_ioctls_; }
  [[nodiscard]] Transport& transport() { return transport_; }
  [[nodiscard]] Region& host() { return *host_; }
  [[nodiscard]] Region* memory() { return memory_.get(); }
  [[nodiscard]] UserAccounts& users() { return users_; }
  [[nodiscard]] Counters& counters() { return counters_; }
  [[nodiscard]] std::shared_ptr<Timeline> make_job_timeline();
  [[nodiscard]] static std::uint64_t next_session_id();

 private:
  /// What jobs report from any thread; shared with timelines that outlive the device.
  struct JobCounters {
    std::atomic<std::uint64_t> jobs{0};
    std::atomic<std::uint64_t> faults{0};
    std::mutex mutex;
    std::optional<Fault> last_fault;
  };

  struct Regions {
    std::shared_ptr<Region> host;
    std::shared_ptr<Region> memory;           // null: the device has none
    std::shared_ptr<PressureWatch> pressure;  // of memory
  };
  HostedDevice(DeviceDescription description, std::unique_ptr<Driver> driver, std::uint32_t number,
               Transport& transport, Regions regions);
  [[nodiscard]] Result<void> prepare_ioctls();
  [[nodiscard]] Result<void> prepare_tables();
  [[nodiscard]] Result<void> make_own_bus();
  enum class Admission : std::uint8_t { now, later, refused };
  [[nodiscard]] Admission admission(const ClientPort& opener) const;
  void start_session(const std::shared_ptr<ClientPort>& port);
  [[nodiscard]] Result<std::unique_ptr<ComputeSession>> make_session(const Peer& peer);
  void retire_asid(const ComputeSession& session);
  void open_waiting();
  void shut_down();
  [[nodiscard]] accelmm_info_device device_facts(NodeKind kind) const;
  [[nodiscard]] accelmm_info_usage usage() const;
  void put_pressure(accelmm_info_usage& usage) const;
  [[nodiscard]] accelmm_info_fault last_fault(const ComputeSession* session) const;

  DeviceDescription description_;
  Transport& transport_;
  std::shared_ptr<Region> host_;
  std::shared_ptr<Region> memory_;           // null: the device has none
  std::shared_ptr<PressureWatch> pressure_;  // of memory_
  std::unique_ptr<WindowBus> bus_;           // of a model
  std::unique_ptr<Bus> own_bus_;             // null: the hardware is a model
  std::unique_ptr<Device> device_;
  std::unique_ptr<Driver> driver_;
  IoctlTable driver_ioctls_;
  std::optional<mmu::TablePool> tables_;
  std::optional<mmu::AsidPool> asids_;
  std::shared_ptr<Account> account_;
  UserAccounts users_;
  std::shared_ptr<JobCounters> job_counters_;
  Counters counters_;
  FailedRequests failures_;
  std::optional<ShortageLog> log_;
  std::list<std::shared_ptr<ClientPort>> ports_;
  std::list<std::shared_ptr<ClientPort>> openers_;  // wait for a session that is just ending
  std::vector<std::move_only_function<void()>> quarantine_;
  std::optional<Completion> when_empty_;
  std::shared_ptr<HostedDevice> self_;  // set while it is removed and has connections
  enum class Driven : std::uint8_t { no, yes, removed } driven_ = Driven::no;
  bool removed_ = false;
  bool moving_ = false;  // device memory of sessions
};

}  // namespace accelmm::devices
