// SPDX-License-Identifier: Apache-2.0
#include "base/packet.hpp"

#include "base/system.hpp"

#include <cerrno>

namespace accelmm {

Result<void> send_packet_to(FdView socket, std::span<const std::byte> bytes,
                            std::span<const FdView> fds) {
  return sys::send_packet(socket, bytes, fds);
}

Result<std::vector<UniqueFd>> receive_packet_from(FdView socket, std::span<std::byte> bytes,
                                                  std::size_t max_fds) {
  auto packet = sys::receive_packet(socket, bytes, max_fds);
  if (!packet) return fail(packet.error());
  if (packet->size == 0) return fail_errno(ECONNRESET, "the peer closed its socket");
  if (packet->size != bytes.size())
    return fail(Errc::protocol_error, "a packet has an unexpected size");
  return std::move(packet->fds);
}

}  // namespace accelmm
