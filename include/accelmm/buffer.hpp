// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/access.hpp>
#include <accelmm/backing.hpp>
#include <accelmm/cpu_access.hpp>
#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>
#include <accelmm/uapi.h>
#include <accelmm/units.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <vector>

namespace accelmm {

class ClientLink;
class Mapping;

/// Where a buffer's memory is.
enum class Domain : std::uint32_t {
  host = ACCELMM_DOMAIN_HOST,
  device = ACCELMM_DOMAIN_DEVICE,
};
/// Whether device memory may be made of several extents.
enum class Layout : std::uint8_t { paged, contiguous };
/// What the CPU may do with the memory. Host buffers are mappable unless said otherwise; device
/// memory is unreachable for the CPU unless said otherwise.
enum class CpuVisibility : std::uint8_t {
  by_domain,  ///< host: mappable, device: not
  visible,    ///< device memory that can be mapped and exported
  read_only,  ///< can be mapped, but by nobody outside the driver process for writing, ever
};

/// How Client::allocate makes a buffer.
struct BufferOptions {
  Domain domain = Domain::host;
  Layout layout = Layout::paged;
  CpuVisibility cpu = CpuVisibility::by_domain;
  BackingRequest backing = {};  ///< host memory only
};

/// A position inside one buffer.
using BufferOffset = Address<struct BufferSpace>;
using BufferRange = Range<BufferOffset>;

/// The timelines of a session.
enum class TimelineKind : std::uint32_t {
  address_space = ACCELMM_TIMELINE_ADDRESS_SPACE,
  jobs = ACCELMM_TIMELINE_JOBS,
  pressure = ACCELMM_TIMELINE_PRESSURE,  ///< of control nodes
};

/// A value on one of the session's timelines: something to wait for. Value 0 is always reached.
struct Point {
  TimelineKind timeline = TimelineKind::address_space;
  std::uint64_t value = 0;

  constexpr bool operator==(const Point&) const = default;
  /// The point of a job, as a driver's submit ioctl gave its value out.
  [[nodiscard]] static constexpr Point job(std::uint64_t value) {
    return {.timeline = TimelineKind::jobs, .value = value};
  }
  /// The n-th change of how short the device is of memory, counted as
  /// accelmm_info_usage::pressure_changes is. The next one can be waited for.
  [[nodiscard]] static constexpr Point pressure_change(std::uint64_t number) {
    return {.timeline = TimelineKind::pressure, .value = number};
  }
};

/// Where a device mapping is wanted.
class DevicePlacement {
 public:
  /// Wherever the driver process finds room.
  [[nodiscard]] static constexpr DevicePlacement anywhere() { return {ACCELMM_PLACE_ANYWHERE, {}}; }
  /// At `address` if it is free, else anywhere.
  [[nodiscard]] static constexpr DevicePlacement hint(DeviceAddr address) {
    return {ACCELMM_PLACE_HINT, address};
  }
  /// At `address`, or the mapping fails with address_in_use.
  [[nodiscard]] static constexpr DevicePlacement fixed(DeviceAddr address) {
    return {ACCELMM_PLACE_FIXED, address};
  }
  /// ACCELMM_PLACE_*
  [[nodiscard]] constexpr std::uint32_t rule() const { return rule_; }
  [[nodiscard]] constexpr DeviceAddr address() const { return address_; }

 private:
  constexpr DevicePlacement(std::uint32_t rule, DeviceAddr address)
      : rule_(rule), address_(address) {}
  std::uint32_t rule_;
  DeviceAddr address_;
};

/// A piece of a buffer in this process's memory.
///
/// Owns      the address range, and for memory of another driver a descriptor of it; the memory
///           lives on when the buffer or the client go.
/// Threads   externally synchronised; what the bytes hold is the application's own affair.
/// Lifetime  move-only; the destructor unmaps. Children of fork(2) do not have the range.
class CpuMapping {
 public:
  CpuMapping(CpuMapping&& other) noexcept;
  CpuMapping& operator=(CpuMapping&& other) noexcept;
  CpuMapping(const CpuMapping&) = delete;
  CpuMapping& operator=(const CpuMapping&) = delete;
  ~CpuMapping();
  /// For the library: neither is public. `brackets`  of a dma-buf; null for what is none.
  CpuMapping(Mapping mapping, std::shared_ptr<dmabuf::CpuBrackets> brackets);

