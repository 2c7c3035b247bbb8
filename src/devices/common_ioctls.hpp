// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/driver.hpp>

namespace accelmm::devices {

class ComputeSession;
class ControlSession;

/// The framework's own ioctls of a compute node, answered by `session`. INFO is not among them:
/// every node has it.
[[nodiscard]] IoctlTable compute_ioctls(ComputeSession& session);
/// Those of a control node.
[[nodiscard]] IoctlTable control_ioctls(ControlSession& session);

}  // namespace accelmm::devices
