// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>

#include <utility>

namespace accelmm {

/// Something that one thread waits for and that happens once.
///
/// Threads  any; set() from a signal handler too.
class StopEvent {
 public:
  [[nodiscard]] static Result<StopEvent> create();
  /// Makes every wait() return, those to come included.
  void set() noexcept;
  void wait() const;

 private:
  explicit StopEvent(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

}  // namespace accelmm
