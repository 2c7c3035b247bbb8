// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/device_file.hpp"

#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace accelmm {

/// What of the system reaches VFIO's files. The kernel, or a model of it (tests/support/fake_vfio).
///
/// Threads  any.
class VfioKernel {
 public:
  virtual ~VfioKernel() = default;

  /// For reading and writing, close-on-exec.
  [[nodiscard]] virtual Result<UniqueFd> open(const std::string& path) = 0;
  [[nodiscard]] virtual Result<std::string> read_link(const std::string& path) = 0;
  /// As sys::control().
  [[nodiscard]] virtual Result<int> control(FdView fd, unsigned long request,
                                            std::uintptr_t argument, const char* site) = 0;
  /// As sys::control_surely().
  [[nodiscard]] virtual Result<int> control_surely(FdView fd, unsigned long request,
                                                   std::uintptr_t argument) noexcept = 0;
  [[nodiscard]] virtual Result<void> read_at(FdView fd, std::uint64_t offset,
                                             std::span<std::byte> into) = 0;
  [[nodiscard]] virtual Result<void> write_at(FdView fd, std::uint64_t offset,
                                              std::span<const std::byte> from) = 0;
  [[nodiscard]] virtual Result<sys::LockedMemory> locked_memory() = 0;

  /// The argument of an ioctl that takes an address.
  template <class Args>
  [[nodiscard]] static std::uintptr_t address_of(Args& args) {
    return reinterpret_cast<std::uintptr_t>(&args);
  }
};

/// The system's own.
[[nodiscard]] VfioKernel& system_vfio_kernel() noexcept;

}  // namespace accelmm
