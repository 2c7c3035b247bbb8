// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/busy_poll.hpp"
#include "base/fork_guard.hpp"
#include "base/mutex.hpp"
#include "base/system.hpp"

#include <accelmm/fd.hpp>
#include <accelmm/transport.hpp>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace accelmm {

/// The application's end of a node's socket. Needs no thread and no event loop of its own.
///
/// One of the threads that wait for replies reads the socket for all of them: it hands each reply
/// to the caller whose sequence number it carries, and when it has its own, the next waiting thread
/// reads on. Owns      the socket; a forked child's copy is closed by fork() itself (ForkGuard).
/// Threads   call() from any number at once. Destroying it is for the last user, with no call in
/// progress. Errors    as Channel says. A peer that breaks the protocol is treated as gone.
class SocketChannel final : public Channel {
 public:
  /// Connects to the node at `path`.
  /// Errors  no_device: nothing is there, or nobody serves it.  no_memory.  Any other errno of
  /// connect(2), such as
  ///         EACCES: this user may not open the node.
  [[nodiscard]] static Result<std::unique_ptr<Channel>> connect(const std::string& path);

  ~SocketChannel() override;
  SocketChannel(const SocketChannel&) = delete;
  SocketChannel& operator=(const SocketChannel&) = delete;

  /// Errors  of Channel::call, and, with nothing sent: invalid_argument (the request has no header
  /// or a message or
  ///         the number of descriptors is too large), no_memory, any errno of sendmsg(2).
  ///         too_many_files: the reply came, but its descriptors did not fit below RLIMIT_NOFILE.
  [[nodiscard]] Result<std::size_t> call(std::span<std::byte> request, std::span<const FdView> fds,
                                         std::span<std::byte> reply,
                                         std::vector<UniqueFd>& reply_fds) override;

 private:
  struct Waiter;

  SocketChannel(ForkGuard socket, std::unique_ptr<std::byte[]> buffer);

  [[nodiscard]] Result<void> enlist(Waiter& waiter) ACCELMM_EXCLUDES(lock_);
  void dismiss(Waiter& waiter) ACCELMM_EXCLUDES(lock_);
  [[nodiscard]] Waiter* find(std::uint32_t sequence) ACCELMM_REQUIRES(lock_);
  [[nodiscard]] Result<void> send(std::span<const std::byte> request, std::span<const FdView> fds)
      ACCELMM_EXCLUDES(lock_);
  void await(Waiter& waiter) ACCELMM_EXCLUDES(lock_);
  [[nodiscard]] Result<sys::ReceivedPacket> receive() ACCELMM_EXCLUDES(lock_);
  void dispatch(Result<sys::ReceivedPacket> packet) ACCELMM_REQUIRES(lock_);
  void deliver(sys::ReceivedPacket packet) ACCELMM_REQUIRES(lock_);
  void lose_descriptors() ACCELMM_REQUIRES(lock_);
  void break_off() ACCELMM_REQUIRES(lock_);
  void hand_over() ACCELMM_REQUIRES(lock_);

  ForkGuard socket_;
  // Where packets are received; touched by the reading thread only.
  std::unique_ptr<std::byte[]> buffer_;
  // Of the reading thread too.
  BusyPoll busy_poll_;

  Mutex lock_;
  Waiter* waiters_ ACCELMM_GUARDED_BY(lock_) = nullptr;  // calls in progress, newest first
  std::uint32_t next_sequence_ ACCELMM_GUARDED_BY(lock_) = 1;
  bool reading_ ACCELMM_GUARDED_BY(lock_) = false;  // one of the callers is in receive()
  bool broken_ ACCELMM_GUARDED_BY(lock_) = false;
};

}  // namespace accelmm
