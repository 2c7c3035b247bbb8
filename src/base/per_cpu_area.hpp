// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

namespace accelmm::per_cpu {

/// Where a thread's area of restartable sequences is, from the thread pointer: there to be written
/// to even where the kernel does not know of it. 0 where there is no code for sections.
[[nodiscard]] std::ptrdiff_t thread_area() noexcept;

}  // namespace accelmm::per_cpu
