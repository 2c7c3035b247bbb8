// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/backing.hpp>
#include <accelmm/error.hpp>

#include <cstddef>
#include <span>

namespace accelmm {

/// Says on which nodes the pages of the file at a place are made, whoever touches them first: the
/// kernel keeps the policy of a shared mapping with the file. Pages that are there already stay.
/// Errors  invalid_argument: nodes without a rule, or a rule without nodes.  not_supported: this
///         machine has none of the nodes, or no nodes at all.  Any other value of mbind(2).
[[nodiscard]] Result<void> apply_node_policy(std::span<std::byte> place, const NodePolicy& policy);

}  // namespace accelmm
