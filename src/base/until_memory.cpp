// SPDX-License-Identifier: Apache-2.0
#include "base/until_memory.hpp"

#include <chrono>
#include <thread>

namespace accelmm {

void wait_for_memory() noexcept {
  std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

}  // namespace accelmm
