// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "child_process.hpp"
#include "outcome.hpp"

#include <accelmm/fd.hpp>

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

namespace demo {

/// The monitor process, and what it prints, shown among the demo's own lines as it comes.
class MonitorView {
 public:
  /// Starts a monitor of accel0 and accel1.
  [[nodiscard]] static Outcome<std::unique_ptr<MonitorView>> start(const std::string& directory);
  ~MonitorView();
  MonitorView(const MonitorView&) = delete;
  MonitorView& operator=(const MonitorView&) = delete;

  /// Waits until what the monitor prints at its start was shown.
  void wait_for_first();
  /// Asks for a print now and waits until it was shown; not for long if the monitor is gone.
  void show_now();
  [[nodiscard]] pid_t pid() const { return process_.pid(); }

 private:
  MonitorView(ChildProcess process, accelmm::UniqueFd requests, accelmm::UniqueFd lines);
  void relay();
  void wait_for_lines(std::unique_lock<std::mutex>& lock, std::uint64_t count);

  ChildProcess process_;
  accelmm::UniqueFd requests_;
  accelmm::UniqueFd lines_;
  std::mutex mutex_;
  std::condition_variable shown_;
  std::uint64_t line_count_ = 0;
  std::thread relay_;
};

}  // namespace demo
