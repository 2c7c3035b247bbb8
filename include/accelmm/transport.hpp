// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include <sys/types.h>

namespace accelmm {

/// Who is at the other end, as the kernel said when the connection was made.
struct Peer {
  /// Whether addresses that the peer names are of this process. Only what joins the two in one process
  /// may say so: no number of a process proves it.
  enum class Memory : std::uint8_t { of_another_process, of_this_process };

  pid_t pid;
  uid_t uid;
  gid_t gid;
  Memory memory = Memory::of_another_process;
};

/// The application's end of a connection to a node.
///
/// Threads   call() from any number of threads at once; replies find their callers by sequence
///           number, so a call that waits for long (ACCELMM_IOCTL_WAIT) holds nobody else up.
/// Errors    no_device, for ever after, from every call: the driver process is gone, the node was
///           removed while this was connecting, or this is a forked child.
class Channel {
 public:
  virtual ~Channel() = default;

  /// Sends one request and waits for its reply.
  ///
  /// `request` begins with an accelmm_message_header, whose sequence number this call fills in. The
  /// reply, header included, is written to `reply`, its descriptors are appended to `reply_fds`.
  /// `fds` stay the caller's. Returns the size of the reply. Errors: protocol_error when the reply
  /// does not fit.
  [[nodiscard]] virtual Result<std::size_t> call(std::span<std::byte> request,
                                                 std::span<const FdView> fds,
                                                 std::span<std::byte> reply,
                                                 std::vector<UniqueFd>& reply_fds) = 0;
};

/// The driver process's end of a connection. Used in the loop's thread only. Destroying it hangs
/// up.
class Connection {
 public:
  virtual ~Connection() = default;

  /// Queues one packet; never blocks. The descriptors are duplicated or sent before it returns.
  /// A peer that does not read loses its connection (on_end) rather than filling our memory.
  virtual void send(std::span<const std::byte> bytes, std::span<const FdView> fds) = 0;
  /// Stops reading from the peer until resume(): the peer's sends then block. Its end is still
  /// noticed.
  virtual void pause() = 0;
  virtual void resume() = 0;
  [[nodiscard]] virtual Peer peer() const = 0;
  /// Asks the kernel whether the peer is gone, although on_end() may not have been called yet.
  [[nodiscard]] virtual bool hung_up() const = 0;
};

/// Receives what happens on a connection, in the loop's thread.
class ConnectionEvents {
 public:
  virtual ~ConnectionEvents() = default;
  /// One packet came. `bytes` are a private copy that lives during the call.
  virtual void on_message(std::span<const std::byte> bytes, std::vector<UniqueFd> fds) = 0;
  /// One packet came with descriptors that this process has no room for. They are lost.
  virtual void on_lost_fds(std::span<const std::byte> bytes) = 0;
  /// The peer is gone or broke the protocol. Last call on this object; it may destroy the
  /// connection here.
  virtual void on_end() = 0;
};

/// Serves nodes: one thread that accepts connections, receives packets, and runs what others post
/// to it.
class Transport {
 public:
  using Function = std::move_only_function<void()>;
  /// Decides on a new connection: returns the receiver of its events (which outlives the connection
  /// or on_end()).
  using Accept = std::function<ConnectionEvents*(std::unique_ptr<Connection>)>;
  using TimerId = std::uint64_t;

  virtual ~Transport() = default;

  /// Accepts on a listening socket until the returned listener is destroyed (loop thread, or before
  /// run()).
  class Listener {
   public:
    virtual ~Listener() = default;
  };
  [[nodiscard]] virtual Result<std::unique_ptr<Listener>> listen(UniqueFd socket,
                                                                 Accept accept) = 0;

  /// Runs `function` in the loop's thread, soon, in order of posting. Any thread. After stop() what
  /// was posted still runs before run() returns.
  virtual void post(Function function) = 0;
  /// Runs `function` once at `deadline_ns` of CLOCK_MONOTONIC. Loop thread only.
  virtual TimerId call_at(std::uint64_t deadline_ns, Function function) = 0;
  /// Forgets a timer; a timer that already ran is ignored. Loop thread only.
  virtual void cancel_timer(TimerId timer) = 0;

  /// Serves in the calling thread until stop(). One thread at a time.
  [[nodiscard]] virtual Result<void> run() = 0;
  /// Makes run() return. Any thread.
  virtual void stop() = 0;
  /// Whether the caller runs in the loop's thread.
  [[nodiscard]] virtual bool in_loop() const = 0;
};

}  // namespace accelmm
