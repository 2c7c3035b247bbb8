// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

namespace accelmm {

/// Remembers the process that made it. What a process made for itself alone (a mapping that forked
/// children do not have, a lock that another of its threads may hold) must be left alone by a child
/// that inherited a copy of its owner.
///
/// Cost      one getpid(2), here and in each question.
class ProcessMark {
 public:
  ProcessMark() noexcept;
  [[nodiscard]] bool in_forked_child() const noexcept;

 private:
  pid_t maker_;
};

}  // namespace accelmm
