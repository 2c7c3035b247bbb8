// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "outcome.hpp"

#include <accelmm/fd.hpp>

#include <string>
#include <utility>
#include <vector>

#include <sys/types.h>

namespace demo {

/// A program that runs beside the demo and ends when the demo does.
///
/// Lifetime  move-only; the destructor sends SIGTERM and waits for the end.
class ChildProcess {
 public:
  /// Which descriptors the program finds at 0, 1 and 3; what is not given it inherits, or has not.
  struct Wiring {
    accelmm::FdView input;
    accelmm::FdView output;
    accelmm::FdView socket;
  };
  static constexpr int socket_number = 3;

  [[nodiscard]] static Outcome<ChildProcess> start(const std::vector<std::string>& arguments,
                                                   const Wiring& wiring);
  ChildProcess(ChildProcess&& other) noexcept : pid_(std::exchange(other.pid_, -1)) {}
  ChildProcess& operator=(ChildProcess&&) = delete;
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;
  ~ChildProcess();

  [[nodiscard]] pid_t pid() const { return pid_; }
  /// Waits until it ends by itself; returns how: its exit status, or 128 and the signal's number.
  int wait();
  /// Asks it to end, and waits.
  int stop();

 private:
  explicit ChildProcess(pid_t pid) : pid_(pid) {}
  pid_t pid_;  // -1: ended
};

/// The folder of the running program: where the other programs are.
[[nodiscard]] std::string program_folder();
/// The running program.
[[nodiscard]] std::string this_program();

}  // namespace demo
