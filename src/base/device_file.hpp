// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>
#include <accelmm/units.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

/// The system calls on the files of devices, each once, as those of base/system.hpp.
namespace accelmm::sys {

/// ioctl(2) with a number or an address as its argument; returns what it returned, 0 or more. Every
/// request has a fault-injection point of its own: `site`, a literal.
[[nodiscard]] Result<int> control(FdView fd, unsigned long request, std::uintptr_t argument,
                                  const char* site);
/// The same without a fault-injection point: for what undoes, and is not expected to fail.
[[nodiscard]] Result<int> control_surely(FdView fd, unsigned long request,
                                         std::uintptr_t argument) noexcept;

/// pread(2) and pwrite(2), in one go.
/// Errors  overflow: no file is that long.  io_error: less than all of it was copied.
[[nodiscard]] Result<void> read_at(FdView fd, std::uint64_t offset, std::span<std::byte> into);
[[nodiscard]] Result<void> write_at(FdView fd, std::uint64_t offset,
                                    std::span<const std::byte> from);

/// readlink(2). Errors  overflow: longer than 4095 bytes.
[[nodiscard]] Result<std::string> read_link(const std::string& path);

/// What this process may lock in memory, and has locked: what pinning for devices counts to as well.
struct LockedMemory {
  ByteCount limit;         ///< RLIMIT_MEMLOCK
  ByteCount locked;        ///< of all of this process
  bool unlimited = false;  ///< the limit is not asked for: CAP_IPC_LOCK
};
[[nodiscard]] Result<LockedMemory> locked_memory();

}  // namespace accelmm::sys
