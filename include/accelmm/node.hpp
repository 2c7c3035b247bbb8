// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace accelmm {

/// The two nodes of a device: work, and monitoring.
enum class NodeKind : std::uint8_t { compute, control };

/// Numbers of devices are below this, as in the kernel's accel subsystem (ACCEL_MAX_MINORS).
inline constexpr std::uint32_t max_devices = 256;

/// Where nodes are unless told otherwise: /run/accelmm if it exists or can be made, else
/// $XDG_RUNTIME_DIR/accelmm, else accelmm-<uid> below the system's temporary directory.
[[nodiscard]] std::string default_runtime_directory();

/// <directory>/accel<number> or <directory>/accel_controlD<number>.
[[nodiscard]] std::string node_path(const std::string& directory, std::uint32_t number,
                                    NodeKind kind);

}  // namespace accelmm
