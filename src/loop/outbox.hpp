// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>

#include <cstddef>
#include <deque>
#include <span>
#include <vector>

namespace accelmm {

/// Packets that a socket had no room for, in order.
///
/// Owns      copies of the bytes, duplicates of the descriptors. Bounded: what a peer that does not
/// read can cost.
class Outbox {
 public:
  // A peer that has this much unread beside the 212 992 bytes that its socket holds does not read.
  // It is above what a well-behaved application can have pending: a reply is asked for, and a
  // thread asks for one at a time.
  static constexpr std::size_t max_packets = 64;
  static constexpr std::size_t max_bytes = std::size_t{1} << 20;

  [[nodiscard]] bool empty() const { return packets_.empty(); }
  /// Errors  over_quota: the peer does not read.  no_memory.  Any errno of duplicating a
  /// descriptor.
  [[nodiscard]] Result<void> push(std::span<const std::byte> bytes, std::span<const FdView> fds);
  /// Sends what there is room for. Errors  those of sendmsg(2), but never try_again.
  [[nodiscard]] Result<void> flush(FdView socket);
  void clear() noexcept;

 private:
  struct Packet {
    std::vector<std::byte> bytes;
    std::vector<UniqueFd> fds;
    std::vector<FdView> views;
  };
  std::deque<Packet> packets_;
  std::size_t bytes_ = 0;
};

}  // namespace accelmm
