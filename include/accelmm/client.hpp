// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/buffer.hpp>
#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>
#include <accelmm/node.hpp>
#include <accelmm/transport.hpp>
#include <accelmm/uapi.h>
#include <accelmm/units.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace accelmm {

/// A deadline that never comes.
inline constexpr std::uint64_t no_deadline = std::numeric_limits<std::uint64_t>::max();

/// Says what an error means in accelmm, whatever made it: one literal per errno, never null. An
/// errno that accelmm gives no meaning has a general text.
[[nodiscard]] const char* error_text(Errc code) noexcept;

/// What Client::shortage() told, in several lines for people to read.
/// Errors  no_memory.
[[nodiscard]] Result<std::string> shortage_text(const accelmm_shortage& shortage);

/// The application's end of a session.
///
/// Owns      the connection, together with the buffers and device mappings made through it: the
///           session ends, and with it all that it holds, when the last of them is destroyed.
/// Units     deadlines are absolute nanoseconds of CLOCK_MONOTONIC.
/// Threads   all functions from any number of threads at once; one that waits holds no other up.
/// Lifetime  move-only. After a move only destruction and assignment are allowed.
/// Errors    no_device, for ever after, from every function: the driver process died, the device
///           was removed, or this is a forked child. protocol_error: the driver process answered
///           nonsense; descriptors that came with it are closed, nothing was changed here.
class Client {
 public:
  /// Opens a node: accel<device> or accel_controlD<device> in `directory`, or in
  /// default_runtime_directory() if that is empty.
  /// Errors  no_device: there is no such node, or its driver process is gone.  EACCES: its mode
  ///         refuses this user.  busy: another session holds an exclusive device.
  ///         try_again: the device is in reset.  over_quota.  Any value of connect(2).
  ///         protocol_error: not an accelmm node, or one that speaks another protocol.
  [[nodiscard]] static Result<Client> connect(std::uint32_t device,
                                              NodeKind kind = NodeKind::compute,
                                              const std::string& directory = {});
  /// Opens the node with this path.
  [[nodiscard]] static Result<Client> connect(const std::string& path);
  /// Begins a session over a connection that exists already: embedded mode (Runtime::connect).
  [[nodiscard]] static Result<Client> connect(std::unique_ptr<Channel> channel);

  /// Unique in the driver process.
  [[nodiscard]] std::uint64_t session() const noexcept;
  [[nodiscard]] std::uint32_t device() const noexcept;
  [[nodiscard]] NodeKind node() const noexcept;

  // --- facts, on both kinds of node unless said otherwise ---
  [[nodiscard]] Result<accelmm_info_device> device_info() const;
  [[nodiscard]] Result<accelmm_info_usage> usage() const;
  /// Compute nodes; control nodes answer invalid_argument.
  [[nodiscard]] Result<accelmm_info_session> session_info() const;
  /// The last fault of this session's jobs (compute) or of the device (control); count 0: none.
  [[nodiscard]] Result<accelmm_info_fault> last_fault() const;
  /// The driver's own topic ACCELMM_INFO_DRIVER + topic, cut to ACCELMM_INFO_DATA_SIZE bytes.
  /// Errors  invalid_argument: the driver has no such topic.
  [[nodiscard]] Result<std::vector<std::byte>> driver_info(std::uint32_t topic) const;

  /// Why there is no device memory for a request of `size` bytes with these ACCELMM_ALLOC_* flags;
  /// of 0 bytes: for the one that failed last. Who holds what of it: on compute nodes this session
  /// only, on control nodes every session. shortage_text() makes words of it.
  /// Errors  invalid_argument: flags that contradict each other.  not_supported: the device has no
  ///         memory.
  [[nodiscard]] Result<accelmm_shortage> shortage(ByteCount size = {},
                                                  std::uint32_t flags = 0) const;

  /// Moves device memory of sessions, at most `budget` bytes of it, so that a free run of `run` bytes
  /// comes to be; of 0 bytes: so that native pages which small pieces share become empty. Control
  /// nodes only; compute nodes answer unknown_ioctl. Tells what was moved, and what is free now.
  /// Errors  not_permitted: only root, the driver process's user and the nodes' owner may.
  ///         not_supported: the device cannot.  busy: it is at it already.  invalid_argument: no
  ///         budget.  What the device failed with.
  [[nodiscard]] Result<accelmm_defragment> defragment(ByteCount budget, ByteCount run = {}) const;

