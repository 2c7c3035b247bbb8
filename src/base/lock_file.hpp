// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>

#include <string>

namespace accelmm {

/// An exclusive claim on a name, which ends with the process: flock(2) on a file that stays.
///
/// The file is never removed: two processes that raced for a removed file would both hold "the"
/// lock.
class LockFile {
 public:
  /// Errors  busy: another process (or another claim of this one) holds it.  Any value of open(2).
  [[nodiscard]] static Result<LockFile> claim(const std::string& path);

 private:
  explicit LockFile(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

/// Makes a directory if it is not there. Its parent must be.
[[nodiscard]] Result<void> ensure_directory(const std::string& path, unsigned mode);

}  // namespace accelmm
