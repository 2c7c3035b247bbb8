// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/event_reader.hpp"
#include "base/mutex.hpp"
#include "base/process_mark.hpp"

#include <accelmm/buffer.hpp>
#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>
#include <accelmm/node.hpp>
#include <accelmm/transport.hpp>
#include <accelmm/uapi.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace accelmm {

/// One session as the application's side keeps it: the connection, what HELLO said, and the checks
/// that every reply passes before anything in it is used.
///
/// Threads   all functions from any thread.
/// Lifetime  shared by the client, its buffers and its device mappings; the last one hangs up.
/// Errors    no_device, protocol_error as in Client.
class ClientLink {
 public:
  /// What HELLO said.
  struct Facts {
    std::uint64_t session;
    std::uint32_t device;
    NodeKind node;
    std::uint32_t max_message;
    std::uint32_t max_fds;
  };

  /// Connects to the node with this path and begins a session.
  [[nodiscard]] static Result<std::shared_ptr<ClientLink>> connect(const std::string& path);
  /// Connects to a node by its number; the answer must come from that node.
  [[nodiscard]] static Result<std::shared_ptr<ClientLink>> connect(std::uint32_t device,
                                                                   NodeKind kind,
                                                                   const std::string& directory);
  /// Begins a session over a connection.
  [[nodiscard]] static Result<std::shared_ptr<ClientLink>> create(std::unique_ptr<Channel> channel);

  [[nodiscard]] const Facts& facts() const noexcept { return facts_; }

  /// Sends one ioctl. On success `args` is the reply if the command has one, and its descriptors
  /// are in `reply_fds`, replacing what was there. On failure `args` is unchanged and no descriptor
  /// of the reply is open.
  [[nodiscard]] Result<void> ioctl(std::uint32_t command, std::span<std::byte> args,
                                   std::span<const FdView> fds, std::vector<UniqueFd>& reply_fds);

  /// The same for a struct and `fd_count` descriptors in the reply, no more and no fewer.
  template <class Args>
  [[nodiscard]] Result<std::vector<UniqueFd>> ioctl_with_fds(std::uint32_t command, Args& args,
                                                             std::span<const FdView> fds = {}) {
    std::vector<UniqueFd> reply_fds;
    const auto bytes = std::as_writable_bytes(std::span(&args, 1));
    if (const auto done = ioctl(command, bytes, fds, reply_fds); !done) return fail(done.error());
    return reply_fds;
  }
  /// The same for a reply without descriptors.
  template <class Args>
  [[nodiscard]] Result<void> ioctl_alone(std::uint32_t command, Args& args,
                                         std::span<const FdView> fds = {}) {
    const auto reply_fds = ioctl_with_fds(command, args, fds);
    if (!reply_fds) return fail(reply_fds.error());
    if (!reply_fds->empty())
      return fail(Errc::protocol_error, "descriptors came with a reply that has none");
    return {};
  }

  /// The descriptor of the session's events, asked for by the first call.
  [[nodiscard]] Result<FdView> event_fd() ACCELMM_EXCLUDES(events_mutex_);
  [[nodiscard]] Result<std::optional<accelmm_event>> read_event() ACCELMM_EXCLUDES(events_mutex_);

 private:
  // A packet to send, in the terms of accelmm_message_header.
  struct Outgoing {
    std::uint16_t kind;
    std::uint32_t command;
    std::span<const FdView> fds;
  };

  explicit ClientLink(std::unique_ptr<Channel> channel) : channel_(std::move(channel)) {}
  [[nodiscard]] Result<void> greet();
  [[nodiscard]] Result<void> exchange(const Outgoing& outgoing, std::span<std::byte> payload,
                                      std::vector<UniqueFd>& reply_fds);
  [[nodiscard]] Result<void> exchange_in(const Outgoing& outgoing, std::span<std::byte> payload,
                                         std::span<std::byte> request, std::span<std::byte> reply,
                                         std::vector<UniqueFd>& reply_fds);
  [[nodiscard]] Result<const EventReader*> events() ACCELMM_EXCLUDES(events_mutex_);

  std::unique_ptr<Channel> channel_;
  Facts facts_ = {};
  // A child that inherits the mutex may find it locked for ever.
  ProcessMark maker_;
  Mutex events_mutex_;
  // Set once, then read without the lock through the pointer that events() gives.
  std::optional<EventReader> events_ ACCELMM_GUARDED_BY(events_mutex_);
};

/// Reads a point of a reply.
/// Errors  protocol_error: no such timeline, or a reserved field is not zero.
[[nodiscard]] Result<Point> point_from_wire(const accelmm_point& point);
[[nodiscard]] accelmm_point point_to_wire(Point point) noexcept;

/// WAIT and WATCH.
[[nodiscard]] Result<void> wait_for(ClientLink& link, Point point, std::uint64_t deadline_ns);
[[nodiscard]] Result<void> watch(ClientLink& link, Point point);

}  // namespace accelmm
