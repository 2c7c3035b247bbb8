// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdio>
#include <string>
#include <vector>

#include <sys/wait.h>

namespace accelmm::kernel_test {

/// What a program of others said, and how it ended.
struct Ended {
  int status = -1;
  std::string output;

  [[nodiscard]] bool says(const std::string& text) const {
    return output.find(text) != std::string::npos;
  }
  /// Its lines with `text` in them.
  [[nodiscard]] std::vector<std::string> lines_with(const std::string& text) const {
    std::vector<std::string> found;
    for (std::size_t begin = 0; begin < output.size();) {
      const std::size_t end = std::min(output.find('\n', begin), output.size());
      const std::string line = output.substr(begin, end - begin);
      if (line.find(text) != std::string::npos) found.push_back(line);
      begin = end + 1;
    }
    return found;
  }
};

/// Runs a line of the shell, with a limit of time.
[[nodiscard]] inline Ended run_command(const std::string& line) {
  Ended ended;
  std::FILE* const pipe = ::popen(("exec 2>&1; " + line).c_str(), "r");
  if (pipe == nullptr) return ended;
  std::array<char, 4096> piece;
  while (const std::size_t read = std::fread(piece.data(), 1, piece.size(), pipe))
    ended.output.append(piece.data(), read);
  const int status = ::pclose(pipe);
  ended.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return ended;
}

}  // namespace accelmm::kernel_test
