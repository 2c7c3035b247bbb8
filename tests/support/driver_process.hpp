// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "devices/npu/npu_driver.hpp"
#include "support/application_process.hpp"
#include "support/killing_point.hpp"

#include <accelmm/driver.hpp>
#include <accelmm/runtime.hpp>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <ostream>
#include <sstream>
#include <string>

#include <fcntl.h>
#include <unistd.h>

namespace accelmm::test {

/// What a process holds of the system's things, as /proc shows it.
struct Holdings {
  std::size_t fds = 0;
  std::size_t memfds = 0;           ///< descriptors of memory files
  std::size_t memfd_maps = 0;       ///< areas that show a memory file
  std::size_t inheritable_fds = 0;  ///< descriptors from 3 on that are not close-on-exec
  std::uint64_t shmem_kib = 0;      ///< its share of the shared memory it has mapped

  bool operator==(const Holdings&) const = default;
};

inline std::ostream& operator<<(std::ostream& out, const Holdings& held) {
  return out << held.fds << " fds, " << held.memfds << " of them memfds, " << held.memfd_maps
             << " memfd areas, " << held.inheritable_fds << " inheritable fds, " << held.shmem_kib
             << " KiB of Shmem";
}

[[nodiscard]] inline bool is_inheritable(const std::filesystem::path& process, int fd) {
  std::ifstream info(process / "fdinfo" / std::to_string(fd));
  for (std::string name; info >> name;) {
    if (name != "flags:") continue;
    int flags = 0;
    info >> std::oct >> flags;
    return (flags & O_CLOEXEC) == 0;
  }
  return false;  // closed meanwhile
}

[[nodiscard]] inline std::size_t count_areas(pid_t pid, const std::string& text) {
  std::ifstream maps("/proc/" + std::to_string(pid) + "/maps");
  std::size_t count = 0;
  for (std::string line; std::getline(maps, line);)
    if (line.find(text) != std::string::npos) ++count;
  return count;
}

[[nodiscard]] inline Holdings take_holdings(pid_t pid) {
  const std::filesystem::path process = "/proc/" + std::to_string(pid);
  Holdings held;
  for (const auto& entry : std::filesystem::directory_iterator(process / "fd")) {
    const int fd = std::stoi(entry.path().filename());
    std::error_code closed;
    const std::string target = std::filesystem::read_symlink(entry.path(), closed);
    if (closed) continue;
    ++held.fds;
    if (target.starts_with("/memfd:")) ++held.memfds;
    if (fd > 2 && is_inheritable(process, fd)) ++held.inheritable_fds;
  }
  held.memfd_maps = count_areas(pid, "/memfd:");
  std::ifstream rollup(process / "smaps_rollup");
  for (std::string line; std::getline(rollup, line);)
    if (line.starts_with("Pss_Shmem:")) std::istringstream(line.substr(10)) >> held.shmem_kib;
  return held;
}

struct DriverProcessOptions {
  sim::NpuOptions npu{.memory = ByteCount(std::uint64_t{64} << 20),
                      .private_memory = ByteCount(std::uint64_t{4} << 20),
                      .compute_sessions = ComputeSessions::one,
                      .model = {},
                      .drop_entry = 0};
  ByteCount host_window{std::uint64_t{256} << 20};
  KillingPoint* points = nullptr;  ///< watched in the driver process, if given
};

/// A forked process that hosts one NPU.
///
/// Ends with this object, in order; or by kill(). Fork it while the test has one thread.
class DriverProcess {
 public:
  explicit DriverProcess(const std::string& directory, const DriverProcessOptions& options = {}) {
    int ready[2];
    int alive[2];
    if (::pipe2(ready, O_CLOEXEC) != 0 || ::pipe2(alive, O_CLOEXEC) != 0) std::abort();
    std::fflush(nullptr);
    pid_ = ::fork();
    if (pid_ < 0) std::abort();
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      keep_only(ready[1], alive[0]);
      host(directory, options, ready[1], alive[0]);
    }
    ::close(ready[1]);
    ::close(alive[0]);
    alive_ = UniqueFd(alive[1]);
    // No number comes from a driver process that could not begin: its stderr says why.
    if (::read(ready[0], &number_, sizeof number_) != sizeof number_) std::abort();
    // And nothing more: at the end of the file it has closed its end, and holds what it will hold.
    char more = 0;
    if (::read(ready[0], &more, 1) != 0) std::abort();
    ::close(ready[0]);
  }
  DriverProcess(const DriverProcess&) = delete;
  DriverProcess& operator=(const DriverProcess&) = delete;
  ~DriverProcess() {
    if (pid_ != 0) static_cast<void>(end());
  }

  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] std::uint32_t number() const { return number_; }
  /// Kills it with SIGKILL, and returns when it is gone.
  Ending kill() {
    ::kill(pid_, SIGKILL);
    return wait();
  }
  /// Has it remove its device and exit.
  Ending end() {
    alive_.reset();
    return wait();
  }
  [[nodiscard]] Holdings holdings() const { return take_holdings(pid_); }

 private:
  // What the test had open is none of a driver process's business.
  static void keep_only(int one, int other) {
    const auto low = static_cast<unsigned>(std::min(one, other));
    const auto high = static_cast<unsigned>(std::max(one, other));
    if (low > 3) ::close_range(3, low - 1, 0);
    if (high > low + 1) ::close_range(low + 1, high - 1, 0);
    ::close_range(high + 1, ~0U, 0);
  }

  [[noreturn]] static void host(const std::string& directory, const DriverProcessOptions& options,
                                int ready, int alive) {
    {
      auto runtime = Runtime::create({.directory = directory, .host_window = options.host_window});
      require(runtime.has_value(), "a runtime was made");
      auto driver = sim::make_npu_driver(options.npu);
      require(driver.has_value(), "a driver was made");
      const auto number =
          (*runtime)->register_device(sim::npu_description(options.npu), std::move(*driver));
      require(number.has_value(), "a device was registered");
      if (options.points != nullptr) options.points->watch(KillingPoint::Side::driver);
      require(::write(ready, &*number, sizeof *number) == sizeof *number, "the test listens");
      ::close(ready);
      char end = 0;
      while (::read(alive, &end, 1) < 0) {
      }
    }
    std::exit(0);  // with the sanitizers' last checks
  }

  Ending wait() {
    Ending ending;
    while (::waitpid(std::exchange(pid_, 0), &ending.status, 0) < 0)
      if (errno != EINTR) std::abort();
    return ending;
  }

  pid_t pid_ = 0;
  std::uint32_t number_ = 0;
  UniqueFd alive_;
};

}  // namespace accelmm::test
