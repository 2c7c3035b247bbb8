// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <accelmm/client.hpp>
#include <accelmm/runtime.hpp>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

namespace accelmm::bench {

/// A child process that ends with this object.
class Child {
 public:
  template <class Body>
  explicit Child(Body body) : pid_(fork()) {
    if (pid_ == 0) {
      body();
      _exit(0);
    }
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }

 private:
  pid_t pid_;
};

/// A device that can do nothing: what it costs is the library's.
class IdleDriver final : public Driver {
 public:
  void probe(Device&, Completion done) override { done({}); }
  void remove(Device&) noexcept override {}
  void stop(Session&, Completion done) override { done({}); }
};

/// A driver process with one idle device. Its host buffers leave it as memory files.
class DriverProcess {
 public:
  DriverProcess() {
    std::array<int, 2> ready{};
    folder_ = std::filesystem::temp_directory_path() / "accelmm-bench-XXXXXX";
    if (mkdtemp(folder_.data()) == nullptr || pipe(ready.data()) != 0) return;
    child_.emplace([&] { host(ready[1]); });
    char byte = 0;
    close(ready[1]);
    static_cast<void>(read(ready[0], &byte, 1));
    close(ready[0]);
  }
  DriverProcess(const DriverProcess&) = delete;
  DriverProcess& operator=(const DriverProcess&) = delete;
  ~DriverProcess() {
    child_.reset();
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }

  /// Errors  those of Client::connect(), where there is no driver process too.
  [[nodiscard]] Result<Client> connect() const {
    return Client::connect(0, NodeKind::compute, folder_);
  }

 private:
  void host(int ready) const {
    auto runtime = Runtime::create(
        {.directory = folder_, .sharing = {.udmabuf = SharingPolicy::Udmabuf::never}});
    if (!runtime) return;
    DeviceDescription description;
    description.driver_name = "idle";
    if (!(*runtime)->register_device(description, std::make_unique<IdleDriver>())) return;
    if (write(ready, "r", 1) == 1) (*runtime)->run();
  }

  std::string folder_;
  std::optional<Child> child_;
};

}  // namespace accelmm::bench
