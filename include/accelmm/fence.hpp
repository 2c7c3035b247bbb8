// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/access.hpp>
#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <utility>

namespace accelmm {

class FenceSignal;

/// An end of somebody's work that others wait for: a driver of the kernel's, or a program's.
///
/// A kernel fence is a sync_file: drivers wait for it too, and it always ends, because only drivers
/// make it and they owe its end. A user fence is a socket on which its maker says how the work
/// ended, or whose end says that the maker is gone; nothing in the kernel ever waits for it, because
/// a program may take for ever.
/// Owns      one descriptor; a copy of it can be sent to other processes.
/// Threads   any.
/// Lifetime  move-only.
/// Invariant once it has ended it stays ended, the same way for everybody.
class Fence {
 public:
  enum class Kind : std::uint8_t {
    kernel,  ///< a sync_file
    user,    ///< made by create()
    event,   ///< somebody's eventfd: ended when it can be read
  };
  struct Pair;

  /// A user fence, and its maker's end.
  [[nodiscard]] static Result<Pair> create();
  /// Takes a descriptor of any of the kinds, which is closed on failure.
  /// Errors  not_supported: none of them.
  [[nodiscard]] static Result<Fence> adopt(UniqueFd fd);
  /// What who wants to read, or write, a dma-buf must wait for; ended if there is nothing.
  /// Errors  not_supported: not a dma-buf, or a kernel before 6.0.
  [[nodiscard]] static Result<Fence> of_dma_buf(FdView buffer, Access wanted);
  /// A fence that ends when both have ended: fails if one has failed.
  /// Errors  not_supported: not both are kernel fences. Wait for one after the other.
  [[nodiscard]] static Result<Fence> merge(const Fence& first, const Fence& second);

  [[nodiscard]] Kind kind() const { return kind_; }
  /// To poll(2) for POLLIN: readable from its end on. Not to be read from.
  [[nodiscard]] FdView fd() const { return fd_.view(); }
  [[nodiscard]] Result<Fence> duplicate() const;

  /// How the work ended, or nothing while it has not.
  /// Errors (of the result)  what the work failed with.  no_device: its maker went without a word.
  [[nodiscard]] std::optional<Result<void>> outcome() const;
  /// Waits for the end until a time of CLOCK_MONOTONIC; 0 only asks.
  /// Errors  timed_out.  Those of outcome().
  [[nodiscard]] Result<void> wait(
      std::uint64_t deadline_ns = std::numeric_limits<std::uint64_t>::max()) const;

  /// Makes drivers that use a dma-buf from now on wait for this, as for one who reads, or writes.
  /// Errors  not_supported: not a kernel fence. What a program promises cannot be given to the
  ///         kernel: wait for it, then hand the buffer on.
  [[nodiscard]] Result<void> attach_to(FdView buffer, Access access) const;

 private:
  Fence(UniqueFd fd, Kind kind) : fd_(std::move(fd)), kind_(kind) {}

  UniqueFd fd_;
  Kind kind_;
};

/// The maker's end of a user fence. Destroying it unsaid ends the fence with no_device, as the death
/// of the process does.
class FenceSignal {
 public:
  /// Ends the fence, once.
  /// Errors  invalid_argument: it has ended.  Any value of sendmsg(2).
  [[nodiscard]] Result<void> signal(Result<void> outcome = {});

 private:
  friend class Fence;
  explicit FenceSignal(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;  // none: the fence has ended
};

struct Fence::Pair {
  Fence fence;
  FenceSignal signal;
};

}  // namespace accelmm
