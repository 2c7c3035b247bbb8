// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/mutex.hpp"

#include <accelmm/access.hpp>
#include <accelmm/cpu_access.hpp>
#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>

#include <array>
#include <cstdint>
#include <limits>
#include <memory>
#include <utility>

namespace accelmm::dmabuf {

/// What CPUs do to a dma-buf, in brackets that the kernel's drivers see.
///
/// The kernel's own bracket waits for fences without a limit and cannot be told to stop; here it is
/// entered once the fences have been seen to be signalled. A driver that adds one in between can
/// still hold the bracket up, for as long as drivers may let a fence take.
///
/// Threads   any; brackets of several threads nest and overlap.
/// Owns      a descriptor of the dma-buf.
/// Lifetime  shared: accesses keep it.
class CpuBrackets : public std::enable_shared_from_this<CpuBrackets> {
 public:
  /// `buffer`  a dma-buf. (Memory files need no brackets.)
  /// Throws  std::bad_alloc.
  [[nodiscard]] static std::shared_ptr<CpuBrackets> create(UniqueFd buffer);
  CpuBrackets(const CpuBrackets&) = delete;
  CpuBrackets& operator=(const CpuBrackets&) = delete;

  /// Waits until drivers have done what `access` must wait for, and opens a bracket.
  /// Errors  timed_out: they had not by then, nanoseconds of CLOCK_MONOTONIC (nothing is open).
  ///         Any value of DMA_BUF_IOCTL_SYNC.
  [[nodiscard]] Result<CpuAccess> begin(
      Access access, std::uint64_t deadline_ns = std::numeric_limits<std::uint64_t>::max());

  /// How many brackets are open that allow this.
  [[nodiscard]] std::uint32_t open(Access access) const;
  /// Whether the CPU may do this now: to be checked where memory of a dma-buf is touched. On
  /// machines whose devices see the CPU's caches nothing else shows that a bracket is missing.
  [[nodiscard]] bool covers(Access access) const { return open(access) > 0; }

 private:
  explicit CpuBrackets(UniqueFd buffer) : buffer_(std::move(buffer)) {}
  friend class accelmm::CpuAccess;
  [[nodiscard]] Result<void> prepare();
  Result<void> end(Access access);

  UniqueFd buffer_;
  mutable Mutex mutex_;
  std::array<std::uint32_t, 4> open_ ACCELMM_GUARDED_BY(mutex_){};  // by access
  enum class Direction : std::uint8_t { unset, both };
  Direction direction_ ACCELMM_GUARDED_BY(mutex_) = Direction::unset;
};

}  // namespace accelmm::dmabuf
