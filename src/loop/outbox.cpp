// SPDX-License-Identifier: Apache-2.0
#include "loop/outbox.hpp"

#include "base/system.hpp"

#include <new>
#include <utility>

#include <sys/socket.h>

namespace accelmm {

Result<void> Outbox::push(std::span<const std::byte> bytes, std::span<const FdView> fds) {
  if (packets_.size() >= max_packets || bytes.size() > max_bytes - bytes_)
    return fail(Errc::over_quota, "the peer does not read");
  try {
    Packet packet;
    packet.bytes.assign(bytes.begin(), bytes.end());
    packet.fds.reserve(fds.size());
    packet.views.reserve(fds.size());
    for (const FdView fd : fds) {
      auto copy = sys::duplicate(fd);
      if (!copy) return fail(copy.error());
      packet.views.push_back(copy->view());
      packet.fds.push_back(std::move(*copy));
    }
    packets_.push_back(std::move(packet));
  } catch (const std::bad_alloc&) {
    return fail(Errc::no_memory, "no memory for a packet");
  }
  bytes_ += bytes.size();
  return {};
}

Result<void> Outbox::flush(FdView socket) {
  while (!packets_.empty()) {
    const Packet& packet = packets_.front();
    const auto sent = sys::send_packet(socket, packet.bytes, packet.views, MSG_DONTWAIT);
    if (!sent) {
      if (sent.error().code == Errc::try_again) return {};
      return sent;
    }
    bytes_ -= packet.bytes.size();
    packets_.pop_front();
  }
  return {};
}

void Outbox::clear() noexcept {
  packets_.clear();
  bytes_ = 0;
}

}  // namespace accelmm
