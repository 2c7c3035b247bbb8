// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>

#include <cstddef>
#include <span>
#include <vector>

namespace accelmm {

/// Packets with descriptors beside them, over a Unix socket that belongs to someone else: one that
/// keeps the borders of packets (SOCK_SEQPACKET, SOCK_DGRAM). They wait if the socket is a blocking
/// one.

/// Sends one packet. The descriptors stay the caller's.
/// Errors  any value of sendmsg(2); never raises SIGPIPE.
[[nodiscard]] Result<void> send_packet_to(FdView socket, std::span<const std::byte> bytes,
                                          std::span<const FdView> fds);

/// Receives one packet of exactly bytes.size() bytes and at most `max_fds` descriptors.
/// Errors  protocol_error: it was of another size or had more descriptors (what came is closed).
///         ECONNRESET: the peer closed.  Any value of recvmsg(2).
[[nodiscard]] Result<std::vector<UniqueFd>> receive_packet_from(FdView socket,
                                                                std::span<std::byte> bytes,
                                                                std::size_t max_fds);

}  // namespace accelmm
