// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/listening_socket.hpp"
#include "base/lock_file.hpp"

#include <accelmm/device.hpp>
#include <accelmm/node.hpp>
#include <accelmm/transport.hpp>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

namespace accelmm::devices {

/// A device number and the two nodes that go by it, as long as this lives.
///
/// The number is claimed by a lock on <directory>/accel<N>.lock, so a socket whose lock is free is
/// stale and replaced.
class NodePair {
 public:
  /// Claims a number without making its nodes yet.
  /// Errors  busy: another process has it.
  [[nodiscard]] static Result<NodePair> claim(const std::string& directory, std::uint32_t number);
  /// A number that no other process competes for, and no nodes.
  [[nodiscard]] static NodePair without_nodes(std::uint32_t number) { return NodePair(number); }

  /// Makes both nodes and accepts on them.
  [[nodiscard]] Result<void> open(Transport& transport, const NodePermissions& permissions,
                                  Transport::Accept compute, Transport::Accept control);

  [[nodiscard]] std::uint32_t number() const { return number_; }

 private:
  struct Node {
    ListeningSocket socket;
    std::unique_ptr<Transport::Listener> listener;
  };
  explicit NodePair(std::uint32_t number) : number_(number) {}
  [[nodiscard]] Result<Node> make(Transport& transport, NodeKind kind,
                                  const ListeningSocket::Permissions& permissions,
                                  Transport::Accept accept) const;

  std::uint32_t number_;
  std::string directory_;
  std::optional<LockFile> lock_;
  std::optional<Node> compute_;
  std::optional<Node> control_;
};

}  // namespace accelmm::devices