  // --- buffers (compute nodes; control nodes answer unknown_ioctl) ---
  /// Allocates at least `size` bytes, rounded up to pages, all zero.
  /// Errors  invalid_argument: no bytes, or options that contradict each other.  no_memory.
  ///         over_quota.  If the backing must be exact, what it cannot be: not_permitted,
  ///         not_supported, no_memory (a pool is empty), over_quota (locked memory).
  [[nodiscard]] Result<Buffer> allocate(ByteCount size, BufferOptions options = {}) const;
  /// Makes a buffer of what someone exported; the descriptors stay the caller's.
  /// Errors  invalid_argument: no pieces, too many, or a memfd that is not sealed.  over_quota.
  [[nodiscard]] Result<Buffer> import_view(const Export& view) const;

  /// Makes memory of this process a buffer's: copies it into a new buffer, once, and maps that over
  /// the same addresses, so that pointers into it stay good and the device sees what is written
  /// through them. Whole pages of the process's own writable memory that nobody writes meanwhile.
  /// The addresses stay mapped, and hold the memory, when the buffer is freed and when the client
  /// goes; they are the application's to unmap. Forked children do not have them.
  /// Errors  invalid_argument: empty, not whole pages; options of huge pages of a pool, or of another
  ///         domain than the host's.  Those of allocate() and map_cpu(): the memory is as it was.
  [[nodiscard]] Result<Buffer> adopt(std::span<std::byte> memory, BufferOptions options = {}) const;

  /// Maps memory of this process as it lies there, without a buffer and without a copy: embedded mode,
  /// and a device behind an IOMMU. Whole pages, which are pinned, and count against RLIMIT_MEMLOCK,
  /// until the mapping ends. They are to stay mapped meanwhile; if not, the device goes on to use the
  /// pages that were there. A child of fork(2) does not have the mapping, and takes no page from it.
  /// Errors  not_supported: the driver is in another process; the device has no IOMMU; a fixed
  ///         address; memory that cannot be pinned: nothing is there, it is not to be written, or it is
  ///         another driver's.  invalid_argument: empty, not whole pages, no such access.
  ///         over_quota: RLIMIT_MEMLOCK, too many mappings.  no_memory.
  [[nodiscard]] Result<DeviceMapping> map_in_place(
      std::span<std::byte> memory, Access access = Access::read_write,
      DevicePlacement placement = DevicePlacement::anywhere()) const;

  // --- ioctls ---
  /// Sends one ioctl with the struct that its number stands for. On success `args` is what came
  /// back, and the descriptors that came beside it are appended to `reply_fds` (closed if that is
  /// null). On failure both are as before. `fds` stay the caller's.
  /// Errors  unknown_ioctl.  invalid_argument: the number is for a struct of another size.
  ///         too_big: the struct holds something that this older driver does not know.
  template <class Args>
    requires std::is_trivially_copyable_v<Args> && std::is_standard_layout_v<Args>
  [[nodiscard]] Result<void> ioctl(std::uint32_t command, Args& args,
                                   std::span<const FdView> fds = {},
                                   std::vector<UniqueFd>* reply_fds = nullptr) const {
    return ioctl_bytes(command, std::as_writable_bytes(std::span(&args, 1)), fds, reply_fds);
  }
  [[nodiscard]] Result<void> ioctl_bytes(std::uint32_t command, std::span<std::byte> args,
                                         std::span<const FdView> fds = {},
                                         std::vector<UniqueFd>* reply_fds = nullptr) const;

  // --- waiting ---
  /// Waits until the point is reached.
  /// Errors  timed_out: the deadline came first.  What the job at exactly this point failed with
  ///         (fault: the device could not reach memory, see last_fault()).
  ///         invalid_argument: nobody gave this point out.
  [[nodiscard]] Result<void> wait(Point point, std::uint64_t deadline_ns = no_deadline) const;
  [[nodiscard]] Result<void> wait(Point point,
                                  std::chrono::steady_clock::time_point deadline) const;
  /// Asks for one event when the point is reached or failed.
  [[nodiscard]] Result<void> watch(Point point) const;
  /// What an event loop polls: readable when a watched point ended, hung up when the driver process
  /// is gone. Made by the first call; the client's own.
  [[nodiscard]] Result<FdView> event_fd() const;
  /// Takes one event, or nothing if none is there. Never waits.
  /// Errors  no_device: no event is left and none will come.
  [[nodiscard]] Result<std::optional<accelmm_event>> read_event() const;

 private:
  friend class ClientHeapSource;
  explicit Client(std::shared_ptr<ClientLink> link) : link_(std::move(link)) {}
  std::shared_ptr<ClientLink> link_;
};

}  // namespace accelmm
