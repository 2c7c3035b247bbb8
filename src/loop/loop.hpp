// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/transport.hpp>

#include <cstdint>
#include <memory>

namespace accelmm {

/// Makes an event loop for nodes, on whatever the system offers for it.
///
/// Where requests come in quick succession it looks for the next one for `busy_poll_ns` before its
/// thread sleeps; 0: it sleeps at once.
/// Listeners and connections of a loop are destroyed before it.
/// Errors  no_memory.  not_supported: the kernel's io_uring lacks what the loop needs (6.1 has it).
/// ENOSYS, EPERM:
///         there is no io_uring here, or it is forbidden.  Any other errno of io_uring_setup(2) and
///         eventfd(2).
[[nodiscard]] Result<std::unique_ptr<Transport>> create_transport(std::uint64_t busy_poll_ns = 0);

}  // namespace accelmm
