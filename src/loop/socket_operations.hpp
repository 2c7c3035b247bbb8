// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/fork_guard.hpp"
#include "loop/operation.hpp"

#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>
#include <accelmm/uapi.h>

#include <array>
#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include <sys/socket.h>

namespace accelmm {

class UringConnection;

/// A socket that stays open as long as an operation of the kernel's may refer to it by number.
using SharedSocket = std::shared_ptr<const ForkGuard>;

/// Receives one packet at a time.
///
/// Owns      the room for the packet, and the descriptors of one that came until somebody takes
/// them.
class ReceiveOperation final : public Operation {
 public:
  /// Errors  no_memory.
  [[nodiscard]] static Result<std::unique_ptr<ReceiveOperation>> create(UringConnection& owner,
                                                                        SharedSocket socket);
  ~ReceiveOperation() override;

  /// Whether a result is a packet, whole but for descriptors that lost_fds() tells of, rather than the
  /// end of the connection or a breach of the protocol.
  [[nodiscard]] bool whole(int result) const;
  /// Whether the kernel kept descriptors back because this process may have no more.
  [[nodiscard]] bool lost_fds() const;
  /// The packet that came with `result`; valid until this is started again.
  [[nodiscard]] std::span<const std::byte> bytes(int result) const;
  /// The descriptors that came with it. Errors  no_memory; they are closed then.
  [[nodiscard]] Result<std::vector<UniqueFd>> take_fds();
  /// Closes the descriptors that came and were not taken.
  void drop_fds() noexcept;

 private:
  ReceiveOperation(UringConnection& owner, SharedSocket socket,
                   std::unique_ptr<std::byte[]> buffer);
  void prepare(io_uring_sqe& sqe) override;
  void complete(int result) override;
  void discard(int result) noexcept override;
  [[nodiscard]] std::size_t fd_count() const;

  UringConnection& owner_;
  SharedSocket socket_;
  std::unique_ptr<std::byte[]> buffer_;  // ACCELMM_MAX_MESSAGE bytes
  iovec vector_ = {};
  msghdr message_ = {};
  // Room for ACCELMM_MAX_FDS and not one more: there is no padding at the end.
  alignas(cmsghdr) std::array<std::byte, CMSG_LEN(ACCELMM_MAX_FDS * sizeof(int))> control_ = {};
};

/// Tells the connection when its socket has one of some events; once for each start.
class PollOperation final : public Operation {
 public:
  using Done = void (UringConnection::*)(int revents);

  PollOperation(UringConnection& owner, SharedSocket socket, unsigned events, Done done);

 private:
  void prepare(io_uring_sqe& sqe) override;
  void complete(int result) override;
  void discard(int result) noexcept override;

  UringConnection& owner_;
  SharedSocket socket_;
  unsigned events_;
  Done done_;
};

/// Ends the connection in a turn of its own. Never reaches the kernel.
class EndOperation final : public Operation {
 public:
  explicit EndOperation(UringConnection& owner) : owner_(owner) {}

 private:
  void prepare(io_uring_sqe& sqe) override;
  void complete(int result) override;
  void discard(int result) noexcept override;

  UringConnection& owner_;
};

}  // namespace accelmm
