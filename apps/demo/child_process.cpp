// SPDX-License-Identifier: Apache-2.0
#include "child_process.hpp"

#include <cerrno>
#include <csignal>
#include <filesystem>

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace demo {
namespace {

/// The child's way to its program: async-signal-safe calls only, for other threads may hold locks.
[[noreturn]] void become(char* const* arguments, const ChildProcess::Wiring& wiring, pid_t parent) {
  const auto place = [](accelmm::FdView fd, int number) {
    if (!fd.valid()) return true;
    if (fd.get() == number) return fcntl(number, F_SETFD, 0) == 0;
    return dup2(fd.get(), number) == number;
  };
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  // Whatever ends the demo also ends this; the second line closes the gap before the first one.
  const bool bound = prctl(PR_SET_PDEATHSIG, SIGTERM) == 0 && getppid() == parent;
  if (bound && place(wiring.input, STDIN_FILENO) && place(wiring.output, STDOUT_FILENO) &&
      place(wiring.socket, ChildProcess::socket_number))
    execv(arguments[0], arguments);
  _exit(127);
}

}  // namespace

Outcome<ChildProcess> ChildProcess::start(const std::vector<std::string>& arguments,
                                          const Wiring& wiring) {
  std::vector<char*> pointers;
  pointers.reserve(arguments.size() + 1);
  for (const std::string& argument : arguments)
    pointers.push_back(const_cast<char*>(argument.c_str()));
  pointers.push_back(nullptr);
  if (access(arguments[0].c_str(), X_OK) != 0)
    return refuse_errno("cannot start " + arguments[0], errno);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) return refuse_errno("cannot start " + arguments[0], errno);
  if (pid == 0) become(pointers.data(), wiring, parent);
  return ChildProcess(pid);
}

ChildProcess::~ChildProcess() {
  stop();
}

int ChildProcess::wait() {
  if (pid_ < 0) return 0;
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int ChildProcess::stop() {
  if (pid_ >= 0) kill(pid_, SIGTERM);
  return wait();
}

std::string this_program() {
  return std::filesystem::read_symlink("/proc/self/exe").string();
}

std::string program_folder() {
  return std::filesystem::path(this_program()).parent_path().string();
}

}  // namespace demo
