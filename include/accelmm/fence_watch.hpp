// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/completion.hpp>
#include <accelmm/error.hpp>
#include <accelmm/fence.hpp>

#include <cstdint>
#include <limits>
#include <memory>

namespace accelmm {

/// Waits for fences beside what else its owner does: a driver that must not block lets a job begin
/// when the camera's fence ends.
///
/// Owns      one thread, which polls all fences at once.
/// Threads   any.
/// Lifetime  the destructor ends all waits with `canceled`; it is not called from a completion.
class FenceWatch {
 public:
  /// Errors  any value of eventfd(2).  no_memory: no thread.
  [[nodiscard]] static Result<std::unique_ptr<FenceWatch>> create();
  ~FenceWatch();
  FenceWatch(const FenceWatch&) = delete;
  FenceWatch& operator=(const FenceWatch&) = delete;

  /// Calls `done` with how the fence ended, or with timed_out at a time of CLOCK_MONOTONIC. In the
  /// watch's thread, under no lock.
  void wait(Fence fence, Completion done,
            std::uint64_t deadline_ns = std::numeric_limits<std::uint64_t>::max());
  /// How many waits have not ended.
  [[nodiscard]] std::size_t waiting() const;

 private:
  class Poller;
  explicit FenceWatch(std::unique_ptr<Poller> poller);
  std::unique_ptr<Poller> poller_;
};

}  // namespace accelmm