  /// Exactly the piece that was asked for; to be written only if it was mapped for writing.
  [[nodiscard]] std::span<std::byte> bytes() const noexcept { return bytes_; }
  /// Waits until drivers have done what this access must wait for (readers for the last writer, writers
  /// for everyone), and tells them that a CPU is at it. For memory of other drivers, imported as
  /// dma-bufs: where devices do not see the CPU's caches, bytes may be old without it. Memory that
  /// accelmm made needs none, and this does nothing then.
  /// Threads  any, also several at once.
  /// Errors  timed_out: they had not by the deadline (CLOCK_MONOTONIC).  Any value of
  ///         DMA_BUF_IOCTL_SYNC.  invalid_argument: no such access, or nothing is mapped.
  [[nodiscard]] Result<CpuAccess> begin_access(
      Access access, std::uint64_t deadline_ns = std::numeric_limits<std::uint64_t>::max()) const;

 private:
  friend class Client;
  struct Place;
  void end() noexcept;
  /// Puts the pages over other addresses, which they are left to.
  [[nodiscard]] Result<void> move_over(std::byte* target);
  std::unique_ptr<Place> place_;
  std::span<std::byte> bytes_;
};

/// A piece of a buffer where the device's engines can reach it.
///
/// Owns      the mapping in the session's address space; keeps the connection open.
/// Threads   externally synchronised.
/// Lifetime  move-only; the destructor unmaps and forgets whether that worked. It may outlive its
///           buffer: the memory stays until the mapping ends.
class DeviceMapping {
 public:
  DeviceMapping(DeviceMapping&&) noexcept = default;
  DeviceMapping& operator=(DeviceMapping&& other) noexcept;
  DeviceMapping(const DeviceMapping&) = delete;
  DeviceMapping& operator=(const DeviceMapping&) = delete;
  ~DeviceMapping();

  [[nodiscard]] DeviceAddr address() const noexcept { return address_; }
  [[nodiscard]] ByteCount size() const noexcept { return size_; }
  /// Reached when the device can use the mapping.
  [[nodiscard]] Point point() const noexcept { return point_; }

  /// Unmaps now. Returns the point that is reached when the device cannot use it any more.
  /// Errors  invalid_argument: it is unmapped already.  no_device.
  Result<Point> unmap();
  /// Leaves the mapping to the session, which ends it when it closes.
  DeviceAddr release() noexcept;

 private:
  friend class Buffer;
  friend class Client;
  DeviceMapping(std::shared_ptr<ClientLink> link, DeviceAddr address, ByteCount size, Point point);
  std::shared_ptr<ClientLink> link_;  // empty: nothing is mapped
  DeviceAddr address_;
  ByteCount size_;
  Point point_;
};

/// A view of a buffer as others can take it: descriptors and where in them its bytes are.
///
/// Owns      the descriptors. They keep the memory, whatever becomes of who exported it.
struct Export {
  struct Piece {
    UniqueFd fd;
    std::uint64_t offset;  ///< bytes into the descriptor
    ByteCount length;
  };
  std::vector<Piece> pieces;  ///< in the order of the view's bytes; at most ACCELMM_MAX_PIECES

