// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <utility>

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace accelmm::test {

/// Ends a forked process whose part of a test went wrong, with a reason on stderr.
inline void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "forked process %d: not so: %s\n", ::getpid(), what);
  std::fflush(stderr);
  ::_exit(1);
}

/// How a process ended.
struct Ending {
  int status = 0;  // of waitpid(2)

  [[nodiscard]] bool killed() const { return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL; }
  [[nodiscard]] bool signalled(int signal) const {
    return WIFSIGNALED(status) && WTERMSIG(status) == signal;
  }
  [[nodiscard]] bool succeeded() const { return WIFEXITED(status) && WEXITSTATUS(status) == 0; }
};

/// A forked child of the test that runs a function, in the role of an application.
///
/// The function's return is success; require() and exceptions are how it fails. No destructor of
/// the test runs in the child. It dies with the test. Fork it while the test has one thread.
class ApplicationProcess {
 public:
  template <class Body>
  explicit ApplicationProcess(Body body) {
    std::fflush(nullptr);
    pid_ = ::fork();
    if (pid_ < 0) std::abort();
    if (pid_ != 0) return;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    try {
      body();
    } catch (const std::exception& failed) {
      require(false, failed.what());
    }
    std::fflush(nullptr);
    ::_exit(0);
  }
  ApplicationProcess(const ApplicationProcess&) = delete;
  ApplicationProcess& operator=(const ApplicationProcess&) = delete;
  ~ApplicationProcess() {
    if (pid_ == 0) return;
    kill();
    static_cast<void>(wait());
  }

  [[nodiscard]] pid_t pid() const { return pid_; }
  void kill(int signal = SIGKILL) const { ::kill(pid_, signal); }
  /// Waits for its end. Once.
  Ending wait() {
    Ending ending;
    while (::waitpid(std::exchange(pid_, 0), &ending.status, 0) < 0)
      if (errno != EINTR) std::abort();
    return ending;
  }

 private:
  pid_t pid_ = 0;
};

}  // namespace accelmm::test
