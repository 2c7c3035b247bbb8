// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/mutex.hpp"

#include <bit>
#include <cstdint>
#include <optional>
#include <vector>

namespace accelmm::mm {

/// Freed objects that wait: in one of some random places until another object draws that place,
/// then in a queue until as many others came after.
///
/// They are also in a set, since a second free of one must be told from the first.
/// Owns     room for all of them, from the start.
/// Threads  any.
class SlabQuarantine {
 public:
  /// Throws std::bad_alloc.
  void start(std::uint32_t random, std::uint32_t queue, std::uint64_t seed) {
    const MutexLock lock(mutex_);
    random_.resize(random);
    queue_.resize(queue);
    // Half empty at most, so that a search is short.
    if (random + queue != 0)
      set_.resize(std::bit_ceil((std::uint64_t{random} + queue + 1) * 2), nothing);
    seed_ = seed | 1;
    enabled_ = random + queue != 0;
  }
  [[nodiscard]] bool enabled() const { return enabled_; }

  enum class Outcome { waits, waits_already };
  struct Entered {
    Outcome outcome = Outcome::waits;
    std::optional<std::uint64_t> leaves;  ///< an object that has waited long enough
  };
  /// Lets an object in.
  [[nodiscard]] Entered enter(std::uint64_t offset) {
    const MutexLock lock(mutex_);
    std::uint64_t& slot = set_[place_of(offset)];
    if (slot == offset) return {.outcome = Outcome::waits_already, .leaves = {}};
    slot = offset;
    ++waiting_;
    std::uint64_t moving = offset + 1;  // 0 is an empty place
    if (!random_.empty()) std::swap(moving, random_[draw() % random_.size()]);
    if (moving != 0 && !queue_.empty()) {
      std::swap(moving, queue_[next_]);
      next_ = (next_ + 1) % queue_.size();
    }
    if (moving == 0) return {};
    erase(moving - 1);
    return {.outcome = Outcome::waits, .leaves = moving - 1};
  }

  [[nodiscard]] bool has(std::uint64_t offset) const {
    const MutexLock lock(mutex_);
    return !set_.empty() && set_[place_of(offset)] == offset;
  }

  /// Takes any object out.
  [[nodiscard]] std::optional<std::uint64_t> leave() {
    const MutexLock lock(mutex_);
    for (auto* places : {&queue_, &random_})
      for (std::uint64_t& place : *places)
        if (place != 0) {
          const std::uint64_t offset = place - 1;
          place = 0;
          erase(offset);
          return offset;
        }
    return {};
  }

  [[nodiscard]] std::uint64_t waiting() const {
    const MutexLock lock(mutex_);
    return waiting_;
  }
  [[nodiscard]] std::uint64_t bytes() const {
    const MutexLock lock(mutex_);
    return (random_.size() + queue_.size() + set_.size()) * sizeof(std::uint64_t);
  }

 private:
  static constexpr std::uint64_t nothing = ~std::uint64_t{0};

  // Where the offset is in the set, or the empty place where it would be (open addressing).
  [[nodiscard]] std::size_t place_of(std::uint64_t offset) const ACCELMM_REQUIRES(mutex_) {
    std::size_t at = home_of(offset);
    while (set_[at] != nothing && set_[at] != offset) at = (at + 1) & (set_.size() - 1);
    return at;
  }
  // Fibonacci hashing: the upper bits of a product with 2^64 over the golden ratio.
  [[nodiscard]] std::size_t home_of(std::uint64_t offset) const ACCELMM_REQUIRES(mutex_) {
    return (offset * 0x9e37'79b9'7f4a'7c15 >> 32) & (set_.size() - 1);
  }
  // Takes one out, and moves those up that the gap would hide (Knuth, TAOCP 3, algorithm R).
  void erase(std::uint64_t offset) ACCELMM_REQUIRES(mutex_) {
    const std::size_t mask = set_.size() - 1;
    std::size_t gap = place_of(offset);
    for (std::size_t at = (gap + 1) & mask; set_[at] != nothing; at = (at + 1) & mask)
      if (((at - home_of(set_[at])) & mask) >= ((at - gap) & mask)) {
        set_[gap] = set_[at];
        gap = at;
      }
    set_[gap] = nothing;
    --waiting_;
  }
  // xorshift64 (Marsaglia, Xorshift RNGs, 2003).
  [[nodiscard]] std::uint64_t draw() ACCELMM_REQUIRES(mutex_) {
    seed_ ^= seed_ << 13;
    seed_ ^= seed_ >> 7;
    seed_ ^= seed_ << 17;
    return seed_;
  }

  mutable Mutex mutex_;
  bool enabled_ = false;  // set before others see the object
  std::uint64_t seed_ ACCELMM_GUARDED_BY(mutex_) = 1;
  std::uint64_t waiting_ ACCELMM_GUARDED_BY(mutex_) = 0;
  std::size_t next_ ACCELMM_GUARDED_BY(mutex_) = 0;
  std::vector<std::uint64_t> random_ ACCELMM_GUARDED_BY(mutex_);  // offset + 1
  std::vector<std::uint64_t> queue_ ACCELMM_GUARDED_BY(mutex_);   // offset + 1
  std::vector<std::uint64_t> set_ ACCELMM_GUARDED_BY(mutex_);
};

}  // namespace accelmm::mm