  [[nodiscard]] ByteCount size() const;
};

/// Sends an export to whoever is at the other end of a Unix SOCK_SEQPACKET or SOCK_DGRAM socket of
/// the application's own. The export stays the caller's.
/// Errors  invalid_argument: no pieces, or more than ACCELMM_MAX_PIECES.  Any value of sendmsg(2).
[[nodiscard]] Result<void> send_export(FdView socket, const Export& view);
/// Receives what send_export() sent; waits for it if the socket is a blocking one.
/// Errors  protocol_error: it was something else (descriptors that came are closed).
///         ECONNRESET: the sender closed the socket.  Any value of recvmsg(2).
[[nodiscard]] Result<Export> receive_export(FdView socket);

/// Memory that a session holds by handle.
///
/// Owns      the handle; keeps the connection open.
/// Units     ranges are bytes; the driver process wants whole pages (accelmm_info_device says
/// which). Threads   the mapping and exporting functions from any thread; the rest externally
/// synchronised. Lifetime  move-only; the destructor frees the handle. Mappings and exports keep
/// the memory. Errors    no_device from every function when the driver process, the device or the
/// parent of
///           this forked child is gone. protocol_error: the driver process answered nonsense.
class Buffer {
 public:
  Buffer(Buffer&&) noexcept = default;
  Buffer& operator=(Buffer&& other) noexcept;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer();

  [[nodiscard]] std::uint64_t handle() const noexcept { return handle_; }
  [[nodiscard]] ByteCount size() const noexcept { return size_; }
  /// What mappings of it may do: read_write unless it was imported from something narrower.
  [[nodiscard]] Access access() const noexcept { return access_; }

  /// Frees the handle now.
  /// Errors  invalid_argument: it was given up already.
  Result<void> free();
  /// Gives the handle up without freeing it; it then lives until the session ends.
  [[nodiscard]] std::uint64_t release() noexcept;

  /// Maps the whole buffer, or whole pages of it, into this process.
  /// Errors  invalid_argument: not whole pages, or beyond the end.  not_permitted: written to what
  ///         is read-only.  not_supported: device memory that is not CPU-visible.  over_quota.
  ///         Any value of mmap(2).
  [[nodiscard]] Result<CpuMapping> map_cpu(Access access = Access::read_write) const;
  [[nodiscard]] Result<CpuMapping> map_cpu(BufferRange range, Access access) const;

  /// Maps the whole buffer, or whole pages of it, for the device's engines. Work that uses the
  /// address may be submitted once the mapping's point is reached.
  /// Errors  invalid_argument: not whole pages, or beyond the end.  address_in_use: the fixed
  ///         address is taken.  not_supported: the device has no MMU.  no_memory: no room.
  ///         over_quota.
  [[nodiscard]] Result<DeviceMapping> map_device(
      Access access = Access::read_write,
      DevicePlacement placement = DevicePlacement::anywhere()) const;
  [[nodiscard]] Result<DeviceMapping> map_device(
      BufferRange range, Access access,
      DevicePlacement placement = DevicePlacement::anywhere()) const;

  /// Exports the whole buffer, or whole pages of it.
  /// Errors  invalid_argument: not whole pages, or beyond the end.  not_supported: the memory
  ///         cannot be shared as asked.
  [[nodiscard]] Result<Export> export_view() const;
  [[nodiscard]] Result<Export> export_view(BufferRange range) const;

  /// What was had of the backing that was asked for. Waits for a prefault that is under way, until
  /// it ends or the deadline passes (nanoseconds of CLOCK_MONOTONIC; 0 only asks).
  /// Errors  not_supported: device memory.  invalid_argument: freed meanwhile.  over_quota: too
  ///         many calls wait.
  [[nodiscard]] Result<BackingReport> backing(std::uint64_t deadline_ns = 0) const;

 private:
  friend class Client;
  Buffer(std::shared_ptr<ClientLink> link, std::uint64_t handle, ByteCount size, Access access);
  [[nodiscard]] BufferRange whole() const { return {BufferOffset(), BufferOffset(size_.value())}; }
  std::shared_ptr<ClientLink> link_;  // empty: no handle
  std::uint64_t handle_;
  ByteCount size_;
  Access access_;
};

}  // namespace accelmm
