// SPDX-License-Identifier: Apache-2.0
#include "base/per_cpu_area.hpp"

#include <accelmm/restartable.hpp>

#include <sys/rseq.h>

namespace accelmm::per_cpu {

std::ptrdiff_t thread_area() noexcept {
#if ACCELMM_RSEQ
  return __rseq_offset;
#else
  return 0;
#endif
}

}  // namespace accelmm::per_cpu
