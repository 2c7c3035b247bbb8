// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/error.hpp>
#include <accelmm/fd.hpp>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <span>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace accelmm::test {

/// Where a program of $PATH lies, if it is there.
[[nodiscard]] inline std::optional<std::string> find_program(const std::string& name) {
  const char* path = std::getenv("PATH");
  std::istringstream folders(path == nullptr ? "/usr/bin:/bin" : path);
  for (std::string folder; std::getline(folders, folder, ':');) {
    const std::string file = std::filesystem::path(folder) / name;
    if (::access(file.c_str(), X_OK) == 0) return file;
  }
  return std::nullopt;
}

/// A QEMU that this process started.
///
/// It inherits the descriptors that it is given, under their numbers, and no others; its standard
/// output and error go to a file in memory.
/// Owns      the process: it is killed and waited for in the destructor. The kernel kills it when
///           the thread that started it ends, however that ends.
/// Lifetime  move-only.
class QemuProcess {
 public:
  /// Errors  those of memfd_create(2) and fork(2). A program that cannot run ends at once instead.
  [[nodiscard]] static Result<QemuProcess> start(const std::string& program,
                                                 const std::vector<std::string>& arguments,
                                                 std::span<const int> inherited) {
    UniqueFd output(::memfd_create("accelmm-qemu-output", MFD_CLOEXEC));
    if (!output.valid()) return fail_errno(errno, "no file for what QEMU prints");
    std::vector<char*> argv{const_cast<char*>(program.c_str())};
    for (const std::string& argument : arguments)
      argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    const pid_t parent = ::getpid();
    const pid_t pid = ::fork();
    if (pid < 0) return fail_errno(errno, "fork");
    if (pid == 0) become(argv.data(), parent, output.get(), inherited);
    return QemuProcess(pid, std::move(output));
  }

  QemuProcess(QemuProcess&& other) noexcept
      : pid_(std::exchange(other.pid_, 0)), output_(std::move(other.output_)) {}
  QemuProcess& operator=(QemuProcess&&) = delete;
  QemuProcess(const QemuProcess&) = delete;
  QemuProcess& operator=(const QemuProcess&) = delete;
  ~QemuProcess() {
    if (pid_ == 0) return;
    ::kill(pid_, SIGKILL);
    while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }

  [[nodiscard]] pid_t pid() const { return pid_; }

  /// The end of what it printed: why it ended, if it did.
  [[nodiscard]] std::string last_words() const {
    std::array<char, 2048> text{};
    const off_t end = ::lseek(output_.get(), 0, SEEK_END);
    const off_t begin = std::max<off_t>(0, end - static_cast<off_t>(text.size()));
    const ssize_t length = ::pread(output_.get(), text.data(), text.size(), begin);
    return {text.data(), length < 0 ? 0 : static_cast<std::size_t>(length)};
  }

 private:
  QemuProcess(pid_t pid, UniqueFd output) : pid_(pid), output_(std::move(output)) {}

  // After fork: nothing here allocates, for another thread may have held the allocator's lock.
  [[noreturn]] static void become(char* const* argv, pid_t parent, int output,
                                  std::span<const int> inherited) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(127);  // it ended before the line above
    const int nothing = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    ::dup2(nothing, STDIN_FILENO);
    ::dup2(output, STDOUT_FILENO);
    ::dup2(output, STDERR_FILENO);
    if (::close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) != 0) ::_exit(127);
    for (const int fd : inherited)
      if (::fcntl(fd, F_SETFD, 0) != 0) ::_exit(127);
    ::execv(argv[0], argv);
    ::_exit(127);
  }

  pid_t pid_;
  UniqueFd output_;
};

}  // namespace accelmm::test
