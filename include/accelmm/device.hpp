// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/bus.hpp>
#include <accelmm/defragmentation.hpp>
#include <accelmm/device_heap.hpp>
#include <accelmm/import_needs.hpp>
#include <accelmm/mmu/address_space.hpp>
#include <accelmm/units.hpp>

#include <atomic>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include <sys/types.h>

namespace accelmm {

/// Memory on the device. The first `private_size` bytes hold page tables and what the driver keeps
/// there; sessions allocate from the rest.
struct DeviceMemoryDescription {
  ByteCount size;          ///< a multiple of the native page
  ByteCount private_size;  ///< a multiple of the native page
  /// The least that the device's MMU maps. Allocations of this or more are whole native pages;
  /// smaller ones share native pages with others of their session.
  ByteCount native_page = ByteCount(4096);
  /// When Driver::pressure() and who waits on a control node hear that it gets short; 0: never.
  DeviceHeap::Thresholds pressure = {};
};

/// An on-chip MMU: its page-table format and the device addresses that sessions map.
struct MmuDescription {
  const char* format_name;  ///< shown by INFO, at most 31 bytes
  mmu::AddressSpaceFactory make_address_space;
  Range<DeviceAddr> va;
  std::uint32_t address_spaces;  ///< ASIDs 1 to this number
};

/// How many compute sessions a device takes at once.
enum class ComputeSessions : std::uint8_t { one, many };

/// Owner and modes of the two nodes. uid or gid -1 leave what the process has.
struct NodePermissions {
  uid_t uid = static_cast<uid_t>(-1);
  gid_t gid = static_cast<gid_t>(-1);
  mode_t compute_mode = 0660;
  mode_t control_mode = 0666;
};

/// What a session may hold, or all sessions of a user on one device together. Exceeding one is
/// EDQUOT to that session and nothing to others. Bytes are those of native pages, wherever they
/// lie.
struct Quota {
  ByteCount bytes = ByteCount(std::uint64_t{64} << 30);
  std::uint32_t buffers =
      16384;  ///< a process holds some 20 000 memfds (RLIMIT_NOFILE, vm.max_map_count)
  std::uint32_t mappings = 65536;
  std::uint32_t waits = 256;  ///< pending WAIT, WATCH and BACKING calls
  ByteCount locked =
      ByteCount(std::uint64_t{64} << 20);  ///< of the bytes, those that may not be swapped out

  /// No limit but those of the sessions.
  [[nodiscard]] static constexpr Quota unlimited() {
    constexpr std::uint32_t most = std::numeric_limits<std::uint32_t>::max();
    return {.bytes = ByteCount(std::numeric_limits<std::uint64_t>::max()),
            .buffers = most,
            .mappings = most,
            .waits = most,
            .locked = ByteCount(std::numeric_limits<std::uint64_t>::max())};
  }
};

/// What a driver says about its device when it registers it.
struct DeviceDescription {
  std::string driver_name;           ///< at most 31 bytes
  std::uint32_t driver_version = 0;  ///< major << 16 | minor
  std::optional<DeviceMemoryDescription> memory = {};
  std::optional<MmuDescription> mmu = {};
  /// How the hardware reaches host buffers. Empty: it is a model in this process, which reaches them
  /// through Device::bus(). Else the machine does it, e.g. VfioDevice::bus_factory(): such a device
  /// has no memory and no MMU here, its sessions' mappings are at addresses of this bus, and since
  /// these are all of one IOMMU domain it takes one session at a time.
  BusFactory make_bus = {};
  ComputeSessions compute_sessions = ComputeSessions::many;
  /// Of memory of others that sessions import; what falls short is refused.
  ImportNeeds import_needs = {};
  NodePermissions permissions = {};
  Quota session_quota = {};
  Quota uid_quota = Quota::unlimited();
};

/// A registered device, as its driver sees it.
///
/// Threads   number(), bus() and add_busy_ns() from any thread.
/// Lifetime  from Driver::probe to the end of Driver::remove.
class Device {
 public:
  using Defragment = std::function<void(const Defragmentation&, DefragmentedFunction)>;
  /// `defragment` does the work of defragment(); empty: this device cannot.
  Device(std::uint32_t number, BusPort& bus, Defragment defragment = {})
      : number_(number), bus_(bus), defragment_(std::move(defragment)) {}
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  [[nodiscard]] std::uint32_t number() const { return number_; }
  /// How the model of the hardware reaches memory: device memory from bus address 0, attached host
  /// memory above it. Every access is a fault if the description makes a bus of its own.
  [[nodiscard]] BusPort& bus() const { return bus_; }
  /// Moves sessions' memory to make room, with the driver's CopyEngine: what is planned within the
  /// budget is copied, mapped where it is now, invalidated, and only then free where it was. Memory
  /// stays where it is that a CPU may see or that belongs to a session with a job that has not
  /// ended. Calls of the sessions concerned wait meanwhile. Begins later, from the loop.
  /// Threads  the runtime's.
  /// Errors (through done)  invalid_argument: no budget.  not_supported: no MMU, or no CopyEngine.
  ///          busy: it is at it already.  no_device: it was removed.  no_memory.  What copying or
  ///          invalidating failed with.
  void defragment(const Defragmentation& wanted, DefragmentedFunction done) {
    if (!defragment_) return done(fail(Errc::not_supported, "device cannot move its memory"));
    defragment_(wanted, std::move(done));
  }
  /// Adds to the time that the device's engines have worked, for monitoring.
  void add_busy_ns(std::uint64_t ns) { busy_ns_.fetch_add(ns, std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t busy_ns() const { return busy_ns_.load(std::memory_order_relaxed); }

 private:
  std::uint32_t number_;
  BusPort& bus_;
  Defragment defragment_;
  std::atomic<std::uint64_t> busy_ns_{0};
};

}  // namespace accelmm
