// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/access.hpp>
#include <accelmm/error.hpp>

#include <cstdint>
#include <memory>

namespace accelmm {

namespace dmabuf {
class CpuBrackets;
}

/// While this lives a CPU may touch memory that it shares with drivers (CpuMapping::begin_access).
///
/// Threads   externally synchronised; accesses of several threads nest and overlap.
/// Lifetime  move-only; the destructor ends it. It may outlive the mapping it is of.
class CpuAccess {
 public:
  CpuAccess(CpuAccess&& other) noexcept;
  CpuAccess& operator=(CpuAccess&& other) noexcept;
  CpuAccess(const CpuAccess&) = delete;
  CpuAccess& operator=(const CpuAccess&) = delete;
  ~CpuAccess();

  /// Ends it now. What the CPU wrote may not be with the devices before.
  /// Errors  any value of DMA_BUF_IOCTL_SYNC; it counts as ended all the same.
  ///         invalid_argument: it is ended.
  Result<void> end();
  [[nodiscard]] Access access() const { return access_; }

  /// For the library. `brackets`  null: memory that no driver need be told of.
  CpuAccess(std::shared_ptr<dmabuf::CpuBrackets> brackets, Access access);

 private:
  enum class State : std::uint8_t { open, ended };
  std::shared_ptr<dmabuf::CpuBrackets> brackets_;
  Access access_;
  State state_ = State::open;
};

}  // namespace accelmm
