// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <ostream>
#include <sstream>
#include <string>

#include <dirent.h>

namespace accelmm::test {

/// What this process holds of the system's things. Taken before and after, it shows what leaked.
struct Census {
  std::size_t fds = 0;
  std::size_t memfd_maps = 0;      ///< areas of /proc/self/maps that show a memfd
  std::uint64_t mapped_bytes = 0;  ///< all areas; malloc moves it by megabytes

  /// Whether the same descriptors' number and memfd areas are there, and the addresses up to what
  /// malloc may take. Windows in tests are larger than that.
  [[nodiscard]] bool matches(const Census& other) const {
    constexpr std::uint64_t malloc_room = std::uint64_t{512} << 20;
    const std::uint64_t difference = mapped_bytes > other.mapped_bytes
                                         ? mapped_bytes - other.mapped_bytes
                                         : other.mapped_bytes - mapped_bytes;
    return fds == other.fds && memfd_maps == other.memfd_maps && difference < malloc_room;
  }
};

inline std::ostream& operator<<(std::ostream& out, const Census& census) {
  return out << census.fds << " fds, " << census.memfd_maps << " memfd areas, "
             << census.mapped_bytes << " bytes mapped";
}

[[nodiscard]] inline std::size_t count_fds() {
  std::size_t count = 0;
  DIR* const folder = ::opendir("/proc/self/fd");
  while (const dirent* const entry = ::readdir(folder))
    if (entry->d_name[0] != '.') ++count;
  ::closedir(folder);
  return count - 1;  // the folder itself
}

/// How many areas of /proc/self/maps have this text in their line.
[[nodiscard]] inline std::size_t count_maps(const std::string& text) {
  std::ifstream maps("/proc/self/maps");
  std::size_t count = 0;
  for (std::string line; std::getline(maps, line);)
    if (line.find(text) != std::string::npos) ++count;
  return count;
}

[[nodiscard]] inline std::uint64_t count_mapped_bytes() {
  std::ifstream maps("/proc/self/maps");
  std::uint64_t total = 0;
  for (std::string line; std::getline(maps, line);) {
    std::istringstream fields(line);
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
    char dash = 0;
    fields >> std::hex >> begin >> dash >> end;
    total += end - begin;
  }
  return total;
}

[[nodiscard]] inline Census take_census() {
  return {.fds = count_fds(),
          .memfd_maps = count_maps("/memfd:"),
          .mapped_bytes = count_mapped_bytes()};
}

}  // namespace accelmm::test
