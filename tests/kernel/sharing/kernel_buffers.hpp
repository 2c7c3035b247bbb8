// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <fstream>
#include <string>
#include <string_view>
#include <thread>

#include <gtest/gtest.h>
#include <sys/mount.h>

namespace accelmm::test {

/// The dma-bufs that there are, in all of the kernel.
[[nodiscard]] inline std::size_t count_dma_bufs() {
  static_cast<void>(::mount("none", "/sys/kernel/debug", "debugfs", 0, nullptr));
  std::ifstream info("/sys/kernel/debug/dma_buf/bufinfo");
  EXPECT_TRUE(info.good()) << "debugfs says nothing of dma-bufs";
  constexpr std::string_view total = "Total ";
  std::size_t count = 0;
  for (std::string line; std::getline(info, line);)
    if (line.starts_with(total)) count = std::strtoull(line.c_str() + total.size(), nullptr, 10);
  return count;
}

/// Whether there come to be so many: a driver process learns of a session's end in its own time.
[[nodiscard]] inline bool dma_bufs_become(std::size_t count) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (count_dma_bufs() != count) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return true;
}

}  // namespace accelmm::test
