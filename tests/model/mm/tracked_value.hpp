// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/model_check.hpp"

namespace accelmm::test {

/// A value whose reads and end the model checker watches: one that is read while it is moved from or
/// destroyed is a data race.
class TrackedValue {
 public:
  explicit TrackedValue(int number) : number_(number) { ++alive; }
  TrackedValue(TrackedValue&& other) noexcept : number_(other.number_($)) {
    other.number_($) = moved_from;
    ++alive;
  }
  TrackedValue(const TrackedValue&) = delete;
  TrackedValue& operator=(const TrackedValue&) = delete;
  ~TrackedValue() {
    number_($) = destroyed;
    --alive;
  }

  [[nodiscard]] int number() { return number_($); }

  static inline int alive = 0;  // between steps of the model only one thread runs

 private:
  static constexpr int moved_from = -1;
  static constexpr int destroyed = -2;
  rl::var<int> number_;
};

}  // namespace accelmm::test
