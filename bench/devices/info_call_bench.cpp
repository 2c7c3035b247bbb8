// SPDX-License-Identifier: Apache-2.0
#include <accelmm/client.hpp>
#include <accelmm/runtime.hpp>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <string>

#include <benchmark/benchmark.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

namespace accelmm::bench {
namespace {

/// A device that can do nothing but tell what it is.
class IdleDriver final : public Driver {
 public:
  void probe(Device&, Completion done) override { done({}); }
  void remove(Device&) noexcept override {}
  void stop(Session&, Completion done) override { done({}); }
};

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

void host_idle_device(const std::string& directory, int ready) {
  auto runtime = Runtime::create({.directory = directory});
  if (!runtime) return;
  DeviceDescription description;
  description.driver_name = "idle";
  if (!(*runtime)->register_device(description, std::make_unique<IdleDriver>())) return;
  if (write(ready, "r", 1) == 1) (*runtime)->run();
}

// One INFO call to a device in another process, through the client library.
void info_call(benchmark::State& state) {
  std::string directory = std::filesystem::temp_directory_path() / "accelmm-bench-XXXXXX";
  std::array<int, 2> ready{};
  if (mkdtemp(directory.data()) == nullptr || pipe(ready.data()) != 0)
    return state.SkipWithError("no folder");
  {
    const Child driver([&] { host_idle_device(directory, ready[1]); });
    char byte = 0;
    close(ready[1]);
    if (read(ready[0], &byte, 1) != 1) return state.SkipWithError("no driver process");
    close(ready[0]);
    const auto client = Client::connect(0, NodeKind::compute, directory);
    if (!client) return state.SkipWithError(client.error().what);
    for (auto _ : state) {
      const auto info = client->device_info();
      benchmark::DoNotOptimize(info);
      if (!info) return state.SkipWithError(info.error().what);
    }
  }
  std::filesystem::remove_all(directory);
}

// The same bytes both ways between two processes that do nothing else.
constexpr std::size_t packet_bytes = sizeof(accelmm_message_header) + sizeof(accelmm_info);

void seqpacket_ping_pong(benchmark::State& state) {
  std::array<int, 2> ends{};
  if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends.data()) != 0)
    return state.SkipWithError("no socket");
  const Child peer([&] {
    std::array<char, packet_bytes> packet{};
    close(ends[0]);
    while (recv(ends[1], packet.data(), packet.size(), 0) > 0)
      if (send(ends[1], packet.data(), packet.size(), MSG_NOSIGNAL) < 0) return;
  });
  std::array<char, packet_bytes> packet{};
  for (auto _ : state) {
    if (send(ends[0], packet.data(), packet.size(), MSG_NOSIGNAL) < 0 ||
        recv(ends[0], packet.data(), packet.size(), 0) < 0)
      return state.SkipWithError("peer is gone");
  }
  close(ends[0]);
  close(ends[1]);
}

BENCHMARK(info_call)->Name("devices/info-call/ours")->UseRealTime();
BENCHMARK(seqpacket_ping_pong)->Name("devices/info-call/seqpacket-ping-pong")->UseRealTime();

}  // namespace
}  // namespace accelmm::bench
