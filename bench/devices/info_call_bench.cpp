// SPDX-License-Identifier: Apache-2.0
#include "driver_process.hpp"

#include <accelmm/client.hpp>

#include <array>

#include <benchmark/benchmark.h>
#include <sys/socket.h>
#include <unistd.h>

namespace accelmm::bench {
namespace {

// One INFO call to a device in another process, through the client library.
void info_call(benchmark::State& state) {
  const DriverProcess driver;
  const auto client = driver.connect();
  if (!client) return state.SkipWithError(client.error().what);
  for (auto _ : state) {
    const auto info = client->device_info();
    benchmark::DoNotOptimize(info);
    if (!info) return state.SkipWithError(info.error().what);
  }
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
