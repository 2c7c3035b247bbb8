// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string_view>

namespace accelmm::test {

/// After which operations a model looks at everything, which takes longer than the operation: after
/// all, or in a run that would take hours after one of several. What an operation itself answers is
/// judged each time.
class Checkpoints {
 public:
  Checkpoints() = default;

  /// For a run of so many steps with about `most` looks. ACCELMM_VALIDATE=all: after each all the same.
  [[nodiscard]] static Checkpoints of_run(std::uint64_t steps, std::uint64_t most) {
    Checkpoints checkpoints;
    const char* const which = std::getenv("ACCELMM_VALIDATE");
    if (which == nullptr || std::string_view(which) != "all")
      checkpoints.every_ = std::max<std::uint64_t>(steps / most, 1);
    return checkpoints;
  }

  [[nodiscard]] bool due() { return ++operations_ % every_ == 0; }

 private:
  std::uint64_t every_ = 1;
  std::uint64_t operations_ = 0;
};

}  // namespace accelmm::test
