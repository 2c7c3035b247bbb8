// SPDX-License-Identifier: Apache-2.0
#include "base/process_mark.hpp"

#include <unistd.h>

namespace accelmm {

ProcessMark::ProcessMark() noexcept : maker_(::getpid()) {}

bool ProcessMark::in_forked_child() const noexcept {
  return ::getpid() != maker_;
}

}  // namespace accelmm
