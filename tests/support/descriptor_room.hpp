// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <iterator>
#include <set>
#include <string>

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

namespace accelmm::test {

/// The lowest number that a new descriptor of a process would not get: as many as it has, if they have
/// no gaps, and lower otherwise.
inline rlim_t lowest_free_descriptor(pid_t process) {
  std::set<rlim_t> used;
  const auto folder = "/proc/" + std::to_string(process) + "/fd";
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    used.insert(std::stoul(entry.path().filename()));
  if (process == ::getpid()) used.erase(std::prev(used.end()));  // the folder itself
  rlim_t number = 0;
  while (used.contains(number)) ++number;
  return number;
}

/// Leaves a process room for some more descriptors while it lives.
class DescriptorRoom {
 public:
  DescriptorRoom(pid_t process, int more) : process_(process) {
    const rlim_t lowest = lowest_free_descriptor(process);
    EXPECT_EQ(0, ::prlimit(process, RLIMIT_NOFILE, nullptr, &before_));
    const rlimit less{lowest + static_cast<rlim_t>(more), before_.rlim_max};
    EXPECT_EQ(0, ::prlimit(process, RLIMIT_NOFILE, &less, nullptr));
  }
  DescriptorRoom(const DescriptorRoom&) = delete;
  DescriptorRoom& operator=(const DescriptorRoom&) = delete;
  ~DescriptorRoom() { EXPECT_EQ(0, ::prlimit(process_, RLIMIT_NOFILE, &before_, nullptr)); }

 private:
  pid_t process_;
  rlimit before_ = {};
};

}  // namespace accelmm::test
