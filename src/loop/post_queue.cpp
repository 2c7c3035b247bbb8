// SPDX-License-Identifier: Apache-2.0
#include "loop/post_queue.hpp"

#include "base/system.hpp"

#include <accelmm/check.hpp>

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace accelmm {

namespace {

// A write to an eventfd of our own does not fail, unless 2^64 - 2 wakes are unread; fault injection
// makes one fail at a time.
constexpr int wake_attempts = 8;

}  // namespace

Result<PostQueue> PostQueue::create() {
  auto event = sys::eventfd();
  if (!event) return fail(event.error());
  return PostQueue(std::move(*event));
}

// Only while create() hands it out: nobody can have posted yet.
PostQueue::PostQueue(PostQueue&& other) noexcept : event_(std::move(other.event_)) {}

PostQueue::Before PostQueue::push(Function function) {
  const MutexLock held(lock_);
  const Before before = posted_.empty() ? Before::empty : Before::occupied;
  posted_.push_back(std::move(function));
  return before;
}

void PostQueue::wake() noexcept {
  constexpr auto one = std::bit_cast<std::array<std::byte, 8>>(std::uint64_t{1});
  Errc error = Errc::try_again;
  for (int attempt = 0; attempt < wake_attempts; ++attempt) {
    const auto written = sys::write(event_.view(), one);
    if (written) return;
    error = written.error().code;
  }
  // A counter that is full wakes as well.
  ACCELMM_CHECK(error == Errc::try_again);
}

bool PostQueue::empty() {
  const MutexLock held(lock_);
  return posted_.empty();
}

void PostQueue::run() noexcept {
  ACCELMM_CHECK(running_.empty());
  {
    const MutexLock held(lock_);
    running_.swap(posted_);
  }
  for (Function& function : running_) {
    // Destroyed as soon as it ran, so that what it holds is let go in order.
    Function now = std::move(function);
    now();
  }
  running_.clear();
}

void PostQueue::drop() noexcept {
  while (true) {
    std::vector<Function> dropped;
    {
      const MutexLock held(lock_);
      dropped.swap(posted_);
    }
    if (dropped.empty()) return;
  }
}

}  // namespace accelmm
