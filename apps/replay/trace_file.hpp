// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/trace.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace accelmm::replay {

/// All bytes of a file.
/// Errors  what opening and reading it may give.
[[nodiscard]] Result<std::vector<std::byte>> read_file(const std::string& path);

/// A trace as a new file, which stays only if it was finished.
///
/// Threads  any.
class TraceFile final : public TraceSink {
 public:
  /// Errors  what opening a file may give; exists: there is one already.
  [[nodiscard]] static Result<TraceFile> create(const std::string& path);
  TraceFile(TraceFile&& other) noexcept;
  TraceFile& operator=(TraceFile&& other) = delete;
  ~TraceFile() override;

  [[nodiscard]] Result<void> write(std::uint64_t offset, std::span<const std::byte> bytes) override;
  [[nodiscard]] std::uint64_t now_ns() override;

  /// Lets the file stay.
  void keep() { path_.clear(); }

 private:
  TraceFile(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  int fd_;
  std::string path_;
};

}  // namespace accelmm::replay
