// SPDX-License-Identifier: Apache-2.0
#include "devices/node_pair.hpp"

#include <utility>

namespace accelmm::devices {

Result<NodePair> NodePair::claim(const std::string& directory, std::uint32_t number) {
  auto lock = LockFile::claim(node_path(directory, number, NodeKind::compute) + ".lock");
  if (!lock) return fail(lock.error());
  NodePair pair(number);
  pair.directory_ = directory;
  pair.lock_.emplace(std::move(*lock));
  return pair;
}

Result<NodePair::Node> NodePair::make(Transport& transport, NodeKind kind,
                                      const ListeningSocket::Permissions& permissions,
                                      Transport::Accept accept) const {
  auto socket = ListeningSocket::create(node_path(directory_, number_, kind), permissions);
  if (!socket) return fail(socket.error());
  auto listener = transport.listen(socket->take_socket(), std::move(accept));
  if (!listener) return fail(listener.error());
  return Node{std::move(*socket), std::move(*listener)};
}

Result<void> NodePair::open(Transport& transport, const NodePermissions& permissions,
                            Transport::Accept compute, Transport::Accept control) {
  if (!lock_) return {};
  // The control node first: whoever sees the compute node finds both.
  auto second =
      make(transport, NodeKind::control,
           {permissions.uid, permissions.gid, permissions.control_mode}, std::move(control));
  if (!second) return fail(second.error());
  auto first =
      make(transport, NodeKind::compute,
           {permissions.uid, permissions.gid, permissions.compute_mode}, std::move(compute));
  if (!first) return fail(first.error());
  control_.emplace(std::move(*second));
  compute_.emplace(std::move(*first));
  return {};
}

}  // namespace accelmm::devices
