// SPDX-License-Identifier: Apache-2.0
#include "mm/backing/numa_policy.hpp"

#include "base/system.hpp"

#include <linux/mempolicy.h>

namespace accelmm {

namespace {

// MPOL_PREFERRED takes one node; with several, kernels from 5.15 on take MPOL_PREFERRED_MANY.
int preferred_mode(NodeSet nodes) {
  const bool single = (nodes.bits & (nodes.bits - 1)) == 0;
  return single ? MPOL_PREFERRED : MPOL_PREFERRED_MANY;
}

Result<int> mode_of(const NodePolicy& policy) {
  switch (policy.rule) {
    case NodeRule::preferred:
      return preferred_mode(policy.nodes);
    case NodeRule::bind:
      return MPOL_BIND;
    case NodeRule::interleave:
      return MPOL_INTERLEAVE;
    case NodeRule::any:
      break;
  }
  return fail(Errc::invalid_argument, "no such rule of nodes");
}

}  // namespace

Result<void> apply_node_policy(std::span<std::byte> place, const NodePolicy& policy) {
  if ((policy.rule == NodeRule::any) != (policy.nodes == NodeSet{}))
    return fail(Errc::invalid_argument, "nodes and their rule do not fit together");
  if (policy.rule == NodeRule::any) return {};
  const auto mode = mode_of(policy);
  if (!mode) return fail(mode.error());
  const auto bound = sys::mbind(place.data(), ByteCount(place.size()), *mode, policy.nodes.bits);
  if (bound) return {};
  // EINVAL: none of the nodes is there and allowed. ENOSYS: a kernel without nodes.
  const Errc code = bound.error().code;
  if (code == Errc::invalid_argument || code == static_cast<Errc>(ENOSYS))
    return fail(Errc::not_supported, "this machine has no such node");
  return bound;
}

}  // namespace accelmm
