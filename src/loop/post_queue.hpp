// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/mutex.hpp"

#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>
#include <accelmm/transport.hpp>

#include <vector>

namespace accelmm {

/// Functions that any thread hands to the loop's thread, and the eventfd that wakes it.
///
/// Threads   push() and wake() from any; the rest from the loop's thread.
class PostQueue {
 public:
  using Function = Transport::Function;

  [[nodiscard]] static Result<PostQueue> create();
  PostQueue(PostQueue&& other) noexcept;
  PostQueue& operator=(PostQueue&& other) = delete;

  /// What push() found: only who posts to an empty queue needs to wake the loop.
  enum class Before { empty, occupied };
  /// Strong guarantee: std::bad_alloc leaves the queue as it was.
  Before push(Function function) ACCELMM_EXCLUDES(lock_);
  void wake() noexcept;

  /// Readable after wake(), until it is read.
  [[nodiscard]] FdView fd() const { return event_.view(); }
  [[nodiscard]] bool empty() ACCELMM_EXCLUDES(lock_);
  /// Runs, in order, what was posted before the call. Not from within itself.
  void run() noexcept ACCELMM_EXCLUDES(lock_);
  /// Destroys what was posted, unrun, and what that posts in turn.
  void drop() noexcept ACCELMM_EXCLUDES(lock_);

 private:
  explicit PostQueue(UniqueFd event) : event_(std::move(event)) {}

  UniqueFd event_;
  std::vector<Function> running_;  // the loop's own; empty but for its capacity between runs
  Mutex lock_;
  std::vector<Function> posted_ ACCELMM_GUARDED_BY(lock_);
};

}  // namespace accelmm
