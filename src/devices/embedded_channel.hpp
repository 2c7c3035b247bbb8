// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/transport.hpp>

#include <functional>
#include <memory>

namespace accelmm::devices {

/// The transport of embedded mode: packets go from a caller's thread to the loop's and back without
/// a socket.
///
/// Descriptors are duplicated on the way, so both sides own theirs as they would across processes.
struct EmbeddedPair {
  std::unique_ptr<Channel> channel;
  std::unique_ptr<Connection> connection;
  /// Tells the channel where its packets go. Loop thread, before the first call.
  std::function<void(ConnectionEvents*)> attach;
};

[[nodiscard]] EmbeddedPair make_embedded_pair(Transport& transport);

}  // namespace accelmm::devices
